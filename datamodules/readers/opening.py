"""Open a video with the engine that was asked for, or with the one that reads it exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from datamodules.readers.array_reader import ArrayReader
from datamodules.readers.base import Reader
from datamodules.readers.decord_reader import DecordReader
from datamodules.readers.frame_folder import FrameFolderReader
from datamodules.readers.index import VideoIndex
from datamodules.readers.pyav_reader import PyAVReader
from datamodules.readers.select import FRAMES_PER_SECOND, check_engine, has_decord, what_is_no_video
from datamodules.readers.torchcodec_reader import TorchCodecReader
from temporal_attn.types import UserError, VideoError

__all__ = ["open_reader"]

logger = logging.getLogger(__name__)
_logged: set[str] = set()

_FOREIGN: dict[str, Callable[[str, VideoIndex, int | None], Reader]] = {
    "decord": DecordReader,
    "torchcodec": TorchCodecReader,
}
"""Engines that are held against the index before they read."""


def open_reader(
    path: str | Path,
    engine: str = "auto",
    short_side: int | None = None,
    index: VideoIndex | None = None,
    stream: int | None = None,
    fps: float | None = None,
) -> Reader:
    """Open a video for reading frames by index.

    Args:
        path: A video file, a folder of JPEG or PNG frames, or an ``.npy`` file of (T, H, W, 3) uint8.
        engine: For video files: ``auto`` (see `choose_engine`), ``decord``, ``pyav`` or ``torchcodec``. A file that the
            wanted engine does not read exactly is read by ``pyav`` all the same; the reader's `note` says why, and so
            does the log.
        short_side: Pixels of the short side of the frames returned, aspect ratio kept; None for the size in the file.
        index: What `scan_video` found in this file, which spares all search at opening. An index of another state of
            the file (size and time of modification tell) is not used: the file is searched as if there were none, and
            the log says so.
        stream: Number of the video stream in the file; None for the best one, or the one that was indexed.
        fps: Frames per second of a folder or an array, None for 25; video files know theirs.

    Returns:
        The reader: open it in the process that reads, and close it or use it as a context manager. Frames are upright,
        and their pixels are square.

    Raises:
        VideoError: The file cannot be read, or no frame of it decodes.
        UserError: Unknown engine or stream, an engine that is not installed, or a short side that is not positive.
    """
    check_engine(engine)
    if short_side is not None and short_side < 1:
        raise UserError(f"short_side: {short_side} pixels; give a positive number, or none for the size in the file")
    file = str(path)
    kind = what_is_no_video(file)
    if kind == "frames":
        return FrameFolderReader(file, short_side, FRAMES_PER_SECOND if fps is None else fps)
    if kind == "array":
        return ArrayReader(file, short_side, FRAMES_PER_SECOND if fps is None else fps)
    if fps is not None:
        raise UserError(f"fps: {file} is a video file and knows its frame rate; leave fps out")
    if index is not None and not index.fits(file):
        logger.warning("%s: has changed since it was indexed, and is searched again: renew the index", file)
        index = None
    if index is not None and stream not in (None, index.stream):
        raise UserError(f"stream: {file} was indexed for stream {index.stream}, not {stream}: scan it for that one")
    return _open_video(file, engine, short_side, index, stream)


def _open_video(path: str, engine: str, short_side: int | None, index: VideoIndex | None, stream: int | None) -> Reader:
    indexed = None
    if index is None:
        indexed = PyAVReader(path, short_side, stream=stream)
        index = indexed.index
    wanted = index.engine if engine == "auto" else engine
    if engine == "auto" and wanted == "decord" and not has_decord():
        wanted = "pyav"
    note = ""
    if wanted in _FOREIGN:
        try:
            reader = _FOREIGN[wanted](path, index, short_side)
        except VideoError as error:
            note = f"{error.reason}, so it is read by pyav"
            _log_once(path, error.reason, logging.INFO if engine == "auto" else logging.WARNING)
        except BaseException:
            _close(indexed)
            raise
        else:
            _close(indexed)
            return reader
    indexed = indexed or PyAVReader(path, short_side, index)
    indexed.note = note
    return indexed


def _close(reader: Reader | None) -> None:
    if reader is not None:
        reader.close()


def _log_once(path: str, reason: str, level: int) -> None:
    """One line for the first file of each kind: a data set may have thousands, and every epoch opens them again."""
    if reason not in _logged:
        _logged.add(reason)
        logger.log(level, "%s: %s, so it is read by pyav; other such files are not named", path, reason)
