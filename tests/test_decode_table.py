"""The script that writes the decoding benchmark into its page."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "decode_table.py"


@pytest.fixture
def table():
    spec = importlib.util.spec_from_file_location("decode_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROW = {"kind": "gop12", "reader": "auto", "files": 3, "cpu_ms": 6.25, "ratio_to_decord": 3.0, "ratio_ci": [2.9, 3.1]}
RESULT = {
    "schema": "temporal-attn/bench-decode/1",
    "machine": {"processor": "P", "cores": 2, "python": "3.11", "versions": {"av": "18"}},
    "rows": [
        {**ROW, "exact": True},
        {**ROW, "kind": "two", "cpu_ms": None, "ratio_to_decord": None, "ratio_to_one_worker": 1.9, "exact": None},
    ],
}


def test_the_section_is_written_between_the_markers_again_and_again(table, tmp_path, monkeypatch):
    page, result = tmp_path / "page.md", tmp_path / "f.json"
    page.write_text(f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n", encoding="utf-8")
    result.write_text(json.dumps(RESULT), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["decode_table.py", str(result), "--page", str(page)])
    table.main()
    once = page.read_text(encoding="utf-8")
    table.main()
    assert page.read_text(encoding="utf-8") == once
    assert once.startswith("above\n")
    assert once.endswith("below\n")
    assert "old" not in once
    assert "| gop12 | auto | 3 | 6.25 | 3.00 | 2.90 to 3.10 | yes |" in once
    assert "| two | auto | 3 |  | 1.90 | 2.90 to 3.10 |  |" in once


def test_what_is_no_result_or_no_page_is_refused(table, tmp_path, monkeypatch):
    page, result = tmp_path / "page.md", tmp_path / "f.json"
    page.write_text("no markers", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["decode_table.py", str(result), "--page", str(page)])
    result.write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match="not a result"):
        table.main()
    result.write_text(json.dumps(RESULT), encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks the markers"):
        table.main()
    assert table.PAGE.read_text(encoding="utf-8").count(table.BEGIN) == 1
