"""From a video file to its index: what the container says, or what a sequential decode proves.

`index_packets` reads every packet and decodes one frame. `scan_video` decodes all of them from start to end, which is
the truth about the file: how many frames there are, and which; then `proof` holds every shortcut against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from datamodules.readers.index import FileStamp, VideoIndex, square_pixels
from datamodules.readers.order import display_order, is_avi
from datamodules.readers.packets import decode_packets
from datamodules.readers.proof import digest, prove
from datamodules.readers.select import choose_by_index
from datamodules.readers.source import PacketSource, moving_pictures
from temporal_attn.types import VideoError

if TYPE_CHECKING:
    import av

__all__ = ["count_frames", "counted_index", "index_packets", "scan_video"]

_NO_FRAME = "no frame decodes: the video is damaged, or its codec is not supported"


def scan_video(path: str | Path, stream: int | None = None) -> VideoIndex:
    """Decode a file and index what came of it.

    Args:
        path: The file.
        stream: Number of the video stream in the file; None for the best one.

    Returns:
        The index, with `is_decoded`. Its length is the number of frames that a sequential decode gives.

    Raises:
        VideoError: The file cannot be read, or no frame of it decodes.
    """
    source = PacketSource(str(path), stream)
    try:
        source.scan()
        order, digests, first = list[int](), list[int](), None
        for frame in decode_packets(source):
            first = first or frame
            order.append(frame.pts or 0)
            digests.append(digest(frame))
        if first is None:
            raise VideoError(source.path, _NO_FRAME)
        index = replace(_describe(source, first, order), is_decoded=True)
        if not index.frames_share_packets:
            index = prove(index, source, dict[int | None, int](zip(order, digests, strict=True)))
        return _with_engine(index)
    finally:
        source.close()


def count_frames(path: str | Path, stream: int | None = None) -> int:
    """Number of frames that a sequential decode gives, whatever the container says; 0 where none decodes.

    Args:
        path: The file.
        stream: Number of the video stream in the file; None for the best one.

    Raises:
        VideoError: The file cannot be read.
    """
    source = PacketSource(str(path), stream)
    try:
        source.scan()
        return sum(1 for _ in decode_packets(source))
    finally:
        source.close()


def index_packets(source: PacketSource) -> VideoIndex:
    """Index from what the container says of its packets; where that does not suffice, from one sequential decode.

    Args:
        source: The file, after its `scan`.

    Returns:
        The index, not `is_decoded`: no start is proven.

    Raises:
        VideoError: No frame decodes.
    """
    order = None if source.is_damaged else display_order(source.packets, source.stream)
    first = None if order is None else next(decode_packets(source), None)
    if order is None or first is None:
        return counted_index(source)
    return _with_engine(_describe(source, first, order))


def counted_index(source: PacketSource) -> VideoIndex:
    """Index of the frames that a sequential decode gives, where the container is not to be believed.

    Args:
        source: The file, after its `scan`.

    Raises:
        VideoError: No frame decodes.
    """
    order, first = [], None
    for frame in decode_packets(source):
        first = first or frame
        order.append(frame.pts or 0)
    if first is None:
        raise VideoError(source.path, _NO_FRAME)
    return _with_engine(replace(_describe(source, first, order), is_counted=True))


def _with_engine(index: VideoIndex) -> VideoIndex:
    engine, reason = choose_by_index(index)
    return replace(index, engine=engine, reason=reason)


def _describe(source: PacketSource, first: av.VideoFrame, order: Sequence[int]) -> VideoIndex:
    """Index of the frames that come with these packets, without the places of the packets in the file."""
    packets, stream, context = source.packets, source.stream, source.context
    ticks, tick = source.ticks(order)
    starts, has_open_gops = _starts(source, order)
    empty = sum(packet.size == 0 for packet in packets)
    b_frames = any(packet.pictures not in ("", *"IPS") for packet in packets)
    return VideoIndex(
        stamp=FileStamp.of(source.path),
        container=stream.container.format.name,
        stream=stream.index,
        video_streams=len(moving_pictures(source.container)),
        codec=context.name,
        codec_tag=_codec_tag(context),
        extradata=context.extradata or b"",
        pixels=first.format.name,
        bits=max(component.bits for component in first.format.components),
        colours=(int(context.color_range), int(context.colorspace)),
        sample_bits=context.bits_per_coded_sample,
        reorder=context.reorder_depth,
        coded=(first.height, first.width),
        quarter_turns=round(first.rotation / 90) % 4,
        pixel_aspect=square_pixels(stream.sample_aspect_ratio or context.sample_aspect_ratio),
        fps=source.fps,
        tick=tick,
        times=ticks,
        order=np.array(order, np.int64),
        starts=starts,
        positions=np.zeros(0, np.int64),
        sizes=np.array([packet.size for packet in packets], np.int64),
        is_decoded=False,
        can_skip=False,
        is_counted=False,
        is_cut=source.is_damaged,
        claimed=_claimed(source),
        hidden=sum(packet.is_hidden for packet in packets),
        has_open_gops=has_open_gops,
        has_dropped=empty > 0 or b_frames,
    )


def _claimed(source: PacketSource) -> int:
    """Frames to show that the container speaks of: those of its packets, and of packets that are not there."""
    promised = display_order(source.packets, source.stream)
    if promised is None:
        shown = sum(packet.size > 0 and not packet.is_hidden for packet in source.packets)
    else:
        shown = len(promised)
    is_numbered = is_avi(source.stream.container.format.name)
    listed = source.stream.frames - source.skipped_slots if is_numbered else len(source.stream.index_entries)
    return shown + max(0, listed - len(source.packets))


def _starts(source: PacketSource, order: Sequence[int]) -> tuple[npt.NDArray[np.int64], bool]:
    """Display index of each frame from which on all can be decoded without what lies before; whether GOPs are open."""
    if len(set(order)) < len(order):  # packets of several frames: they can only be counted from the beginning
        return np.zeros(1, np.int64), False
    packets = source.packets
    first_coded = np.minimum.accumulate(order[::-1])[::-1]  # over the frames shown from here on
    last_coded = np.maximum.accumulate(order)  # over the frames shown up to here
    keys = [rank for rank, number in enumerate(order) if packets[number].is_key]
    starts = [0, *(rank for rank in keys if rank and first_coded[rank] == order[rank])]
    return np.array(starts, np.int64), any(last_coded[rank] > order[rank] for rank in keys)


def _codec_tag(context: av.VideoCodecContext) -> str:
    try:
        return context.codec_tag
    except UnicodeDecodeError:
        return ""
