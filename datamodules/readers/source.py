"""The coded side of a video: its packets, in the order of decoding, and the order in which their frames are shown.

One pass over the file reads every packet without decoding any. A packet is known by its position in that pass, its
number; frames are matched to packets by this number (it travels through the decoder in the place of the time stamp),
never by time stamps, which AVI does not have and damaged files have wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from temporal_attn.types import VideoError

if TYPE_CHECKING:
    import av
    import av.container

__all__ = ["CodedPacket", "PacketSource", "display_order", "is_avi", "mpeg4_display_order", "open_video"]

_KEEP_BYTES = 32 << 20
"""Coded video up to this size stays in memory, so that nothing is read twice."""

_VOP = re.compile(rb"\x00\x00\x01\xb6(.)", re.DOTALL)
_LONGEST_PLACEHOLDER = 19
"""Bytes up to which FFmpeg takes an MPEG-4 picture for the placeholder of a packed B-frame (MAX_NVOP_SIZE)."""


class CodedPacket(NamedTuple):
    """What the index remembers of a packet.

    Args:
        pts: Time stamp of presentation in ticks of the stream, None where the container has none.
        dts: Time stamp of decoding; in AVI the number of the frame's slot.
        size: Bytes; 0 stands for a dropped frame.
        position: Byte offset in the file, None where unknown.
        is_key: Whether decoding can start here.
        is_hidden: Whether an edit list says that the frame is decoded but not shown.
        is_cut: Whether the file ends or breaks inside it.
        pictures: Types (I, P, B, S) of the pictures inside, for MPEG-4 in AVI only.
    """

    pts: int | None
    dts: int | None
    size: int
    position: int | None
    is_key: bool
    is_hidden: bool
    is_cut: bool
    pictures: str = ""


class PacketSource:
    """An open video file and, after `scan`, the index of its packets.

    Args:
        path: The file.

    Attributes:
        container: The file.
        stream: Its video stream.
        packets: Every packet in decoding order.
        is_damaged: Whether the file ends inside a packet or cannot be read to its end.

    Raises:
        VideoError: The file cannot be opened or has no pictures.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.container, self.stream = open_video(path)
        self.packets: list[CodedPacket] = []
        self.is_damaged = False
        self._kept: list[av.Packet[av.VideoStream]] | None = []
        self._numbers: dict[tuple[int | None, int], int] = {}

    def packets_from(self, number: int) -> Iterator[av.Packet[av.VideoStream]]:
        """Packets from one on to the end in decoding order, each with its number as time stamp; no dropped frames."""
        if self._kept is not None:
            yield from (packet for packet in self._kept[number:] if packet.size)
            return
        for found, packet in self._read_from(number):
            if found >= number and packet.size:
                packet.pts = found
                yield packet

    @property
    def fps(self) -> float:
        """Frames per second as the header has it, 0 where it does not say."""
        return float(self.stream.average_rate or self.stream.guessed_rate or 0)

    def times(self, order: Sequence[int]) -> npt.NDArray[np.float64]:
        """Seconds at which frames are shown.

        Args:
            order: Numbers of their packets in display order.

        Returns:
            (len(order),) ascending: from the times of presentation; in AVI from the slots that the packets fill; where
            the stream has neither, from the frame rate.
        """
        tick = float(self.stream.time_base or 0)
        stamps = [None if is_avi(self.stream) else self.packets[number].pts for number in order]
        if None in stamps or len(set(stamps)) < len(stamps):
            stamps = [self.packets[number].dts for number in order]
        if None in stamps or len(set(stamps)) < len(stamps):
            return np.arange(len(order)) / (self.fps or 1.0)
        return np.sort(np.array(stamps, np.float64)) * tick

    def close(self) -> None:
        """Close the file and forget its packets."""
        self._kept = None
        self.container.close()

    def scan(self) -> None:
        """Read every packet once.

        Raises:
            VideoError: There is none.
        """
        import av.error

        wants_pictures = is_avi(self.stream) and self.stream.codec_context.name == "mpeg4"
        kept: list[av.Packet[av.VideoStream]] | None = []
        total = 0
        try:
            for packet in self.container.demux(self.stream):
                if packet.size == 0 and packet.dts is None:
                    continue  # PyAV's mark for the end
                pictures = "".join("IPBS"[code[0] >> 6] for code in _VOP.findall(packet)) if wants_pictures else ""
                flags = (packet.is_keyframe, packet.is_discard, packet.is_corrupt)
                coded = CodedPacket(packet.pts, packet.dts, packet.size, packet.pos, *flags, pictures)
                self.packets.append(coded)
                total += packet.size
                kept = None if kept is None or total > _KEEP_BYTES else kept
                if kept is not None:
                    packet.pts = len(kept)
                    kept.append(packet)
        except av.error.FFmpegError:
            self.is_damaged = True
        if total == 0:
            raise VideoError(self.path, "holds a video stream without a single frame")
        self._kept = kept
        self.is_damaged |= any(packet.is_cut for packet in self.packets)
        numbers = {(packet.position, packet.size): number for number, packet in enumerate(self.packets)}
        if len(numbers) == len(self.packets) and not any(position is None for position, _ in numbers):
            self._numbers = numbers

    def _read_from(self, number: int) -> Iterator[tuple[int, av.Packet[av.VideoStream]]]:
        """Packets of a large file with their numbers, starting at or before the wanted one."""
        start = self.packets[number].dts
        if number and start is not None and self._numbers:
            self.container.seek(start, stream=self.stream)
            demuxed = iter(self.container.demux(self.stream))
            first = next(demuxed, None)
            found = None if first is None else self._numbers.get((first.pos, first.size))
            if first is not None and found is not None and found <= number:
                yield found, first
                yield from enumerate(demuxed, found + 1)
                return
        self.container.close()
        self.container, self.stream = open_video(self.path)
        yield from enumerate(self.container.demux(self.stream))


def open_video(path: str) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file and pick its video stream, without decoding.

    Args:
        path: The file.

    Returns:
        The container, and its best video stream with one decoding thread.

    Raises:
        VideoError: The file is missing, empty, no video, without pictures, or in a codec that is unknown.
    """
    import av
    import av.error

    head = _head(path)
    # An AVI header says all there is to know; probing would decode frames, and cost more than reading the clip.
    quick = {"probesize": "32", "analyzeduration": "1", "fflags": "noparse"} if head.startswith(b"RIFF") else {}
    try:
        container = av.open(path, metadata_errors="replace", options=quick)
    except av.error.FFmpegError as error:
        raise VideoError(path, _reason_for(head, error)) from error
    try:
        pictures = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not pictures:
            kinds = " and ".join(sorted({s.type for s in container.streams})) or "nothing"
            raise VideoError(path, f"no video stream: the file holds {kinds} only")
        best = container.streams.best("video")
        stream = best if best in pictures else pictures[0]
        if stream.codec_context is None:
            raise VideoError(path, "its video codec is unknown to FFmpeg: re-encode the file, for example as H.264")
    except BaseException:
        container.close()
        raise
    stream.codec_context.thread_count = 1
    return container, stream


def is_avi(stream: av.VideoStream) -> bool:
    """Whether a stream comes from AVI, which numbers frames in decoding order and knows no time of presentation."""
    return stream.container.format.name == "avi"


def display_order(packets: Sequence[CodedPacket], stream: av.VideoStream) -> list[int] | None:
    """Numbers of the packets whose frames are shown, in the order in which they are shown.

    Args:
        packets: All packets of the stream.
        stream: Tells container and codec.

    Returns:
        The order, or None where only decoding can tell.
    """
    shown = [number for number, packet in enumerate(packets) if packet.size and not packet.is_hidden]
    if is_avi(stream):
        if stream.codec_context.name == "mpeg4":
            return mpeg4_display_order(packets)
        return None if stream.codec_context.codec.reorder else shown
    times = {number: packets[number].pts for number in shown}
    if stream.codec_context.name == "vp8" or None in times.values() or len(set(times.values())) < len(shown):
        return None  # VP8 hides frames without saying so outside the coded data
    return sorted(shown, key=lambda number: times[number] or 0)


def mpeg4_display_order(packets: Sequence[CodedPacket]) -> list[int] | None:
    """Order of display of MPEG-4 Part 2 pictures in AVI, from their types alone.

    A B-picture is shown at once, an I-, P- or S-picture (a reference) when the next reference comes. "Packed" streams
    of DivX and XviD put a reference and the B-picture behind it into one packet and a placeholder into the next; FFmpeg
    (`mpeg4_unpack_bframes_bsf.c`) moves the B-picture there, and so does this function.

    Args:
        packets: All packets of the stream, with their `pictures`.

    Returns:
        Numbers of packets, or None where types do not suffice: a picture so small that it may be a placeholder of its
        own, or B-pictures without the two references that they need.
    """
    order: list[int] = []
    reference: int | None = None
    references, waiting = 0, ""
    for number, packet in enumerate(packets):
        pictures = packet.pictures
        if not pictures:
            continue
        if len(pictures) > 2 or (len(pictures) == 2 and (waiting or pictures[1] != "B")):
            return None
        kind = pictures[0]
        if len(pictures) == 2:
            waiting = pictures[1]
        elif waiting:
            kind, waiting = waiting, "" if packet.size <= _LONGEST_PLACEHOLDER else kind
        elif packet.size <= _LONGEST_PLACEHOLDER:
            return None
        if kind == "B":
            if references < 2:
                return None
            order.append(number)
            continue
        if reference is not None:
            order.append(reference)
        reference, references = number, references + 1
    return order if reference is None else [*order, reference]


def _head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
    except OSError as error:
        reason = "the file does not exist" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise VideoError(path, reason) from error
    if not head:
        raise VideoError(path, "the file is empty (0 bytes)")
    return head


def _reason_for(head: bytes, error: Exception) -> str:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "an MP4 or MOV whose index (moov) is missing or broken: the file is truncated or was never finished"
    if head.startswith((b"RIFF", b"\x1aE\xdf\xa3")):
        return "the header is broken: the file is truncated or damaged"
    return f"not a video: no known container format ({getattr(error, 'strerror', None) or error})"
