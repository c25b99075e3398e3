"""Tables of videos, in CSV or Parquet, whatever their columns are called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from datamodules.records.catalogue import Entry
from datamodules.records.lists import read_columns, relative_name, seconds, unrepeated
from datamodules.records.parts import part_called
from temporal_attn.types import UserError

__all__ = ["TableColumns", "read_video_table"]


@dataclass(frozen=True)
class TableColumns:
    """Names of a table's columns. All but the first two may be absent under the name that they have here.

    Args:
        path: The file, below the videos' folder.
        label: The class, or several.
        start: First second of a segment, counted from the video's first frame.
        end: Last second of a segment, likewise.
        group: Leakage unit.
        split: ``train``, ``val`` or ``test``.
    """

    path: str = "path"
    label: str = "label"
    start: str = "start"
    end: str = "end"
    group: str = "group"
    split: str = "split"

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that a table has to have: path, label, and those that were given a name of their own."""
        named = [getattr(self, field.name) for field in fields(self) if getattr(self, field.name) != field.default]
        return tuple(dict.fromkeys([self.path, self.label, *named]))


def read_video_table(
    path: Path,
    columns: TableColumns = TableColumns(),
    label_separator: str | None = None,
    delimiter: str = ",",
    allow_outside: bool = False,
    root: str | Path | None = None,
) -> dict[str, list[Entry]]:
    """Videos by ``train``, ``val`` and ``test`` when the table has a column for it, else all under ``all``.

    Args:
        path: A ``.parquet`` file, else text with a first row of column names.
        columns: What the columns are called.
        label_separator: What stands between several labels of a video; None for one label a video. A Parquet column of
            lists is multi-label by itself.
        delimiter: What stands between the values of a text file.
        allow_outside: Whether paths may lead out of the videos' folder.
        root: The videos' folder, below which absolute paths are understood.

    Raises:
        UserError: The file is missing or empty, a column is missing, or a row is malformed, points outside or appears
            twice.
    """
    optional = tuple(getattr(columns, field.name) for field in fields(columns))
    if path.suffix == ".parquet":
        rows = _read_parquet(path, columns.needed, optional)
    else:
        rows = [(where, dict(row)) for where, row in read_columns(path, columns.needed, optional, delimiter)]
    parts: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for where, row in rows:
        name = relative_name(_path(row, where, columns.path), where, allow_outside, root)
        entry = _entry(row, name, where, columns, label_separator)
        parts[_part(row, where, columns.split)].append((where, entry))
    return {part: unrepeated(located) for part, located in parts.items()}


def _path(row: Mapping[str, Any], where: str, column: str) -> str:
    name = _text(row, column)
    if not name:
        raise UserError(f"{where}: no {column}")
    return name


def _entry(row: Mapping[str, Any], name: str, where: str, columns: TableColumns, label_separator: str | None) -> Entry:
    start, end = (seconds(_text(row, column), where) for column in (columns.start, columns.end))
    if start is not None and end is not None and end <= start:
        raise UserError(f"{where}: the segment ends at {end:g} s, but starts at {start:g} s")
    classes = _classes(row[columns.label], label_separator)
    return Entry(name, classes, _text(row, columns.group) or None, start, end)


def _classes(value: Any, separator: str | None) -> str | tuple[str, ...] | None:  # noqa: ANN401 - as a table holds it
    if isinstance(value, list):
        names = [str(name) for name in value]
    elif separator is not None:
        names = [name.strip() for name in str(value or "").split(separator)]
    else:
        return None if value is None or value == "" else str(value)
    return tuple(dict.fromkeys(name for name in names if name))


def _part(row: Mapping[str, Any], where: str, column: str) -> str:
    if column not in row:
        return "all"
    part = part_called(_text(row, column))
    if part is None:
        raise UserError(f"{where}: {column} is {row[column]!r}; it has to be train, val or test")
    return part


def _text(row: Mapping[str, Any], column: str) -> str:
    """A cell without spaces around it; the missing number of a Parquet file, None or NaN, is an empty one."""
    value = row.get(column)
    return "" if value is None or value != value else str(value).strip()


def _read_parquet(path: Path, needed: tuple[str, ...], wanted: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
        absent = [name for name in needed if name not in names]
        if absent:
            raise UserError(
                f"{path}: no column {', '.join(absent)}; expected {', '.join(needed)}; found {', '.join(names[:12])}"
            )
        table = pyarrow.parquet.read_table(path, columns=[name for name in wanted if name in names])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a Parquet file") from None
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: no Parquet file: {error}") from None
    if not table.num_rows:
        raise UserError(f"{path}: empty; expected rows with {', '.join(needed)}")
    return [(f"{path}, row {number}", row) for number, row in enumerate(table.to_pylist(), start=1)]
