"""The ablation's arithmetic and its section of the results; the runs themselves are the program's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "ablate_attention.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablate_attention", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablate_attention"] = module
    spec.loader.exec_module(module)
    return module


def answers(right: int) -> dict[str, bool]:
    """100 videos in 20 groups, the first ones right."""
    return {f"Archery/v_Archery_g{i // 5:02d}_c{i % 5:02d}": i < right for i in range(100)}


def test_rows_hold_means_and_paired_differences(script: ModuleType) -> None:
    runs = {
        "none": {0: answers(50), 1: answers(60)},
        "se": {0: answers(90), 1: answers(96)},
        "eca": {1: answers(60)},  # compared with none of the same seed
    }
    head, rule, none, se, eca = script.table(runs).splitlines()
    assert head.count("|") == rule.count("|") == se.count("|")
    assert none.startswith("| none | 0 | 2 | 55.0 % (50.0–60.0)")
    assert none.endswith("| – |")
    assert "93.0 % (90.0–96.0)" in se
    assert "+38.0 points" in se
    assert "+0.0 points (+0.0 to +0.0)" in eca
    assert "Better than none by more than chance: se." in script.conclusion(runs)


def test_what_is_worse_is_said_too(script: ModuleType) -> None:
    runs = {"none": {0: answers(90)}, "se": {0: answers(20)}}
    assert "−70.0 points" in script.table(runs)
    assert "Worse than none by more than chance: se." in script.conclusion(runs)
    assert "holds zero" in script.conclusion({"none": {0: answers(90)}, "se": {0: answers(90)}})


def test_only_its_own_section_is_replaced(script: ModuleType) -> None:
    page = f"# A\n\n{script.SECTION.begin}\nstale\n{script.SECTION.end}\n\nrest\n"
    text = script.section({"none": {0: answers(50)}, "se": {0: answers(50)}})
    once = script.SECTION.replace(page, text)
    assert once.startswith("# A\n")
    assert once.endswith("rest\n")
    assert "stale" not in once
    assert script.SECTION.replace(once, text) == once
    with pytest.raises(ValueError, match="no place"):
        script.SECTION.replace("# A\n", text)


def test_only_finished_runs_count(script: ModuleType, tmp_path: Path) -> None:
    for name, done in (("none-0", True), ("none-1", False), ("se-0", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "answers.json").write_text('{"a/v_a_g01_c01": true}')
        if done:
            (tmp_path / name / "done").touch()
    found = script.finished(tmp_path)
    assert {mechanism: list(runs) for mechanism, runs in found.items()} == {"none": [0], "se": [0]}


def test_groups_are_those_of_the_source_video(script: ModuleType) -> None:
    assert script.group_of("Archery/v_Archery_g22_c01") == "Archery_g22"
