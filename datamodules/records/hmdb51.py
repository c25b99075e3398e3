"""Lists and file names of HMDB51."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from datamodules.files import stem_of
from datamodules.records.catalogue import Entry
from datamodules.records.lists import read_lines, relative_name, unrepeated
from temporal_attn.types import UserError

__all__ = ["parse_hmdb51_name", "read_hmdb51_lists"]

# <source>_<class>_<visible body>_<camera motion>_<number of people>_<camera position>_<quality>_<number>
_PROPERTIES = r"_[fhlu]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+"
_PART = {"1": "train", "2": "test"}  # 0: in neither


def parse_hmdb51_name(stem: str, class_name: str) -> str:
    """Source film of an HMDB51 clip, as far as its name tells.

    All 6,766 official names have this form, and name 1,407 sources. Clips of one source and class are on one side of
    every official split. Of sources that gave clips to several classes, 133 to 149 a fold are on both sides, under
    another class on each. One film under two names is not recognised, and a name as common as ``Handstand`` may stand
    for two films.

    Args:
        stem: E.g. ``Pippi_Michel_cartwheel_f_cm_np2_le_med_6``.
        class_name: E.g. ``cartwheel``.

    Returns:
        E.g. ``Pippi_Michel``.

    Raises:
        ValueError: The name has another form.
    """
    match = re.fullmatch(rf"(.+)_{re.escape(class_name)}{_PROPERTIES}", stem)
    if match is None:
        raise ValueError(f"{stem!r} is no HMDB51 name like Pippi_Michel_{class_name}_f_cm_np2_le_med_6")
    return match[1]


def read_hmdb51_lists(folder: Path, fold: int) -> tuple[tuple[str, ...], Mapping[str, list[Entry]]]:
    """Class names, and the videos of a fold by ``train`` and ``test``.

    Args:
        folder: Holds ``<class>_test_split<fold>.txt`` for each class, with lines ``<video>.avi <0, 1 or 2>``: 1 trains,
            2 tests, 0 is left out.
        fold: 1, 2 or 3.

    Raises:
        UserError: There are no such files, a line has another form or points outside, or a video appears twice.
    """
    ending = f"_test_split{fold}.txt"
    paths = sorted(folder.glob(f"*{ending}"))
    if not paths:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:6]) or "nothing"
        raise UserError(f"{folder}: expected files <class>{ending}, found {found}")
    parts: dict[str, list[Entry]] = {"train": [], "test": []}
    for path in paths:
        class_name = path.name.removesuffix(ending)
        located = []
        for where, line in read_lines(path, "'<video>.avi <0, 1 or 2>'"):
            match = re.fullmatch(r"(.+?)\s+([012])", line)
            if match is None:
                raise UserError(f"{where}: expected '<video>.avi <0, 1 or 2>', found {line!r}")
            name = relative_name(match[1], where)
            try:
                source = parse_hmdb51_name(stem_of(name), class_name)
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
            located.append((where, Entry(f"{class_name}/{name}", class_name, source), match[2]))
        unrepeated((where, entry) for where, entry, _ in located)
        for _, entry, flag in located:
            if flag in _PART:
                parts[_PART[flag]].append(entry)
    return tuple(path.name.removesuffix(ending) for path in paths), parts
