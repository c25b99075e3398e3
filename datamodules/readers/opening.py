"""Open a video with the engine that was asked for, or with the one that reads it exactly."""

from __future__ import annotations

import logging
from pathlib import Path

from datamodules.readers.base import Reader
from datamodules.readers.decord_reader import DecordReader
from datamodules.readers.pyav_reader import PyAVReader
from datamodules.readers.select import check_engine, choose_for
from datamodules.readers.source import PacketSource
from temporal_attn.types import UserError, VideoError

__all__ = ["open_reader"]

logger = logging.getLogger(__name__)
_logged: set[str] = set()


def open_reader(path: str | Path, engine: str = "auto", short_side: int | None = None) -> Reader:
    """Open a video for reading frames by index.

    Args:
        path: The file.
        engine: ``auto`` (see `choose_engine`), ``decord`` or ``pyav``. A file that decord does not read exactly is read
            by ``pyav`` all the same; the reader's `note` says why, and so does the log.
        short_side: Pixels of the short side of the frames returned, aspect ratio kept; None for the size in the file.

    Returns:
        The reader: open it in the process that reads, and close it or use it as a context manager.

    Raises:
        VideoError: The file cannot be read, or no frame of it decodes.
        UserError: Unknown engine, decord wanted where it is not installed, or a short side that is not positive.
    """
    check_engine(engine)
    if short_side is not None and short_side < 1:
        raise UserError(f"short_side: {short_side} pixels; give a positive number, or none for the size in the file")
    source = PacketSource(str(path))
    wanted = choose_for(source.stream).engine if engine == "auto" else engine
    indexed = PyAVReader(source, short_side)
    if wanted == "pyav":
        return indexed
    try:
        reader = DecordReader(indexed)
    except VideoError as error:
        indexed.note = f"{error.reason}, so it is read by pyav"
        _log_once(error.reason, logging.INFO if engine == "auto" else logging.WARNING, indexed)
        return indexed
    except BaseException:
        indexed.close()
        raise
    indexed.close()
    return reader


def _log_once(reason: str, level: int, reader: Reader) -> None:
    """One line for the first file of each kind: a data set may have thousands, and every epoch opens them again."""
    if reason not in _logged:
        _logged.add(reason)
        logger.log(level, "%s: %s; other such files are not named", reader.path, reader.note)
