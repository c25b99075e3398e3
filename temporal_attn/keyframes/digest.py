"""Which file it was: the digest of a checkpoint, so that a result names its model for good."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

__all__ = ["file_digest"]


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal, empty when there is none; an unchanged file is read once."""
    try:
        stat = os.stat(path)
    except OSError:
        return ""
    return _digest(os.fspath(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()
