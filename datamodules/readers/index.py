"""All that one scan of a video finds, in a form that can be stored, so that the file opens again without any search.

Opening a clip of UCF101 costs as much as decoding a group of pictures: the demuxer parses headers, probes the streams
and walks over every packet. An index remembers what came of it. With it a reader takes the bytes of the packets that it
needs straight from the file, and decodes nothing else.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from temporal_attn.types import UnavailableVideo

__all__ = ["FileStamp", "VideoIndex"]

_MAGIC = b"tavi"
VERSION = 1
"""Of the stored form; an index of another version is refused, and the file is scanned again."""

_HEADER = struct.Struct("<4sHIII")  # magic, version, CRC-32 of the rest, bytes of JSON, bytes of arrays
_WIDEST_PIXEL = 8


@dataclass(frozen=True)
class FileStamp:
    """Size and time of a file: an index belongs to one state of it.

    Args:
        size: Bytes.
        mtime_ns: Time of modification, nanoseconds.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> FileStamp:
        """Stamp of the file as it is now.

        Raises:
            VideoError: There is no such file.
        """
        try:
            status = os.stat(path)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "the file does not exist" if missing else error.strerror or str(error)
            raise UnavailableVideo(str(path), reason) from error
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Frames and packets of one video stream.

    P is the number of packets in decoding order, N the number of frames, in the order in which they are shown. A packet
    is named by its number, its position in decoding order.

    Args:
        stamp: State of the file that this was found in.
        container: FFmpeg's name of the container.
        stream: Number of the video stream in the file.
        video_streams: Video streams in the file, cover art aside.
        codec: FFmpeg's name of the decoder.
        codec_tag: Four characters by which the container calls the codec; decoders know encoders' faults by it.
        extradata: Header of the stream, without which its decoder cannot start.
        pixels: FFmpeg's name of the pixel format, such as ``yuv420p``.
        bits: Bits a colour.
        colours: FFmpeg's numbers of range and matrix of the colours.
        sample_bits: Bits a pixel as the container has it, which some decoders ask for.
        reorder: Frames that the decoder holds back to bring them in order of display.
        coded: (height, width) of a decoded frame, before it is turned and its pixels become square.
        quarter_turns: Counter-clockwise, by which a decoded frame is turned to stand upright.
        pixel_aspect: Width of a pixel by its height.
        fps: Frames per second as the header has it, 0 where it does not say.
        tick: Seconds of a tick.
        times: (N,) int64, tick at which each frame is shown, ascending.
        order: (N,) int64, number of the packet that each frame comes out with.
        starts: (S,) int64, display index of the frames at which decoding may start; the first is 0.
        positions: (P,) int64, byte of the file at which each packet lies; empty where packets do not lie there as the
            decoder wants them.
        sizes: (P,) int64, bytes of each packet; 0 stands for a dropped frame.
        is_decoded: Whether all frames were decoded, and every start was found to give the same frames as a decode from
            the beginning. Otherwise the index repeats what the container says.
        can_skip: Whether the decoder may be told to pass over frames that no other frame refers to.
        is_counted: Whether the container does not say which frames there are, so that only a decode tells.
        is_cut: Whether the file ends or breaks inside a packet.
        claimed: Frames to show that the container speaks of.
        hidden: Packets that are decoded but not shown, because an edit list says so.
        has_open_gops: Whether frames are shown before a key frame that are coded after it.
        has_dropped: Whether the stream drops frames, or packs several into one packet.
        engine: Engine that ``auto`` takes.
        reason: Why.
    """

    stamp: FileStamp
    container: str
    stream: int
    video_streams: int
    codec: str
    codec_tag: str
    extradata: bytes
    pixels: str
    bits: int
    colours: tuple[int, int]
    sample_bits: int
    reorder: int
    coded: tuple[int, int]
    quarter_turns: int
    pixel_aspect: Fraction
    fps: float
    tick: Fraction
    times: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    is_decoded: bool
    can_skip: bool
    is_counted: bool
    is_cut: bool
    claimed: int
    hidden: int
    has_open_gops: bool
    has_dropped: bool
    engine: str = "pyav"
    reason: str = ""

    def __len__(self) -> int:
        """Frames: those that decode, or, of an index that did not decode, those that should."""
        return len(self.order)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VideoIndex) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    @property
    def pts(self) -> npt.NDArray[np.float64]:
        """(N,) second at which each frame is shown, ascending."""
        return self.times.astype(np.float64) * float(self.tick)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames upright and with square pixels."""
        height, width = self.coded
        width = max(1, round(width * self.pixel_aspect))
        return (height, width) if self.quarter_turns % 2 == 0 else (width, height)

    @property
    def gop_frames(self) -> float:
        """Mean number of frames from one point at which decoding may start to the next."""
        return len(self) / len(self.starts)

    @property
    def claims_too_much(self) -> bool:
        """Whether fewer frames decode than the container speaks of: the file is cut off or damaged."""
        return self.is_cut or (self.is_decoded and len(self) < self.claimed)

    @property
    def is_direct(self) -> bool:
        """Whether packets are read from the file without its container."""
        return self.is_decoded and len(self.positions) > 0

    @property
    def frames_share_packets(self) -> bool:
        """Whether some packet gives several frames, which are then only told apart by counting from the beginning."""
        return len(np.unique(self.order)) < len(self.order)

    def fits(self, path: str | Path) -> bool:
        """Whether the file is still in the state that was scanned.

        Raises:
            VideoError: There is no such file.
        """
        return FileStamp.of(path) == self.stamp

    def to_bytes(self) -> bytes:
        """Compact form for storage, a few bytes a frame."""
        scalars: dict[str, Any] = {}
        arrays: list[bytes] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                scalars[field.name] = len(value)
                arrays.append(np.diff(value, prepend=0).astype("<i8").tobytes())  # small numbers, which pack well
            else:
                scalars[field.name] = _plain(value)
        text = json.dumps(scalars, separators=(",", ":")).encode()
        packed = zlib.compress(b"".join(arrays), 6)
        return _HEADER.pack(_MAGIC, VERSION, zlib.crc32(text + packed), len(text), len(packed)) + text + packed

    @classmethod
    def from_bytes(cls, data: bytes) -> VideoIndex:
        """Index from its stored form.

        Raises:
            ValueError: It is damaged, or of another version: scan the file again.
        """
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            raise ValueError("not a stored video index")
        _, version, checksum, text_size, packed_size = _HEADER.unpack_from(data)
        if version != VERSION:
            raise ValueError(f"a video index of version {version}, not {VERSION}: scan the file again")
        body = data[_HEADER.size :]
        if len(body) != text_size + packed_size or zlib.crc32(body) != checksum:
            raise ValueError("a damaged video index: scan the file again")
        values: dict[str, Any] = json.loads(body[:text_size])
        deltas = np.frombuffer(zlib.decompress(body[text_size:]), "<i8")
        for name in ("times", "order", "starts", "positions", "sizes"):
            length = values[name]
            values[name], deltas = np.cumsum(deltas[:length], dtype=np.int64), deltas[length:]
        values["stamp"] = FileStamp(*values["stamp"])
        values["extradata"] = bytes.fromhex(values["extradata"])
        values["pixel_aspect"] = Fraction(*values["pixel_aspect"])
        values["tick"] = Fraction(*values["tick"])
        values["colours"] = tuple(values["colours"])
        values["coded"] = tuple(values["coded"])
        return cls(**values)


def square_pixels(ratio: Fraction | None) -> Fraction:
    """Width of a pixel by its height as a container has it; 1 where it does not say, or says what cannot be meant."""
    return ratio if ratio and Fraction(1, _WIDEST_PIXEL) <= ratio <= _WIDEST_PIXEL else Fraction(1)


def _plain(value: object) -> object:
    """What JSON knows."""
    if isinstance(value, FileStamp):
        return value.size, value.mtime_ns
    if isinstance(value, Fraction):
        return value.numerator, value.denominator
    return value.hex() if isinstance(value, bytes) else value
