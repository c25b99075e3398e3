"""Annotations of Kinetics."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from datamodules.records.catalogue import Entry
from datamodules.records.lists import read_columns, unrepeated
from datamodules.records.parts import part_called, part_in_name
from temporal_attn.types import UserError

__all__ = ["read_kinetics"]

_COLUMNS = ("youtube_id", "time_start", "time_end")


def read_kinetics(path: Path) -> tuple[tuple[str, ...], Mapping[str, list[Entry]]]:
    """Class names in alphabetical order, and the clips by ``train``, ``val`` and ``test``.

    A clip is named after its file, ``<youtube_id>_<start>_<end>`` with six digits a second; its group is the YouTube
    video.

    Args:
        path: A CSV file with the columns ``label, youtube_id, time_start, time_end, split``, or a folder with one for
            each part. Without the column ``split`` the file's name says the part, and without ``label`` the classes of
            the part are unknown.

    Raises:
        UserError: A file is missing, empty or malformed, a part is unknown, or a clip is listed twice.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: holds no .csv file; expected train.csv, validate.csv and test.csv")
    parts: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for file in files:
        for where, row in read_columns(file, _COLUMNS, ("label", "split")):
            part = part_called(row["split"]) if "split" in row else part_in_name(file.stem)
            if part is None:
                raise UserError(
                    f"{where}: the split is none of train, validate and test, nor is one in the file's name"
                )
            video = row["youtube_id"]
            start, end = (_whole_seconds(row[name], where) for name in ("time_start", "time_end"))
            parts[part].append((where, Entry(f"{video}_{start:06d}_{end:06d}", row.get("label") or None, video)))
    names = {name for located in parts.values() for _, entry in located for name in entry.class_tuple}
    return tuple(sorted(names)), {part: unrepeated(located) for part, located in parts.items()}


def _whole_seconds(text: str, where: str) -> int:
    if not re.fullmatch(r"\d+(\.0*)?", text):
        raise UserError(f"{where}: {text!r} is no time; expected whole seconds such as 12")
    return int(float(text))
