"""The coded side of a video: its packets, in the order of decoding.

One pass over the file reads every packet without decoding any. A packet is known by its position in that pass, its
number; frames are matched to packets by this number (it travels through the decoder in the place of the time stamp),
never by time stamps, which AVI does not have and damaged files have wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from datamodules.heartbeat import beat
from datamodules.readers.order import CodedPacket, is_avi
from temporal_attn.types import UnavailableVideo, UserError, VideoError

if TYPE_CHECKING:
    import av
    import av.container

__all__ = ["PacketSource", "moving_pictures", "open_video"]

_KEEP_BYTES = 32 << 20
"""Coded video up to this size stays in memory, so that nothing is read twice."""

_VOP = re.compile(rb"\x00\x00\x01\xb6(.)", re.DOTALL)


class PacketSource:
    """An open video file and, after `scan`, the index of its packets.

    Args:
        path: The file.
        stream: Number of the video stream in the file; None for the best one.

    Attributes:
        container: The file.
        stream: Its video stream.
        packets: Every packet in decoding order.
        is_damaged: Whether the file ends inside a packet or cannot be read to its end.

    Raises:
        VideoError: The file cannot be opened or has no pictures.
    """

    def __init__(self, path: str, stream: int | None = None) -> None:
        self.path = path
        self.container, self.stream = open_video(path, stream)
        self.packets: list[CodedPacket] = []
        self.is_damaged = False
        self._kept: list[av.Packet[av.VideoStream]] | None = []
        self._numbers: dict[tuple[int | None, int], int] = {}

    @property
    def context(self) -> av.VideoCodecContext:
        """Decoder of the stream."""
        return self.stream.codec_context

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

    @property
    def skipped_slots(self) -> int:
        """Slots of an AVI that no packet fills."""
        last = self.packets[-1].dts
        return 0 if last is None or not is_avi(self.container.format.name) else last + 1 - len(self.packets)

    def ticks(self, order: Sequence[int]) -> tuple[npt.NDArray[np.int64], Fraction]:
        """When frames are shown.

        Args:
            order: Numbers of their packets in display order.

        Returns:
            (len(order),) ticks, ascending, and the seconds of a tick: from the times of presentation; in AVI from the
            slots that the packets fill; where the stream has neither, from the frame rate.
        """
        stamps = [None if is_avi(self.container.format.name) else self.packets[number].pts for number in order]
        if None in stamps or len(set(stamps)) < len(stamps):
            stamps = [self.packets[number].dts for number in order]
        if None in stamps or len(set(stamps)) < len(stamps):
            rate = self.stream.average_rate or self.stream.guessed_rate
            return np.arange(len(order)), 1 / rate if rate else Fraction(1)
        return np.sort(np.array(stamps, np.int64)), self.stream.time_base or Fraction(1)

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

        wants_pictures = is_avi(self.container.format.name) and self.stream.codec_context.name == "mpeg4"
        kept: list[av.Packet[av.VideoStream]] | None = []
        total = 0
        try:
            for packet in self.container.demux(self.stream):
                beat()
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
        self.is_damaged |= any(packet.is_cut for packet in self.packets) or _is_cut_matroska(self.path)
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
        number_of_stream = self.stream.index  # which is gone when the container is closed
        self.container.close()
        self.container, self.stream = open_video(self.path, number_of_stream)
        yield from enumerate(self.container.demux(self.stream))


def open_video(path: str, stream: int | None = None) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file and pick its video stream, without decoding.

    Args:
        path: The file.
        stream: Number of the video stream in the file. None for the best one: FFmpeg's choice, default streams
            and high bit rates first, without cover art.

    Returns:
        The container, and its video stream with one decoding thread.

    Raises:
        VideoError: The file is missing, empty, no video, without pictures, or in a codec that is unknown.
        UserError: There is no video stream of this number.
    """
    import av
    import av.error

    head = _head(path)
    # An AVI header says all there is to know; probing would decode frames, and cost more than reading the clip.
    quick = {"probesize": "32", "analyzeduration": "1", "fflags": "noparse"} if head.startswith(b"RIFF") else {}
    try:
        container = av.open(path, metadata_errors="replace", options=quick)
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise UnavailableVideo(path, "there is not enough memory to open it") from error
        raise VideoError(path, _reason_for(head, error)) from error
    try:
        pictures = moving_pictures(container)
        if not pictures:
            kinds = " and ".join(sorted({s.type for s in container.streams})) or "nothing"
            raise VideoError(path, f"no video stream: the file holds {kinds} only")
        picked = _best(container, pictures) if stream is None else {s.index: s for s in pictures}.get(stream)
        if picked is None:
            numbers = ", ".join(str(s.index) for s in pictures)
            raise UserError(f"stream: {path} has no video stream {stream}; choose one of {numbers}")
        if picked.codec_context is None:
            raise VideoError(path, "its video codec is unknown to FFmpeg: re-encode the file, for example as H.264")
    except BaseException:
        container.close()
        raise
    picked.codec_context.thread_count = 1
    return container, picked


def moving_pictures(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Video streams of a file, without cover art."""
    return [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]


def _best(container: av.container.InputContainer, pictures: Sequence[av.VideoStream]) -> av.VideoStream:
    best = container.streams.best("video")
    return best if isinstance(best, type(pictures[0])) and best in pictures else pictures[0]


def _head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
    except OSError as error:
        reason = "the file does not exist" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise UnavailableVideo(path, reason) from error
    if not head:
        raise VideoError(path, "the file is empty (0 bytes)")
    return head


def _is_cut_matroska(path: str) -> bool:
    """Whether a file is Matroska or WebM and shorter than its only segment, which no list of frames would tell.

    Format: RFC 8794 (EBML). After the header comes the segment; a live stream leaves its size open.
    """
    with open(path, "rb") as file:
        for name in (b"\x1aE\xdf\xa3", b"\x18S\x80g"):
            if file.read(4) != name:
                return False
            first = file.read(1)
            length = 9 - (first[0] if first else 0).bit_length()  # as many bytes as there are leading zeros, and one
            rest = file.read(length - 1)
            if not first or length > 8 or len(rest) < length - 1:
                return False
            size = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + rest, "big")
            end = file.tell() + size
            if name == b"\x1aE\xdf\xa3":
                file.seek(end)
        is_open = size == (1 << 7 * length) - 1
        return not is_open and end > os.fstat(file.fileno()).st_size


def _reason_for(head: bytes, error: Exception) -> str:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "an MP4 or MOV whose index (moov) is missing or broken: the file is truncated or was never finished"
    if head.startswith((b"RIFF", b"\x1aE\xdf\xa3")):
        return "the header is broken: the file is truncated or damaged"
    return f"not a video: no known container format ({getattr(error, 'strerror', None) or error})"
