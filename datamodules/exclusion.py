"""Videos to leave out: a text file that ``temporal-attn doctor --quarantine`` writes and datamodules read.

One video a line: its path, and after a tab why it is left out. A relative path starts at the folder of the file; lines
that begin with ``#`` are comments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from datamodules.records import RecordTable
from temporal_attn.types import UserError

__all__ = ["Exclusions", "read_exclusions", "write_exclusions"]


class Exclusions(dict[str, str]):
    """Absolute path → why."""

    def filter(self, records: RecordTable) -> RecordTable:
        """The records whose files are not among them."""
        return records.take(row for row, path in enumerate(records.paths) if os.path.abspath(path) not in self)


def read_exclusions(path: str | Path) -> Exclusions:
    """Read such a file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        lines = Path(path).read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"exclude: {path}: {error.strerror}; `temporal-attn doctor --quarantine` writes one") from None
    folder = os.path.dirname(os.path.abspath(path))
    named = (line.partition("\t") for line in lines if line.strip() and not line.startswith("#"))
    return Exclusions({os.path.normpath(os.path.join(folder, name)): reason for name, _, reason in named})


def write_exclusions(path: str | Path, reasons: Mapping[str, str]) -> None:
    """Write such a file.

    Args:
        path: The file.
        reasons: Why each video is left out, by its path.

    Raises:
        UserError: It cannot be written.
    """
    head = "# Videos to leave out: loader.exclude. A path, and after a tab the reason.\n"
    lines = (f"{os.path.abspath(name)}\t{' '.join(reason.split())}\n" for name, reason in sorted(reasons.items()))
    try:
        Path(path).write_bytes((head + "".join(lines)).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UserError(f"quarantine: {path}: cannot be written ({error.strerror}); choose another file") from None
