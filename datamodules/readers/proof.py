"""Which shortcuts give the frames of a sequential decode, bit for bit; tried, not believed.

A shortcut is a point from which decoding starts, a packet that is read without its container, and a frame that the
decoder passes over. Containers call frames key frames that are none, decoders learn an encoder's faults from the first
packet only, and what damage does to a frame depends on what was decoded before it.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from datamodules.readers.index import VideoIndex
from datamodules.readers.packets import Packets, StoredPackets, decode_packets
from datamodules.readers.source import PacketSource

if TYPE_CHECKING:
    import av

__all__ = ["digest", "prove"]

_SEARCH_BYTES = 1 << 16
"""How far behind the place that the container names a packet is looked for: Matroska names that of its cluster."""

_SKIPPING = frozenset({"h264", "mpeg4"})
"""Decoders that pass over a frame on demand if no other frame refers to it."""


def prove(index: VideoIndex, source: PacketSource, digests: dict[int | None, int]) -> VideoIndex:
    """Index with those starts only from which the frames have these digests, read directly if that is the same.

    Args:
        index: Of what a sequential decode gave.
        source: The file, after its `scan`.
        digests: `digest` of each of its frames, by the number of its packet.
    """
    positions = _find_packets(source)
    if len(positions):
        direct = replace(index, positions=positions)
        stored = StoredPackets(source.path, direct)
        try:
            starts = _proven_starts(direct, stored, digests)
            if starts is not None:
                return replace(direct, starts=starts, can_skip=_can_skip(direct, stored, digests))
        finally:
            stored.close()
    starts = _proven_starts(index, source, digests)
    return replace(index, starts=index.starts[:1] if starts is None else starts)


def _proven_starts(index: VideoIndex, packets: Packets, digests: dict[int | None, int]) -> npt.NDArray[np.int64] | None:
    """Starts from which decoding gives the frames that it should, None where not even the first does."""
    starts = index.starts
    for _ in range(2):  # what a false start should have given, the one before it must give
        ends = [*starts[1:].tolist(), len(index)]
        right = [_gives(packets, index, start, end, digests) for start, end in zip(starts.tolist(), ends, strict=True)]
        if not right[0]:
            break
        if all(right):
            return starts
        starts = starts[right]
    return starts[:1] if _gives(packets, index, 0, len(index), digests) else None


def _gives(packets: Packets, index: VideoIndex, start: int, end: int, digests: dict[int | None, int]) -> bool:
    """Whether a decode from one frame on gives all frames up to another as they should be."""
    numbers = index.order[start:end]
    wanted = {number: digests[number] for number in numbers.tolist()}
    first = int(numbers[0]) if start else 0
    for frame in decode_packets(packets, first, int(numbers.max())):
        if frame.pts in wanted and wanted.pop(frame.pts) != digest(frame):
            return False
    return not wanted


def _can_skip(index: VideoIndex, packets: Packets, digests: dict[int | None, int]) -> bool:
    """Whether the decoder passes over frames that no other needs, and all others stay what they are.

    Tried without any such frame, and with every second one: damage, and B-frames packed into other packets, have
    consequences for what follows.
    """
    if index.codec not in _SKIPPING or not (np.diff(index.order) < 0).any():  # no B-frames
        return False
    passed = sorted(set(digests) - {frame.pts for frame in decode_packets(packets, wanted=())}, key=lambda n: n or 0)
    for wanted in (frozenset(passed[::2]), frozenset(passed[1::2]), frozenset[int]()):
        shown = {frame.pts: digest(frame) for frame in decode_packets(packets, wanted=wanted)}
        if not wanted <= set(shown) or any(digests.get(number) != own for number, own in shown.items()):
            return False
    return bool(passed)


def _find_packets(source: PacketSource) -> npt.NDArray[np.int64]:
    """Byte of the file at which the data of each packet lies, empty where some packet's data does not lie there."""
    positions = np.zeros(len(source.packets), np.int64)
    end = 0
    with open(source.path, "rb") as file:
        for packet in source.packets_from(0):
            number, data = packet.pts or 0, bytes(packet)
            position = source.packets[number].position
            if position is None or any(True for _ in packet.iter_sidedata()):
                return positions[:0]
            file.seek(position)
            if file.read(len(data)) != data:
                position = max(position, end)
                file.seek(position)
                behind = file.read(_SEARCH_BYTES + len(data)).find(data)
                if behind < 0:
                    return positions[:0]
                position += behind
            positions[number], end = position, position + len(data)
    return positions


def digest(frame: av.VideoFrame) -> int:
    """Checksum of a frame's pixels and of how they are to be understood."""
    try:
        pixels = frame.to_ndarray()
    except (ValueError, AssertionError):  # a format that has no array of its own, or an odd size
        pixels = frame.to_ndarray(format="rgb24")
    meaning = f"{frame.format.name} {frame.colorspace} {frame.color_range}".encode()
    return zlib.crc32(pixels.tobytes(), zlib.crc32(meaning))
