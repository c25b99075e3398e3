"""Files that appear whole or not at all, whatever happens to the process or the machine while they are written."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

__all__ = ["PARTIAL", "remove_abandoned", "sync_folder", "write_atomically"]

PARTIAL = ".partial"
_ABANDONED_SECONDS = 3600.0


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under another name, have it on the disk, then rename it.

    Any number of processes may write the same file: the last whole one stays.

    Raises:
        OSError: It cannot be written; then nothing is left of it.
    """
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk too."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path) -> None:
    """Delete what processes that were killed have left of `write_atomically`, which never takes an hour."""
    for unfinished in folder.glob(f"*{PARTIAL}"):
        try:
            if time.time() - unfinished.stat().st_mtime > _ABANDONED_SECONDS:
                unfinished.unlink()
        except FileNotFoundError:  # somebody else was quicker
            continue
