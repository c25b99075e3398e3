"""`temporal-attn bench training`: what temporal models gain, what Lightning costs, whether order matters."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from temporal_attn.allocator import keep_large_blocks
from temporal_attn.bench.results import check_writable
from temporal_attn.bench.section import Section
from temporal_attn.bench.training_record import Record, read_record, write_record
from temporal_attn.bench.training_rows import Row
from temporal_attn.bench.training_rows import rows as known_rows
from temporal_attn.bench.training_runs import Place, finished_runs, train, work
from temporal_attn.bench.training_table import Figures, Found, figures, section
from temporal_attn.types import UserError

__all__ = ["SECTION", "bench_training"]

SECTION = Section("bench training")

_TERMINATED = 143


def bench_training(
    suite: Literal["ucf101_20", "overhead", "order"],
    config: str = "configs/ucf101_20.yaml",
    root: str | None = None,
    splits: str | None = None,
    runs: str | None = None,
    cache: str | None = None,
    rows: list[str] | None = None,
    seeds: int | None = None,
    options: list[str] | None = None,
    page: str | None = "docs/results.md",
    checkpoint: str | None = None,
    rounds: int = 40,
    seed: int = 0,
    json: str | None = None,
) -> int:
    """Measure training: the table of temporal models, the overhead of Lightning, or what the order of frames is worth.

    ``ucf101_20`` varies one factor at a time and writes its section of a page. What is trained is not trained again,
    and what was stopped goes on; with ``json`` also elsewhere, from that file alone. ``overhead`` measures steps of
    Lightning beside those of a bare loop, and a model of this package beside torchvision's r3d_18. ``order`` asks a
    checkpoint about the validation clips forwards, backwards and shuffled.

    Args:
        suite: ``ucf101_20``, ``overhead`` or ``order``.
        config: Of ``ucf101_20``, the YAML that its rows differ from; of ``order``, the one of the checkpoint's data.
        root: Of both, the videos.
        splits: Of both, the lists.
        runs: Of ``ucf101_20``, the folder of its runs.
        cache: Of ``ucf101_20``, the folder of the features.
        rows: Of ``ucf101_20``, the rows that are trained; null for all. The table holds whatever is finished.
        seeds: Of ``ucf101_20``, most seeds of a row; null for 5 of what is frozen, 3 of what is partly trained, 1 of
            what is trained whole; 0 trains nothing, needs no videos, and only writes the table.
        options: Of ``ucf101_20`` and ``order``, further options of `temporal-attn fit`, such as ``data.reader=decord``.
        page: Of ``ucf101_20``, the page with its section; null writes none.
        checkpoint: Of ``order``, the model.
        rounds: Of ``overhead``, how many steps are measured.
        seed: Of weights and random draws; of ``ucf101_20`` every run has its own.
        json: File for the figures, as JSON. That of ``ucf101_20`` also holds what each run answered: runs that are in
            it are not trained again, and rows whose figures alone are in it keep them until there are as many runs.

    Returns:
        Exit status: 1 where a run failed.

    Raises:
        UserError: An option is missing, out of range or does not exist, or the JSON file holds something else.
    """
    for name, value, least in (("rounds", rounds, 1), ("seeds", 0 if seeds is None else seeds, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; it has to be {least} or more")
    if json is not None:
        check_writable(json)
    keep_large_blocks()  # as every command that trains does
    if suite == "overhead":
        from temporal_attn.bench.training_overhead import measure_overhead

        return measure_overhead(rounds, seed, json)
    given = {"root": root, "splits": splits}
    if suite == "order":
        from temporal_attn.bench.training_order import probe_order

        found = _required(suite, {**given, "checkpoint": checkpoint})
        words = [f"data.root={found['root']}", f"data.splits={found['splits']}", *(options or ())]
        return probe_order(found["checkpoint"], config, words, seed, json)
    found = _required(suite, {"runs": runs} if seeds == 0 else {**given, "runs": runs, "cache": cache})
    place = Place(config, root or "", splits or "", Path(found["runs"]), cache or "", tuple(options or ()))
    return _fill_table(place, _chosen(rows), seeds, page, json)


def _required(suite: str, given: dict[str, str | None]) -> dict[str, str]:
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if missing:
        raise UserError(f"suite {suite}: needs {', '.join(missing)}")
    return {name: value for name, value in given.items() if value is not None}


def _chosen(names: Sequence[str] | None) -> list[Row]:
    known = known_rows()
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UserError(f"rows: {', '.join(unknown)} not known; choose from: {', '.join(known)}")
    return [row for name, row in known.items() if names is None or name in names]


def _fill_table(place: Place, rows: Sequence[Row], seeds: int | None, page: str | None, json: str | None) -> int:
    """Train what is missing, then write what is there, also where the work is interrupted."""
    if page is not None:
        SECTION.write(page, None)
    record = Record({}, []) if json is None else read_record(json, place)
    _with_runs(record.found, place)  # runs of other settings are found before the work
    try:
        failed = _train(place, rows, seeds, record.found)
    finally:
        _write(_with_runs(record.found, place), record.rows, place, page, json)
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return int(bool(failed))


def _train(place: Place, rows: Sequence[Row], seeds: int | None, known: Found) -> list[str]:
    """Names of the runs that failed; the others are trained all the same."""
    failed = []
    for row, seed in work(rows, seeds):
        if seed in known.get(row.name, {}):
            continue
        try:
            status = train(row, seed, place)
        except UserError as error:
            print(f"{row.name}, seed {seed}: {error}", file=sys.stderr)
            status = 2
        except Exception:  # hours of other runs shall not be lost for one
            traceback.print_exc()
            status = 1
        if status == _TERMINATED:
            raise SystemExit(status)
        if status:
            failed.append(f"{row.name}, seed {seed}")
    return failed


def _with_runs(found: Found, place: Place) -> Found:
    return {name: {**found.get(name, {}), **finished_runs(row, place)} for name, row in known_rows().items()}


def _write(found: Found, earlier: Sequence[Figures], place: Place, page: str | None, json: str | None) -> None:
    command = (
        "temporal-attn bench training --suite ucf101_20 --root VIDEOS --splits LISTS --runs RUNS --cache CACHE"
        f"{'' if place.config == 'configs/ucf101_20.yaml' else f' --config {place.config}'}"
        f"{'' if json is None else f' --json {json}'}"
    )
    rows = figures(found, earlier)
    text = section(rows, command, place.config)
    print(text)
    if json is not None:
        write_record(json, place, found, rows)
    if page is not None:
        SECTION.write(page, text)
