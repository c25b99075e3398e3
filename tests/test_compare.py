"""Two runs on the same videos: by hand, against scipy, and refused where they are not the same videos."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from temporal_attn.cli import main
from temporal_attn.evaluation import VideoRow, VideoTable, summarise
from temporal_attn.evaluation.compare import compare, mcnemar
from temporal_attn.evaluation.intervals import bootstrap_over_groups
from temporal_attn.evaluation.predictions import read_judged, write_judged
from temporal_attn.evaluation.scoring import Scoring
from temporal_attn.types import UserError


def rows(right: list[bool]) -> list[dict[str, Any]]:
    return [
        {"video_id": f"v{i}", "group": f"g{i // 2}", "label": "a", "class": "a" if hit else "b"}
        for i, hit in enumerate(right)
    ]


FIRST, SECOND = rows([True, True, False, False, True, False]), rows([True, False, True, True, True, True])


def test_by_hand():
    found = compare(FIRST, SECOND)
    assert (found.videos, found.groups) == (6, 3)
    assert found.top1 == (3 / 6, 5 / 6)
    assert found.difference == pytest.approx(2 / 6)
    assert (found.only_first, found.only_second) == (("v1",), ("v2", "v3", "v5"))
    assert found.p_value == mcnemar(1, 3)
    assert found.ci95 == bootstrap_over_groups([0, -1, 1, 1, 0, 1], ["g0", "g0", "g1", "g1", "g2", "g2"])


def test_the_other_way_round_is_the_negative():
    there, back = compare(FIRST, SECOND), compare(SECOND, FIRST)
    assert back.difference == -there.difference
    assert back.ci95 == pytest.approx((-there.ci95[1], -there.ci95[0]), abs=1e-9)
    assert back.p_value == there.p_value


def test_a_run_beside_itself_shows_nothing():
    found = compare(FIRST, FIRST)
    assert (found.difference, found.ci95, found.p_value) == (0, (0, 0), 1)
    assert "no difference" in found.verdict


def test_order_does_not_matter_and_failed_videos_are_wrong():
    failed = [*FIRST[1:], {**FIRST[0], "class": None}]
    assert compare(failed, FIRST).only_second == ("v0",)


@pytest.mark.parametrize("counts", [(0, 0), (1, 9), (5, 5), (0, 7), (40, 61), (4000, 4200)])
def test_mcnemar_equals_scipy(counts: tuple[int, int]):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(counts[0], sum(counts)).pvalue if sum(counts) else 1.0
    assert mcnemar(*counts) == pytest.approx(expected)


def test_other_videos_are_refused_by_name():
    with pytest.raises(UserError, match="second run lacks 1 videos of the other: v5"):
        compare(FIRST, SECOND[:-1])
    with pytest.raises(UserError, match="first run lacks 1 videos of the other: v5"):
        compare(FIRST[:-1], SECOND)
    with pytest.raises(UserError, match="disagree on the label of 1 videos: v0"):
        compare(FIRST, [{**SECOND[0], "label": "b"}, *SECOND[1:]])


def test_a_video_that_a_run_has_twice_is_named():
    with pytest.raises(UserError, match="second run has 1 videos more than once: v0;"):
        compare(FIRST, [*SECOND, SECOND[0]])


def test_scores_that_are_no_numbers_are_wrong_here_as_in_the_metrics(tmp_path: Path):
    """Also of videos of the class that would come first among equals."""
    videos = [VideoRow("v0", "g", 0, [math.nan, 0.5]), VideoRow("v1", "g", 1, [0.1, 0.9])]
    file = tmp_path / "test_predictions.jsonl"
    write_judged(file, VideoTable.of(videos, 2), ["a", "b"], Scoring(threshold=0.5), {})
    lost, kept = (json.loads(line, parse_constant=pytest.fail) for line in file.open())
    assert (lost["class"], lost["probabilities"], "no numbers" in lost["failed"]) == (None, None, True)
    assert kept["class"] == "b"
    assert compare(read_judged(file), read_judged(tmp_path)).top1 == (0.5, 0.5)
    assert summarise(videos, ["a", "b"])["top1"] == 0.5


def test_rows_without_a_class_are_no_run(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"video_id": "a", "group": "g", "label": "a"}\n')
    with pytest.raises(UserError, match="give the folder of a run"):
        read_judged(file)


def test_the_program(tmp_path: Path, capsys: Any):
    for name, own in (("a", FIRST), ("b", SECOND)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test_predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    out = tmp_path / "found.json"
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), f"--json={out}"]) == 0
    assert "difference +33.3%" in capsys.readouterr().out
    document = json.loads(out.read_text())
    assert document["schema"] == "temporal_attn/compare/1"
    assert document["only_second"] == ["v2", "v3", "v5"]
    assert main(["compare", str(tmp_path / "a")]) == 2
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "nowhere")]) == 2
    assert "temporal-attn test" in capsys.readouterr().err


def test_one_group_says_nothing_about_others():
    alike = [{**row, "group": "g"} for row in rows([True] * 4)], [{**row, "group": "g"} for row in rows([False] * 4)]
    assert compare(*alike).verdict == "videos of one group say nothing about others"


def test_the_order_of_labels_is_that_of_a_model_and_no_disagreement():
    first = [{**row, "label": ["a", "b"]} for row in FIRST]
    assert compare(first, [{**row, "label": ["b", "a"]} for row in FIRST]).difference == 0
    assert compare([{**row, "label": ["a"]} for row in FIRST], FIRST).difference == 0
    with pytest.raises(UserError, match="label"):
        compare(first, FIRST)
