"""Annotation lists of mmaction2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.records.catalogue import Entry
from datamodules.records.lists import read_lines, relative_name, unrepeated
from temporal_attn.types import UserError

__all__ = ["read_label_map", "read_mmaction_list"]


def read_label_map(path: Path) -> tuple[str, ...]:
    """Class names in label order, one a line.

    Raises:
        UserError: The file is missing or empty, or a name appears twice.
    """
    names = tuple(line for _, line in read_lines(path, "'<class>'"))
    if len(set(names)) < len(names):
        raise UserError(f"{path}: a class appears twice; every line names another one")
    return names


def read_mmaction_list(
    path: Path,
    class_names: Sequence[str] | None = None,
    frame_folders: bool = False,
    multi_label: bool = False,
    allow_outside: bool = False,
    root: str | Path | None = None,
) -> list[Entry]:
    """Videos of a list.

    Numbers are taken from the end of the line, so that paths may hold spaces.

    Args:
        path: Lines ``<path> <label>``; with `frame_folders` ``<path> <number of frames> <label>``; with `multi_label`
            any number of labels at the end.
        class_names: Names in label order; None names classes by their numbers.
        frame_folders: Whether paths are folders of images, each followed by its number of frames.
        multi_label: Whether a video has several labels, or none.
        allow_outside: Whether paths may lead out of the videos' folder.
        root: The videos' folder, below which absolute paths are understood.

    Raises:
        UserError: The file is missing or empty; or a line has another form, points outside the root, carries a label
            without a name or appears twice.
    """
    form = (
        f"<path>{' <number of frames>' if frame_folders else ''}{' <label> <label> ...' if multi_label else ' <label>'}"
    )
    labels = r"((?:\s+\d+)*)" if multi_label else r"(\s+\d+)"
    pattern = re.compile(r"(.*?\S)" + (r"\s+(\d+)" if frame_folders else "()") + labels)
    located = []
    for where, line in read_lines(path, f"'{form}'"):
        match = pattern.fullmatch(line)
        if match is None or match[2] == "0":
            raise UserError(f"{where}: expected '{form}', found {line!r}")
        names = tuple(_name(int(label), class_names, where) for label in match[3].split())
        name = relative_name(match[1], where, allow_outside, root)
        frames = int(match[2]) if match[2] else None
        located.append((where, Entry(name, names if multi_label else names[0], frames=frames)))
    return unrepeated(located)


def _name(label: int, class_names: Sequence[str] | None, where: str) -> str:
    if class_names is None:
        return str(label)
    if label >= len(class_names):
        raise UserError(f"{where}: label {label} has no name; the label map ends at {len(class_names) - 1}")
    return class_names[label]
