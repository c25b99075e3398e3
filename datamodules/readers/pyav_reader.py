"""Indexed reader: starts at the key frame before each wanted frame, feeds the decoder no more than that frame needs."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.index import VideoIndex
from datamodules.readers.packets import Packets, StoredPackets, decode
from datamodules.readers.scaling import FrameConverter
from datamodules.readers.scan import counted_index, index_packets
from datamodules.readers.source import PacketSource
from temporal_attn.types import VideoError

if TYPE_CHECKING:
    import av

__all__ = ["PyAVReader"]

logger = logging.getLogger(__name__)


class PyAVReader(BaseReader):
    """Reads what a sequential decode would give, without decoding what need not be decoded.

    With a stored index the packets come straight from the file. Without one, the container's own index is believed for
    as long as it is right: where a frame that it promises does not decode, one sequential decode corrects `len` and
    `pts`, with a warning.

    Args:
        path: The file.
        short_side: Pixels of the short side of the frames returned, by bilinear scaling up or down; None for the size
            in the file.
        index: Of the file as it is now; None to read it from the container.
        stream: Number of the video stream in the file, None for the best one; an index has chosen already.

    Attributes:
        index: What the reader knows of the file.

    Raises:
        VideoError: The file cannot be read, or no frame of it decodes.
    """

    engine = "pyav"

    def __init__(
        self, path: str, short_side: int | None = None, index: VideoIndex | None = None, stream: int | None = None
    ) -> None:
        self._run: _Run | None = None
        if index is not None and index.is_direct:
            self._packets: Packets = StoredPackets(path, index)
        else:
            source = PacketSource(path, stream if index is None else index.stream)
            self._packets = source
            try:
                source.scan()
                index = index or index_packets(source)
            except BaseException:
                source.close()
                raise
        self._follow(index)
        size = scaled_size(*index.size, short_side)
        self._converter = FrameConverter(index.coded, size, index.quarter_turns)
        super().__init__(path, index.pts, index.fps, size)

    def close(self) -> None:
        """Close the file and forget its packets."""
        self._run = None
        self._packets.close()

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        frames = self._converter.empty(len(wanted))
        places: dict[int, list[int]] = {}
        for place, rank in enumerate(wanted):
            places.setdefault(rank, []).append(place)
        missing = set(places)
        for rank, frame in self._frames(sorted(places)):
            first, *others = places[rank]
            self._converter.write(frame, frames[first])
            if others:  # numpy copies the picture even for nobody: an eighth of all the time
                frames[others] = frames[first]
            missing.discard(rank)
        if missing:
            self._recount(max(wanted))
            return self._read(wanted)
        return frames

    def _follow(self, index: VideoIndex) -> None:
        """Take the order of the frames, and where decoding starts, from this index."""
        self.index = index
        self._order: list[int] = index.order.tolist()
        self._starts: list[int] = index.starts.tolist()
        self._rank = {} if index.frames_share_packets else {number: rank for rank, number in enumerate(self._order)}
        self._last_coded: list[int] = list(accumulate(self._order, max))  # over the frames shown up to here

    def _frames(self, ranks: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Display index and frame of ascending display indices; it ends early where one does not decode."""
        for start, group in groupby(ranks, key=lambda rank: self._starts[bisect_right(self._starts, rank) - 1]):
            yield from self._frames_from(start, list(group))

    def _frames_from(self, start: int, ranks: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Those that are decoded from one start.

        As soon as the decoder has the packet of the last wanted frame, it is asked for all that it still holds, and no
        later packet is decoded. That ends its run. Who comes back for what lies behind reads in sequence: for him it
        starts once more, and is kept running from then on.
        """
        run, context = self._run, self._packets.context
        in_sequence = run is not None and run.start == start and run.shown < ranks[0]
        if run is None or not in_sequence or run.is_over:
            context.flush_buffers()
            context.skip_frame = "DEFAULT"
            run = self._run = _Run(start, self._packets.packets_from(self._order[start] if start else 0))
        wanted, last = set(ranks), self._last_needed(ranks)
        skips = self.index.can_skip and not in_sequence
        for packet in run.packets:
            number = packet.pts or 0
            if number > last and not in_sequence:
                break
            if skips:
                context.skip_frame = "DEFAULT" if self._rank.get(number) in wanted else "NONREF"
            for rank, frame in self._ranked(run, decode(context, packet)):
                if rank in wanted:
                    yield rank, frame
            if in_sequence and run.shown >= ranks[-1]:
                return
        run.is_over = True
        for rank, frame in self._ranked(run, decode(context, None)):
            if rank in wanted:
                yield rank, frame
        run.shown = max(run.shown, ranks[-1])

    def _last_needed(self, ranks: list[int]) -> int:
        """Number of the packet with which all wanted frames are in the decoder."""
        if not self._rank:
            return len(self.index.sizes)
        if self.index.is_decoded:
            return max(self._order[rank] for rank in ranks)
        return self._last_coded[ranks[-1]]  # with those shown before them, so that a missing one is noticed

    def _ranked(self, run: _Run, frames: list[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Display index of each frame; from the first on that should not come now, no more of an unproven index."""
        for frame in frames:
            rank = self._rank.get(frame.pts or 0, -1) if self._rank else run.shown + 1
            if rank < run.start:  # lacks its reference: it is shown before the key frame and decoded after it
                continue
            if not self.index.is_decoded and rank != run.shown + 1:
                run.shown = len(self)
                return
            run.shown = rank
            yield rank, frame

    def _recount(self, last: int) -> None:
        """Replace an index that promised too much by what decodes, once.

        Args:
            last: Greatest display index wanted.
        """
        promised = len(self)
        unproven = not self.index.is_decoded and not (self.index.is_counted and len(self._starts) == 1)
        if not unproven or not isinstance(self._packets, PacketSource):
            raise VideoError(self.path, f"damaged: frame {last} or one before it does not decode any more")
        self._run = None
        self._follow(replace(counted_index(self._packets), starts=self.index.starts[:1]))
        self.pts = self.index.pts
        if len(self) < promised:
            logger.warning("%s: damaged: %d of %d frames decode", self.path, len(self), promised)
        if last >= len(self):
            raise VideoError(self.path, f"damaged: {len(self)} of {promised} frames decode, not frame {last}")


class _Run:
    """A decoder on its way from a start.

    Args:
        start: Display index at which it started.
        packets: What it is to be given next.

    Attributes:
        shown: Display index of the last frame that came out.
        is_over: Whether it has given all it held, so that it must start again.
    """

    def __init__(self, start: int, packets: Iterator[av.Packet[av.VideoStream]]) -> None:
        self.start = start
        self.packets = packets
        self.shown = start - 1
        self.is_over = False
