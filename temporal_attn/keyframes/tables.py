"""Scores as tables: one row a frame, the same columns as CSV and as Parquet."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

__all__ = ["COLUMNS", "frame_rows", "rows_to_csv", "write_parquet"]

COLUMNS = {
    "id": "string",
    "video": "string",
    "class": "string",
    "against": "string",
    "probability": "float64",
    "method": "string",
    "removal": "string",
    "finding": "string",
    "index": "int64",
    "pts": "float64",
    "score": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "keyframe": "bool",
    "rank": "int64",
    "checkpoint_sha256": "string",
}
"""Column -> its Arrow type."""


def frame_rows(scores: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """One row a frame, with what all frames of the video have in common repeated.

    Args:
        scores: A document of `Inspection.scores`.
        name: Id of the video.
    """
    shared = {
        "id": name,
        "video": scores["video"],
        "class": scores["target"]["class"],
        "against": scores["against"] and scores["against"]["class"],
        "probability": scores["evidence"]["full"],
        "method": scores["method"],
        "removal": scores["removal"],
        "finding": scores["evidence"]["finding"],
        "checkpoint_sha256": scores["checkpoint_sha256"],
    }
    rows = []
    for frame in scores["frames"]:
        low, high = frame["ci"] or (None, None)
        own = {
            "ci_low": low,
            "ci_high": high,
            **{key: frame[key] for key in ("index", "pts", "score", "keyframe", "rank")},
        }
        rows.append({column: {**shared, **own}[column] for column in COLUMNS})
    return rows


def rows_to_csv(scores: Mapping[str, Any]) -> str:
    """The frames of one video as CSV: index, pts, score, keyframe, and the interval where there is one."""
    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    table.writerow(["index", "pts", "score", "keyframe", "rank", "ci_low", "ci_high"])
    for frame in scores["frames"]:
        low, high = ("" if end is None else f"{end:.6f}" for end in frame["ci"] or (None, None))
        rank = "" if frame["rank"] is None else frame["rank"]
        table.writerow(
            [frame["index"], f"{frame['pts']:.6f}", f"{frame['score']:.6f}", int(frame["keyframe"]), rank, low, high]
        )
    return stream.getvalue()


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows of `frame_rows`, whole or not at all."""
    import pyarrow.parquet

    unfinished = path.with_name(f"{path.name}.part")
    table = pyarrow.Table.from_pylist(list(rows), schema=_schema())
    pyarrow.parquet.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, path)


def _schema() -> pyarrow.Schema:
    import pyarrow

    types = {"bool": pyarrow.bool_()}
    return pyarrow.schema([(name, types.get(kind) or getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
