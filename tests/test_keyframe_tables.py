"""Tables of the key-frame benchmark: what they hold, and that each replaces only itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from temporal_attn.bench.keyframe_clips import COLUMNS
from temporal_attn.bench.keyframe_rows import cross_rows, rows_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keyframe_tables", ROOT / "scripts" / "keyframe_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result() -> dict[str, Any]:
    """What `run_synth` makes of one regime and two methods."""
    values = dict.fromkeys(COLUMNS, 0.5) | {"random_deletion": 0.8, "best_deletion": 0.2, "deletion": 0.35, "evals": 26}
    row = [[values[column] for column in COLUMNS]] * 3
    methods = {"drop/auto": row, "drop/random": row, "mean/auto": row}
    found = [{"methods": methods, "cross": {"drop/mean": [[0.35, 0.5, 0.8, 0.5, 0.2, 0.5]]}}]
    return {
        "suite": "synth",
        "budget": "quick",
        "rows": rows_of("or", found),
        "removals": cross_rows("or", found),
        "models": [{"regime": "or", "clips": 3, "accuracy": 1.0, "doubts": ["removal is out of distribution"]}],
        "targets": [
            {"target": "ndel of auto", "regime": "or", "value": 0.75, "ci": [0.7, 0.8], "at_least": 0.93, "met": False},
            {"target": "cpu_s", "regime": "or", "value": 0.08, "ci": None, "at_most": 0.1, "met": True},
        ],
        "captum": None,
    }


def test_tables_hold_what_was_measured(script):
    text = script.section(result())
    assert "| ndel of auto | or | ≥ 0.93 | 0.750 (0.700 to 0.800) | **no** |" in text
    assert "| cpu_s | or | ≤ 0.1 | 0.080 | yes |" in text
    assert "Unreliable: removal is out of distribution." in text
    (auto,) = [line for line in text.splitlines() if line.startswith("| auto |")]
    assert "0.750 (0.750 to 0.750)" in auto
    assert auto.endswith("| 26 | 0.500 |")
    assert "| or | drop | mean | 0.750 | – |" in text


def test_people_are_compared_with_what_is_expected(script):
    rows = [{"method": "people", "tau": 0.177, "rho": -0.2, "tau_ci": [0.1, 0.2], "rho_ci": None, "expected": (0.1, 0)}]
    text = script.section({"suite": "tvsum", "rows": rows})
    assert "| people | 0.177 (0.100 to 0.200) | −0.200 | 0.100 / 0.000 |" in text


def test_each_suite_replaces_its_own_section(script):
    page = (ROOT / "docs" / "keyframes.md").read_text("utf-8")
    once = script.replace_section(page, result())
    assert script.replace_section(once, result()) == once
    for suite in ("faith", "tvsum"):
        begin, end = script.markers(suite)
        assert page.partition(begin)[2].partition(end)[0] == once.partition(begin)[2].partition(end)[0]
    with pytest.raises(SystemExit, match="no section"):
        script.replace_section("# nothing", result())
