"""Lists and file names of UCF101."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from datamodules.files import stem_of
from datamodules.records.catalogue import Entry
from datamodules.records.lists import read_lines, relative_name, unrepeated
from temporal_attn.types import UserError

__all__ = ["parse_ucf101_name", "read_class_index", "read_ucf101_list"]

_NAME = re.compile(r"v_(?P<class_name>.+)_g(?P<group>\d+)_c\d+$")


def parse_ucf101_name(stem: str) -> tuple[str, int]:
    """Class and number of the group in a UCF101 file name.

    Args:
        stem: E.g. ``v_Archery_g08_c01``.

    Returns:
        E.g. ``("Archery", 8)``.

    Raises:
        ValueError: The name has another form.
    """
    match = _NAME.match(stem)
    if match is None:
        raise ValueError(f"{stem!r} is no UCF101 name like v_Archery_g08_c01")
    return match["class_name"], int(match["group"])


def read_class_index(path: Path) -> tuple[str, ...]:
    """Class names of UCF101's ``classInd.txt``, in label order.

    Args:
        path: Lines ``<number> <name>``, numbers from 1.

    Raises:
        UserError: The file is missing, a line has another form, or the numbers are not 1, 2, 3, …
    """
    names: list[str] = []
    for where, line in read_lines(path, "'<number> <class>'"):
        match = re.fullmatch(r"(\d+)\s+(\S+)", line)
        if match is None or int(match[1]) != len(names) + 1:
            raise UserError(f"{where}: expected '{len(names) + 1} <class>', found {line!r}")
        names.append(match[2])
    return tuple(names)


def read_ucf101_list(
    path: Path, class_names: Sequence[str], allow_outside: bool = False, root: str | Path | None = None
) -> list[Entry]:
    """Videos of ``trainlist01.txt``, ``testlist01.txt`` and so on.

    Groups are numbered within their class, so that a group's name carries its class.

    Args:
        path: Lines ``<class>/<video>.avi``, in train lists followed by the class number from 1.
        class_names: From `read_class_index`.
        allow_outside: Whether lines may lead out of the videos' folder; the last two parts are class and video.
        root: The videos' folder, below which absolute paths are understood.

    Raises:
        UserError: The file is missing; or a line has another form, points outside the root, names an unknown class,
            carries a number that is out of range or another class's, or appears twice.
    """
    form = "'<class>/v_<class>_gNN_cNN.avi', label optional"
    known = {name.casefold(): label for label, name in enumerate(class_names, start=1)}
    entries = []
    for where, line in read_lines(path, form):
        match = re.fullmatch(r"(\S+)(?:\s+(\d+))?", line)
        name = PurePosixPath(relative_name(match[1], where, allow_outside, root)) if match else PurePosixPath()
        video = _NAME.match(stem_of(name.name))
        if match is None or video is None or len(name.parts) < 2:
            raise UserError(f"{where}: expected {form}, found {line!r}")
        label = known.get(name.parent.name.casefold())
        if label is None:
            raise UserError(f"{where}: class {name.parent.name!r} is not in the class index")
        if match[2] is not None and not 1 <= int(match[2]) <= len(class_names):
            raise UserError(f"{where}: label {match[2]} is outside 1 … {len(class_names)}")
        if match[2] is not None and int(match[2]) != label:
            raise UserError(f"{where}: label {match[2]} is {class_names[int(match[2]) - 1]}, not the folder's class")
        group = f"{name.parent.name}_g{int(video['group']):02d}"
        entries.append((where, Entry(name.as_posix(), class_names[label - 1], group)))
    return unrepeated(entries)
