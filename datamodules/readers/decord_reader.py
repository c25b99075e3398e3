"""decord behind the common interface, for the files that it reads exactly."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.exactness import why_not_decord_here
from datamodules.readers.index import VideoIndex
from datamodules.readers.pyav_reader import PyAVReader
from temporal_attn.types import VideoError

__all__ = ["DecordReader"]

logger = logging.getLogger(__name__)


class DecordReader(BaseReader):
    """Reads with decord 0.6, after comparing its index with ours.

    Args:
        path: The file.
        index: What decord must agree with.
        short_side: Pixels of the short side of the frames returned; None for the size in the file.

    A frame on which decord fails after all is read by `PyAVReader`, and so is everything from there on; `engine` and
    `note` say so.

    Raises:
        VideoError: decord cannot open the file, or disagrees with the index about the frames.
    """

    engine = "decord"

    def __init__(self, path: str, index: VideoIndex, short_side: int | None = None) -> None:
        import decord

        height, width = size = scaled_size(*index.size, short_side)
        reason = why_not_decord_here(index, width)
        if reason:
            raise VideoError(path, reason)
        try:
            self._video: Any = decord.VideoReader(path, width=width, height=height, num_threads=1)
            times = self._video.get_frame_timestamp(range(len(self._video)))[:, 0]
        except Exception as error:  # decord raises RuntimeError, its own DECORDError, and more
            raise VideoError(path, f"decord cannot open it ({_one_line(error)})") from error
        if len(times) != len(index):
            raise VideoError(path, f"decord counts {len(times)} frames, {len(index)} decode")
        if not np.allclose(times - times[0], index.pts - index.pts[0], atol=1e-3):
            raise VideoError(path, "decord has other times of presentation")
        self._index = index
        self._successor: PyAVReader | None = None
        super().__init__(path, index.pts, index.fps, size)

    def close(self) -> None:
        """Give memory and file back."""
        self._video = None
        if self._successor is not None:
            self._successor.close()

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        if self._successor is None:
            try:
                batch = self._video.get_batch(wanted)
                self._video.seek(0)  # otherwise decord goes on to decode ahead, and keeps all of it
                return np.asarray(batch.asnumpy() if hasattr(batch, "asnumpy") else batch)  # tensors if a bridge is set
            except Exception as error:
                self._hand_over(f"decord fails on a frame ({_one_line(error)})")
        return self._delegate(wanted)

    def _hand_over(self, reason: str) -> None:
        """Let the indexed reader do the rest: decord stops at damage for good."""
        self._video = None
        self._successor = PyAVReader(self.path, min(self.size), stream=self._index.stream)
        self.engine, self.note = self._successor.engine, f"{reason}, so it is read by pyav"
        logger.warning("%s: %s", self.path, self.note)

    def _delegate(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        assert self._successor is not None
        try:
            return self._successor.get_batch(wanted)
        finally:
            self.pts = self._successor.pts  # shorter once the successor has met the damage


def _one_line(error: Exception) -> str:
    """What decord means, without the time, source file and stack that it prints around it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition("Check failed: ")[2].rpartition("] ")[2].strip()
