"""Files of results: tried before the work, there whole or not at all, and of long runs written part by part."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from datamodules.atomic import write_atomically
from temporal_attn.types import UserError

__all__ = ["Results", "check_writable", "write_json"]

_Row = dict[str, Any]


def check_writable(path: str) -> None:
    """Find out before the work begins whether the results can be written.

    Raises:
        UserError: They cannot.
    """
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise UserError(f"json: {path} cannot be written ({error.strerror})") from None


def write_json(path: str, schema: str, **content: Any) -> None:  # noqa: ANN401
    """Write results with their schema first; the file appears whole or not at all.

    Args:
        path: The file.
        schema: Name and version of the format.
        content: What JSON can hold.
    """
    text = json.dumps({"schema": schema, **content}, indent=2) + "\n"
    write_atomically(Path(path), text.encode())


class Results:
    """Rows by part, in memory and, where there is a file, in it after each part.

    Args:
        path: The JSON file; None keeps the rows in memory. What another run with the same settings has left there is
            taken over, anything else is overwritten.
        schema: Name and version of the format.
        settings: What the rows depend on, the machine among it; all that JSON can hold.
    """

    def __init__(self, path: str | None, schema: str, settings: dict[str, Any]) -> None:
        self._path = path
        self._head = {"schema": schema, **settings}
        self._parts: dict[str, list[_Row]] = _stored(path, self._head) if path is not None else {}

    @property
    def rows(self) -> list[_Row]:
        """All rows, in the order in which their parts were measured."""
        return [row for rows in self._parts.values() for row in rows]

    def complete(self, part: str, measure: Callable[[], Iterable[_Row]]) -> None:
        """Measure a part unless it is there.

        Args:
            part: Its name.
            measure: Gives its rows.
        """
        if part in self._parts:
            print(f"{part}: taken over from {self._path}; delete the file to measure it anew", file=sys.stderr)
            return
        self._parts[part] = list(measure())
        self.write()

    def write(self, **more: Any) -> None:  # noqa: ANN401
        """Write all that is there, if there is a file.

        Args:
            more: What is added beside the rows.
        """
        if self._path is not None:
            parts = {name: len(rows) for name, rows in self._parts.items()}
            write_json(self._path, **self._head, **more, parts=parts, rows=self.rows)


def _stored(path: str, head: dict[str, Any]) -> dict[str, list[_Row]]:
    """Rows by part of a file that was begun with the same schema and settings."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if any(found[key] != value for key, value in head.items()):
            return {}
        rows = iter(found["rows"])
        return {part: list(islice(rows, number)) for part, number in found["parts"].items()}
    except (OSError, ValueError, KeyError, TypeError):  # no file, or not one of ours
        return {}
