"""Reading annotation files: lines, columns and JSON in whatever encoding, line ends and order people save them.

Whatever is wrong is reported with file and line, and with what was expected there.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.files import leaves_root
from datamodules.records.catalogue import Entry
from temporal_attn.types import UserError

__all__ = ["only_file", "read_columns", "read_json", "read_lines", "relative_name", "seconds", "unrepeated"]


def only_file(folder: Path, ending: str) -> Path:
    """The annotation file whose name ends in a certain way, whatever the version in front of it.

    Args:
        folder: Where the annotation files lie.
        ending: E.g. ``train.json``; letter case does not count.

    Raises:
        UserError: The folder is missing, or there is no such file, or more than one.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; give the folder that holds the annotation files") from None
    matching = [name for name in names if name.casefold().endswith(ending.casefold())]
    if len(matching) != 1:
        found = ", ".join(matching or names[:12]) or "nothing"
        raise UserError(f"{folder}: expected one file that ends in {ending}, found {found}")
    return folder / matching[0]


def read_lines(path: Path, expected: str) -> list[tuple[str, str]]:
    """Lines of a text file that are not blank.

    Args:
        path: UTF-8, any line ending, with or without a byte-order mark.
        expected: What a line looks like.

    Returns:
        Where each line stands, ``<path>, line <number>``, and the line without spaces around it.

    Raises:
        UserError: The file is missing, empty or no text.
    """
    numbered = enumerate(_read_text(path).split("\n"), start=1)  # names may hold what else Python counts as line ends
    lines = [(f"{path}, line {number}", line.strip()) for number, line in numbered if line.strip()]
    if not lines:
        raise UserError(f"{path}: empty; expected lines {expected}")
    return lines


def read_columns(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), delimiter: str = ","
) -> list[tuple[str, Mapping[str, str]]]:
    """Rows of a file of separated values, with or without quotes.

    Args:
        path: The first row names the columns.
        columns: Columns that have to be there.
        optional: Columns that may be.
        delimiter: What stands between two values.

    Returns:
        Where each row stands, ``<path>, line <number>``, and its values by column, without spaces around them. Only
        columns that were asked for and are there.

    Raises:
        UserError: The file is missing or empty, a column is missing, or a row has another number of values.
    """
    rows = [(number, row) for number, row in _separated(path, delimiter) if any(row)]
    expected = ", ".join(columns)
    if not rows:
        raise UserError(f"{path}: empty; expected columns {expected}")
    (_, header), *body = rows
    absent = [name for name in columns if name not in header]
    if absent:
        raise UserError(f"{path}: no column {', '.join(absent)}; expected {expected}; found {', '.join(header[:12])}")
    places = {name: header.index(name) for name in (*columns, *optional) if name in header}
    located: list[tuple[str, Mapping[str, str]]] = []
    for number, row in body:
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: expected {len(header)} values, found {len(row)}")
        located.append((f"{path}, line {number}", {name: row[place] for name, place in places.items()}))
    return located


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Content of a JSON file.

    Raises:
        UserError: The file is missing or no JSON.
    """
    text = _read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from None


def relative_name(name: str, where: str, allow_outside: bool = False, root: str | Path | None = None) -> str:
    """A listed path with ``/`` between its folders.

    Args:
        name: As listed. An absolute path below the root becomes relative.
        where: File and line, for the message.
        allow_outside: Whether it may lead out of the videos' folder.
        root: The videos' folder; None where only relative paths make sense.

    Raises:
        UserError: It does, but may not.
    """
    name = name.replace("\\", "/")
    if root is not None and os.path.isabs(name):
        name = _below(name, root)
    if leaves_root(name) and not allow_outside:
        raise UserError(
            f"{where}: {name!r} points outside the videos' folder; list paths below it, or set allow_outside: true"
        )
    return name if leaves_root(name) else name.removeprefix("./")


def _below(name: str, root: str | Path) -> str:
    """An absolute path as one below the root, by whatever links folders and root are named; else as it is."""
    folder, file = os.path.split(os.path.normpath(name))
    ways = ((Path(folder), os.path.abspath(root)), (Path(os.path.realpath(folder)), os.path.realpath(root)))
    inside = ((way.relative_to(top) / file).as_posix() for way, top in ways if way.is_relative_to(top))
    return next(inside, name)


def seconds(text: str, where: str) -> float | None:
    """A time in seconds, None for an empty cell.

    Raises:
        UserError: It is no such number, or negative.
    """
    if not text:
        return None
    try:
        time = float(text)
    except ValueError:
        time = math.nan
    if not 0 <= time < math.inf:
        raise UserError(f"{where}: {text!r} is no time; expected seconds such as 12.5")
    return time


def unrepeated(located: Iterable[tuple[str, Entry]]) -> list[Entry]:
    """Entries of one list.

    Args:
        located: Where each stands, and the entry.

    Raises:
        UserError: One appears twice, or two differ in their suffix only.
    """
    first: dict[str, tuple[str, str]] = {}
    entries = []
    for where, entry in located:
        # in two cases it may be two files; `locate` knows
        known, name = first.setdefault(entry.id, (where, entry.name))
        if known != where and name != entry.name:
            raise UserError(
                f"{where}: {entry.name} differs from {name} ({known}) in its suffix only, which lists need not have "
                "right; delete one of the lines, or rename one of two files"
            )
        if known != where:
            raise UserError(f"{where}: {entry.name} is listed twice, first in {known}; delete one of the lines")
        entries.append(entry)
    return entries


def _separated(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of its last line, and the values of each row."""
    reader = csv.reader(io.StringIO(_read_text(path)), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            if any("\n" in value or "\r" in value for value in row):
                raise UserError(f"{path}, line {reader.line_num}: a value runs over several lines; close its quotes")
            yield reader.line_num, [value.strip() for value in row]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the folder or file that holds the lists") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
