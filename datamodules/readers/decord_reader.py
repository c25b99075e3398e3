"""decord behind the common interface, for the files that it reads exactly."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from datamodules.readers.base import BaseReader
from datamodules.readers.pyav_reader import PyAVReader
from datamodules.readers.source import PacketSource, is_avi
from temporal_attn.types import VideoError

__all__ = ["DecordReader", "can_be_exact", "why_inexact"]

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

_CONTAINERS = frozenset({"avi", "mp4", "webm"})  # in FFmpeg's lists of names; on MPEG-TS decord is frames off
_CODECS = frozenset(
    {"h264", "mjpeg", "mpeg4", "vp9", "libvpx-vp9"}
)  # on HEVC with open GOPs decord shows damaged frames
_NARROWEST = 80
"""Pixels of width from which on decord 0.6 never takes a padded RGB line for one with a fourth channel."""


class DecordReader(BaseReader):
    """Reads with decord 0.6, after comparing its index with ours.

    Args:
        index: Open reader of the same file: its index tells what decord must agree with, and the size of the frames.
            It stays open and belongs to the caller.

    A frame on which decord fails after all is read by `PyAVReader`, and so is everything from there on; `engine` and
    `note` say so.

    Raises:
        VideoError: decord cannot open the file, or disagrees with the index about the frames.
    """

    engine = "decord"

    def __init__(self, index: PyAVReader) -> None:
        import decord

        reason = why_inexact(index)
        if reason:
            raise VideoError(index.path, reason)
        height, width = index.size
        try:
            self._video: Any = decord.VideoReader(index.path, width=width, height=height, num_threads=1)
            times = self._video.get_frame_timestamp(range(len(self._video)))[:, 0]
        except Exception as error:  # decord raises RuntimeError, its own DECORDError, and more
            raise VideoError(index.path, f"decord cannot open it ({_one_line(error)})") from error
        if len(times) != len(index):
            raise VideoError(index.path, f"decord counts {len(times)} frames, {len(index)} decode")
        if not np.allclose(times - times[0], index.pts - index.pts[0], atol=1e-3):
            raise VideoError(index.path, "decord has other times of presentation")
        self._successor: PyAVReader | None = None
        super().__init__(index.path, index.pts, index.fps, index.size)

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
        self._successor = PyAVReader(PacketSource(self.path), min(self.size))
        self.engine, self.note = self._successor.engine, f"{reason}, so it is read by pyav"
        logger.warning("%s: %s", self.path, self.note)

    def _delegate(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        assert self._successor is not None
        try:
            return self._successor.get_batch(wanted)
        finally:
            self.pts = self._successor.pts  # shorter once the successor has met the damage


def can_be_exact(stream: av.VideoStream) -> bool:
    """Whether decord 0.6 was found exact on this container and codec."""
    names = set(stream.container.format.name.split(","))
    return bool(names & _CONTAINERS) and stream.codec_context.name in _CODECS


def why_inexact(index: PyAVReader) -> str:
    """Known reason for which decord 0.6 gives other frames than a sequential decode, empty where there is none."""
    packets, stream = index.source.packets, index.source.stream
    if not can_be_exact(stream):
        return f"decord is not exact on {stream.codec_context.name} in {stream.container.format.name}"
    if index.is_counted:
        return "decord cannot count its frames: order or number of them show in decoding only"
    if any(packet.is_hidden for packet in packets):
        return "decord ignores its edit list"
    if index.has_open_gops:
        return "decord shows damaged frames where a key frame follows frames that are shown before it"
    if is_avi(stream) and any(p.size == 0 or p.pictures not in ("", "I", "P", "S") for p in packets):
        return "decord miscounts AVI with B-frames or dropped frames"
    if index.bits > 8:
        return "decord converts more than 8 bits a colour inexactly"
    if index.size[1] < _NARROWEST:
        return f"decord cannot return frames narrower than {_NARROWEST} pixels"
    return ""


def _one_line(error: Exception) -> str:
    """What decord means, without the time, source file and stack that it prints around it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition("Check failed: ")[2].rpartition("] ")[2].strip()
