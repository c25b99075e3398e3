"""What runs answered, kept in one file: the table is made from it, and training goes on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from temporal_attn.bench import training
from temporal_attn.bench.training import SECTION, bench_training
from temporal_attn.bench.training_record import read_record, write_record
from temporal_attn.bench.training_rows import Row
from temporal_attn.bench.training_runs import Place
from temporal_attn.bench.training_table import figures, section
from temporal_attn.types import UserError
from tests.training_runs import finished

PROJECT = Path(__file__).parents[1]
FOUND = {
    "transformer": {0: finished(20), 1: finished(24)},
    "mean": {0: finished(36), 1: finished(40), 2: finished(7)},
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "config.yaml").write_text("model: {dim: 8}\n")
    return Place(str(tmp_path / "config.yaml"), "", "", tmp_path / "runs", "")


@pytest.fixture
def record(place: Place, tmp_path: Path) -> Path:
    path = tmp_path / "record.json"
    write_record(str(path), place, FOUND, figures(FOUND))
    return path


def test_runs_come_back_as_they_were(record: Path, place: Place) -> None:
    found, rows = read_record(str(record), place)
    assert found == FOUND
    assert rows == figures(FOUND) == figures(found, rows)


def test_figures_stand_until_there_are_as_many_runs() -> None:
    earlier = figures(FOUND)
    fewer = figures({"transformer": FOUND["transformer"], "mean": {0: finished(0), 1: finished(0)}}, earlier)
    assert fewer == earlier
    as_many = figures({"transformer": FOUND["transformer"], "mean": dict.fromkeys(range(3), finished(0))}, earlier)
    mean = next(row for row in as_many if row["row"] == "mean")
    assert mean["top1"] == 0
    assert mean["against"][0] == pytest.approx(-0.55)
    assert figures({}, earlier) == earlier


def test_recorded_runs_are_not_trained_again(record: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(row: Row, seed: int, _: Place) -> int:
        asked.append((row.name, seed))
        return 0

    monkeypatch.setattr(training, "train", note)
    words: dict[str, Any] = {"config": place.config, "runs": str(place.runs), "page": None, "json": str(record)}
    before = json.loads(record.read_text())
    others = {"root": "r", "splits": "s", "cache": "c", "rows": ["transformer", "mean"]}
    assert bench_training("ucf101_20", seeds=4, **words, **others) == 0
    assert asked == [("transformer", 2), ("transformer", 3), ("mean", 3)]
    assert json.loads(record.read_text()) == before


def test_the_table_needs_nothing_but_the_record(record: Path, place: Place, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{SECTION.begin}\n{SECTION.end}\n")
    words: dict[str, Any] = {"config": place.config, "runs": str(place.runs), "json": str(record)}
    assert bench_training("ucf101_20", seeds=0, page=str(page), **words) == 0
    command = f"RUNS --cache CACHE --config {place.config} --json {record}\n"
    assert command in page.read_text()
    assert section(figures(FOUND), "", place.config).partition("```\n\n")[2] in page.read_text()
    assert "5 runs of" in capsys.readouterr().out


@pytest.mark.parametrize("content", ['{"schema": "temporal-attn/bench-training/1"}', "[]", "no JSON"])
def test_another_file_is_left_alone(content: str, place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(content)
    with pytest.raises(UserError, match=r"other\.json: is no record of temporal-attn/bench-training/2; choose another"):
        bench_training("ucf101_20", config=place.config, runs=str(place.runs), seeds=0, page=None, json=str(other))
    assert other.read_text() == content


def test_runs_of_other_settings_are_not_taken_over(record: Path, place: Place) -> None:
    with pytest.raises(UserError, match="other settings"):
        read_record(str(record), place._replace(options=("model.dim=9",)))
    Path(place.config).write_text("model: {dim: 9}\n")
    with pytest.raises(UserError, match="other settings"):
        read_record(str(record), place)


def test_runs_of_other_videos_are_not_put_beside(place: Place, tmp_path: Path) -> None:
    run = finished(3)
    renamed = run._replace(groups={f"{video}x": group for video, group in run.groups.items()})
    found = {"mean": {0: run, 1: renamed}}
    with pytest.raises(UserError, match="mean, seed 1: answered for other videos"):
        write_record(str(tmp_path / "record.json"), place, found, figures({}))


def test_the_page_says_what_its_record_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    place = Place("configs/ucf101_20.yaml", "", "", Path("nowhere"), "")
    found, rows = read_record("docs/results/ucf101_20.json", place)
    _, _, rest = Path("docs/results.md").read_text().partition(SECTION.begin)
    written = rest.partition(SECTION.end)[0].strip()
    command = written.splitlines()[1]
    assert figures(found, rows) == rows
    assert section(rows, command, place.config) == written
