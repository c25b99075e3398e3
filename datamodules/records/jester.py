"""Annotations of Jester, and of others that come as lines ``<id>;<class>``, such as Something-Something v1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datamodules.records.catalogue import Entry
from datamodules.records.lists import only_file, read_lines, unrepeated
from temporal_attn.types import UserError

__all__ = ["read_jester"]


def read_jester(folder: Path) -> tuple[tuple[str, ...], Mapping[str, list[Entry]]]:
    """Class names in label order, and the videos by ``train``, ``val`` and ``test``.

    Args:
        folder: Holds ``labels.csv`` with a class a line, ``train.csv`` and ``validation.csv`` with lines
            ``<id>;<class>``, and ``test.csv`` with lines ``<id>``, whatever stands before these names.

    Raises:
        UserError: A file is missing or malformed, a class is unknown, or a video is listed twice.
    """
    names = tuple(line for _, line in read_lines(only_file(folder, "labels.csv"), "'<class>'"))
    words = {"train": "train", "val": "validation", "test": "test"}
    return names, {part: _videos(only_file(folder, f"{word}.csv"), names, part) for part, word in words.items()}


def _videos(path: Path, names: tuple[str, ...], part: str) -> list[Entry]:
    form = "'<id>'" if part == "test" else "'<id>;<class>'"
    known = frozenset(names)
    located = []
    for where, line in read_lines(path, form):
        video_id, _, class_name = (value.strip(' \t"') for value in line.partition(";"))
        if not video_id or not (class_name or part == "test"):
            raise UserError(f"{where}: expected {form}, found {line!r}")
        if class_name and class_name not in known:
            raise UserError(f"{where}: {class_name!r} is no class in labels.csv")
        located.append((where, Entry(video_id, class_name or None)))
    return unrepeated(located)
