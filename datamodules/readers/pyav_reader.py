"""Indexed reader: knows every packet, starts at the key frame before each wanted frame, converts wanted frames only."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.source import PacketSource, display_order
from temporal_attn.types import VideoError

if TYPE_CHECKING:
    import av

__all__ = ["PyAVReader"]

logger = logging.getLogger(__name__)


class PyAVReader(BaseReader):
    """Reads what a sequential decode would give, without decoding what need not be decoded.

    Where the container cannot say in which order frames are shown, or is cut off, one sequential decode at opening
    finds out. Where a frame that the index promises does not decode, the same decode corrects `len` and `pts`, with a
    warning.

    Args:
        source: The file, opened and not yet scanned; the reader closes it.
        short_side: Pixels of the short side of the frames returned, by bilinear scaling up or down; None for the size
            in the file.

    Attributes:
        is_counted: Whether the frames had to be decoded to be counted.
        has_open_gops: Whether frames are shown before a key frame that are coded after it.
        bits: Bits a colour in the file.

    Raises:
        VideoError: The file cannot be read, or no frame of it decodes.
    """

    engine = "pyav"

    def __init__(self, source: PacketSource, short_side: int | None = None) -> None:
        from av.video.reformatter import VideoReformatter

        self.path = source.path
        self.source = source
        self._reformatter = VideoReformatter()
        self._run: Iterator[tuple[int, av.VideoFrame | None]] | None = None
        self._shown: tuple[int, av.VideoFrame | None] = (-1, None)
        try:
            source.scan()
            order = None if source.is_damaged else display_order(source.packets, source.stream)
            self.is_counted = order is None
            self._index(self._decoded_order() if order is None else order)
            first = self._first_frame()
        except BaseException:
            self.close()
            raise
        self._quarter_turns = round(first.rotation / 90) % 4
        upright = (first.height, first.width) if self._quarter_turns % 2 == 0 else (first.width, first.height)
        self.bits = max(component.bits for component in first.format.components)
        super().__init__(source.path, source.times(self._order), source.fps, scaled_size(*upright, short_side))

    def close(self) -> None:
        """Close the file and forget its packets."""
        self._run, self._shown = None, (-1, None)
        self.source.close()

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        frames = np.empty((len(wanted), *self.size, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, rank in enumerate(wanted):
            places.setdefault(rank, []).append(place)
        for rank in sorted(places):
            frame = self._frame_at(rank)
            if frame is None:
                self._recount(wanted)
                return self._read(wanted)
            frames[places[rank]] = self._convert(frame)
        return frames

    def _convert(self, frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
        """(height, width, 3) upright RGB."""
        height, width = self.size if self._quarter_turns % 2 == 0 else self.size[::-1]
        scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1)
        return np.rot90(scaled.to_ndarray(), self._quarter_turns)

    def _frame_at(self, rank: int) -> av.VideoFrame | None:
        """Frame by display index, None where it does not come out of the decoder."""
        start = self._starts[bisect_right(self._starts, rank) - 1]
        if self._run is None or not start <= self._shown[0] + 1 <= rank + 1:  # else what runs is on the shortest way
            self._run_from(start)
        frame = self._run_to(rank)
        if frame is None and start > 0:  # a key frame that is none
            self._run_from(0)
            frame = self._run_to(rank)
        return frame

    def _run_from(self, start: int) -> None:
        """Let the decoder start anew at the key frame with this display index."""
        self._run, self._shown = self._ranked_frames(start), (start - 1, None)

    def _run_to(self, rank: int) -> av.VideoFrame | None:
        """Let the decoder go on to a frame; None where this frame or one on the way to it is missing."""
        assert self._run is not None
        while self._shown[0] < rank:
            following = next(self._run, (len(self._order), None))
            if following[0] != self._shown[0] + 1:
                self._run = None
                return None
            self._shown = following
        return self._shown[1]

    def _first_frame(self) -> av.VideoFrame:
        frame = self._frame_at(0)
        if frame is None and not self.is_counted:
            self._recount([0])
            frame = self._frame_at(0)
        if frame is None:
            raise VideoError(self.path, "no frame decodes: the video is damaged, or its codec is not supported")
        return frame

    def _index(self, order: list[int]) -> None:
        """Set the frames by the numbers of their packets, in display order."""
        self._order = order
        self._rank = {number: rank for rank, number in enumerate(order)}
        if len(self._rank) < len(order):  # packets of several frames: they can only be counted from the start
            self._starts, self.has_open_gops = [0], False
            return
        first_coded = np.minimum.accumulate(order[::-1])[::-1]  # over the frames shown from here on
        packets = self.source.packets
        last_coded = np.maximum.accumulate(order)  # over the frames shown up to here
        self.has_open_gops = any(packets[n].is_key and last_coded[r] > n for r, n in enumerate(order))
        self._starts = [0] + [r for r, n in enumerate(order) if r and packets[n].is_key and first_coded[r] == n]

    def _ranked_frames(self, start: int) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """Display index and frame from a key frame on; (frames, None) at one that the index does not know."""
        frames = self._decode(self._order[start] if start else 0)
        if len(self._rank) < len(self._order):
            yield from enumerate(frames)
            return
        for frame in frames:
            rank = self._rank.get(-1 if frame.pts is None else frame.pts)
            if rank is None:
                yield len(self._order), None
            elif rank >= start:  # what is shown before a key frame lacks its reference when decoding starts there
                yield rank, frame

    def _decode(self, number: int) -> Iterator[av.VideoFrame]:
        """Decode from a packet on; the time stamp of each frame is its packet's number."""
        import av.error

        context = self.source.stream.codec_context
        context.flush_buffers()
        for packet in self.source.packets_from(number):
            try:
                yield from context.decode(packet)
            except av.error.FFmpegError:  # a damaged packet: what FFmpeg's own programs do is go on with the next
                continue
        try:
            yield from context.decode(None)
        except av.error.FFmpegError:
            return

    def _decoded_order(self) -> list[int]:
        order = [-1 if frame.pts is None else frame.pts for frame in self._decode(0)]
        if not order:
            raise VideoError(self.path, "no frame decodes: the video is damaged, or its codec is not supported")
        return order

    def _recount(self, wanted: Sequence[int]) -> None:
        """Replace an index that promised too much by what decodes, once."""
        promised = len(self._order)
        if not self.is_counted:
            self.is_counted = True
            self._index(self._decoded_order())
            self._run = None
            self.pts = self.source.times(self._order)
            logger.warning("%s: damaged: %d of %d frames decode", self.path, len(self._order), promised)
            if max(wanted) < len(self._order):
                return
        raise VideoError(self.path, f"damaged: {len(self._order)} of {promised} frames decode, not frame {max(wanted)}")
