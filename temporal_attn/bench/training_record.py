"""What runs of the table answered, in one small file: where it is, the table is made and gone on with without them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from temporal_attn.bench.results import write_json
from temporal_attn.bench.training_costs import Costs
from temporal_attn.bench.training_rows import rows as known_rows
from temporal_attn.bench.training_runs import Finished, Place
from temporal_attn.bench.training_table import Figures, Found
from temporal_attn.types import UserError

__all__ = ["RECORD_SCHEMA", "Record", "read_record", "write_record"]

RECORD_SCHEMA = "temporal-attn/bench-training/2"

_SHARED = ("fit_cpu_s", "date", "threads", "machine")


class Record(NamedTuple):
    """What is in the file.

    Args:
        found: Runs by row and seed.
        rows: Figures of all rows, also of those whose runs are not in the file.
    """

    found: Found
    rows: list[Figures]


def read_record(path: str, place: Place) -> Record:
    """Read what `write_record` wrote; an empty file, or none, holds nothing.

    Args:
        path: The file.
        place: Where runs are trained, and with which settings.

    Raises:
        UserError: The file is not such a record, or one of other settings.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"json {path}: cannot be read ({error})") from None
    if not text:
        return Record({}, [])
    try:
        stored = json.loads(text)
        if stored["schema"] != RECORD_SCHEMA:
            raise ValueError(stored["schema"])
        found: dict[str, dict[int, Finished]] = {}
        for run in stored["runs"]:
            found.setdefault(run["row"], {})[run["seed"]] = _unpacked(run, stored["videos"])
        record, settings = Record(found, stored["rows"]), stored["settings"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"json {path}: is no record of {RECORD_SCHEMA}; choose another file") from None
    own = _settings(place, settings["options"])
    if settings != own:
        raise UserError(f"json {path}: holds runs of other settings than {place.config} has now; choose another file")
    return record


def write_record(path: str, place: Place, found: Found, rows: list[Figures]) -> None:
    """Write runs and figures.

    Args:
        path: The file.
        place: Where the runs were trained, and with which settings.
        found: The runs.
        rows: The figures of all rows.

    Raises:
        UserError: Two runs answered for different videos.
    """
    runs = {(name, seed): run for name, own in found.items() for seed, run in sorted(own.items())}
    videos = next((dict(sorted(run.groups.items())) for run in runs.values()), {})
    for (name, seed), run in runs.items():
        if run.groups != videos:
            raise UserError(
                f"{name}, seed {seed}: answered for other videos than the first run, or knows other groups; "
                "runs of one table need the same lists"
            )
    done = dict.fromkeys(row["row"] for row in rows if row["seeds"])
    write_json(
        path,
        RECORD_SCHEMA,
        settings=_settings(place, done),
        rows=rows,
        videos=videos,
        runs=[_packed(name, seed, run) for (name, seed), run in runs.items()],
    )


def _settings(place: Place, names: Iterable[str]) -> dict[str, Any]:
    """What the runs of some rows depend on; rows that there are no more have none."""
    known = known_rows()
    options = {name: place.settings(known[name])["options"] for name in names if name in known}
    return {"config": place.settings(next(iter(known.values())))["config"], "options": options}


def _packed(name: str, seed: int, run: Finished) -> dict[str, Any]:
    right = "".join(str(int(run.answers[video])) for video in sorted(run.answers))
    return {
        "row": name,
        "seed": seed,
        "right": right,
        **run.costs._asdict(),
        **{key: getattr(run, key) for key in _SHARED},
    }


def _unpacked(run: dict[str, Any], videos: dict[str, str]) -> Finished:
    answers = {video: one == "1" for video, one in zip(videos, run["right"], strict=True)}
    costs = Costs(*(run[key] for key in Costs._fields))
    return Finished(answers, dict(videos), costs, *(run[key] for key in _SHARED))
