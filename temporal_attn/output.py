"""Folders that results go to: found out before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from temporal_attn.types import UserError

__all__ = ["writable_folder"]


def writable_folder(path: str | Path, argument: str) -> Path:
    """A folder for results, made if missing and tried by writing to it.

    Args:
        path: The folder.
        argument: What the user sets to choose another, for the message.

    Raises:
        UserError: It cannot be written.
    """
    folder = Path(path)
    probe = folder / f".writable-{os.getpid()}"  # of this process: several may try the same folder at once
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output folder {folder}: cannot be written ({error.strerror}); choose another with {argument}"
        ) from None
    return folder
