"""Real video files for the tests, encoded with PyAV: whole ones, unusual ones and broken ones.

The frames carry their own number as sixteen black or white blocks, so that a test can ask any decoded frame, resized
and recompressed as it may be, which frame it is: `numbered_frames` draws, `read_number` reads.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

__all__ = [
    "numbered_frames",
    "read_number",
    "read_numbers",
    "sequential_decode",
    "set_edit_start",
    "write_audio_only",
    "write_empty",
    "write_streams",
    "write_text",
    "write_truncated",
    "write_video",
]

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder reports its settings otherwise

_GRID = 4  # 4 × 4 blocks: frame numbers up to 65,535
_DARK, _BRIGHT = 40, 215
_TICKS = 90_000  # a second of the time base; every usual frame rate is a whole number of ticks


def numbered_frames(n: int, height: int = 64, width: int = 96, first: int = 0) -> np.ndarray:
    """Frames that show their own number.

    Args:
        n: Frames.
        height: Pixels, at least 16.
        width: Pixels, at least 16.
        first: Number of the first frame.

    Returns:
        (n, height, width, 3) uint8; tinted, so that exchanged colour channels show too.
    """
    bits = (np.arange(first, first + n)[:, None] >> np.arange(_GRID * _GRID)) & 1
    grid = np.where(bits, _BRIGHT, _DARK).reshape(n, _GRID, _GRID)
    rows = np.arange(height) * _GRID // height
    columns = np.arange(width) * _GRID // width
    grey = grid[:, rows[:, None], columns[None, :]]
    return np.clip(grey[..., None] + np.array([25, 0, -25]), 0, 255).astype(np.uint8)


def read_number(frame: np.ndarray) -> int:
    """Number that an (H, W, 3) frame of `numbered_frames` shows, at any size."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(_GRID * _GRID):
        row, column = divmod(bit, _GRID)
        block = frame[
            (4 * row + 1) * height // (4 * _GRID) : math.ceil((4 * row + 3) * height / (4 * _GRID)),
            (4 * column + 1) * width // (4 * _GRID) : math.ceil((4 * column + 3) * width / (4 * _GRID)),
        ]
        number |= int(block.mean() > (_DARK + _BRIGHT) / 2) << bit
    return number


def read_numbers(frames: np.ndarray) -> list[int]:
    """Numbers that (N, H, W, 3) frames show."""
    return [read_number(frame) for frame in frames]


def write_video(
    path: str | Path,
    frames: np.ndarray,
    fps: float = 25,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 0,
    audio: bool = False,
    rotation: int = 0,
    times: Sequence[float] | None = None,
    pix_fmt: str = "yuv420p",
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Encode frames into a file whose suffix names the container.

    Args:
        path: Where; .mp4, .mov, .avi, .mkv or .webm.
        frames: (T, H, W, 3) uint8 RGB.
        fps: Frame rate.
        codec: Encoder as FFmpeg calls it: libx264, libx265, mpeg4, libvpx-vp9, libsvtav1, mjpeg, …
        gop: Frames from one key frame to the next.
        b_frames: Most B-frames in a row.
        audio: Whether a sine tone runs along.
        rotation: Degrees (90, 180 or 270) clockwise by which a player turns the stored frames; .mp4 and .mov only.
        times: Second at which each frame is shown (variable frame rate), instead of fps.
        pix_fmt: Pixel format in the file.
        pixel_aspect: Width of a pixel by its height, None for a file that does not say.

    Returns:
        The path.
    """
    path = Path(path)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.thread_count = 1
        stream.options = _encoder_options(codec, gop, b_frames)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, _TICKS)
        tone = container.add_stream(_AUDIO_CODEC.get(path.suffix, "aac"), rate=48_000) if audio else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base = Fraction(1, _TICKS) if times is not None else 1 / rate
            frame.pts = round(times[index] * _TICKS) if times is not None else index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            _mux_tone(container, tone, len(frames) / float(rate))
    if rotation:
        _set_rotation(path, rotation)
    return path


def write_streams(path: str | Path, videos: Sequence[np.ndarray], cover: np.ndarray | None = None) -> Path:
    """Several H.264 streams in one file, and a picture that is none of them.

    Args:
        path: Where; a picture wants .mp4.
        videos: (T, H, W, 3) uint8 RGB each.
        cover: (H, W, 3) uint8 RGB, shown by players beside the title.

    Returns:
        The path.
    """
    with av.open(str(path), "w") as container:
        picture = None
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.disposition = av.stream.Disposition.attached_pic
            picture.height, picture.width, picture.pix_fmt = *cover.shape[:2], "yuvj420p"
        streams = []
        for frames in videos:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            stream.options = _encoder_options("libx264", gop=12, b_frames=0)
            streams.append(stream)
        if picture is not None:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
            container.mux(picture.encode(None))
        for stream, frames in zip(streams, videos, strict=True):
            for index, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return Path(path)


def sequential_decode(path: str | Path) -> np.ndarray:
    """All frames of a file, decoded in one thread from start to end: the reference for every reader.

    Returns:
        (N, H, W, 3) uint8 RGB as stored, that is without the rotation that the file may ask for. Packets that do not
        decode are passed over.
    """
    frames = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
    return np.stack(frames)


def set_edit_start(path: Path, seconds: float) -> Path:
    """Give an .mp4 an edit list that starts in the middle of the track, as a cut without re-encoding does.

    Args:
        path: File of `write_video`.
        seconds: What lies before is decoded but not shown.

    Returns:
        The path.
    """
    data = bytearray(path.read_bytes())
    time_scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    entry = data.index(b"elst") + 4 + 4 + 4  # past the name, version and flags, and the number of entries
    duration, media_time = struct.unpack_from(">Ii", data, entry)
    movie_scale = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)[0]
    cut = (duration - round(seconds * movie_scale), media_time + round(seconds * time_scale))
    struct.pack_into(">Ii", data, entry, *cut)
    path.write_bytes(data)
    return path


def write_empty(path: str | Path) -> Path:
    """A file of zero bytes."""
    Path(path).write_bytes(b"")
    return Path(path)


def write_text(path: str | Path) -> Path:
    """A text file, whatever its suffix promises."""
    Path(path).write_text("This is no video.\n" * 50)
    return Path(path)


def write_audio_only(path: str | Path, seconds: float = 1.0) -> Path:
    """A container with a sine tone and no picture."""
    path = Path(path)
    with av.open(str(path), "w") as container:
        _mux_tone(container, container.add_stream(_AUDIO_CODEC.get(path.suffix, "aac"), rate=48_000), seconds)
    return path


def write_truncated(path: str | Path, source: Path, share: float = 0.5) -> Path:
    """The first part of another file, as an interrupted copy leaves it.

    An .mp4 of `write_video` carries its index at the end, so that nothing of it can be read; an .avi loses only frames.
    """
    data = source.read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])
    return Path(path)


_AUDIO_CODEC = {".avi": "libmp3lame", ".webm": "libopus", ".mkv": "libopus"}


def _encoder_options(codec: str, gop: int, b_frames: int) -> dict[str, str]:
    if codec == "libx264":
        options = {"preset": "ultrafast", "keyint_min": str(gop), "sc_threshold": "0", "bf": str(b_frames)}
        return options | {"b-adapt": "0"}  # as many B-frames as were asked for, whatever the content
    if codec == "libx265":
        return {"preset": "ultrafast", "x265-params": f"log-level=error:keyint={gop}:min-keyint={gop}:scenecut=0"}
    if codec == "libvpx-vp9":
        return {"deadline": "realtime", "cpu-used": "8"}
    if codec == "libsvtav1":
        return {"preset": "12", "svtav1-params": f"keyint={gop}"}
    if codec in ("mpeg4", "mpeg2video"):
        return {"sc_threshold": "1000000000", "qscale": "3"}
    return {}


def _mux_tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    total, size = int(seconds * 48_000), 1024
    resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=48_000)
    for start in range(0, total, size):
        wave = np.sin(2 * np.pi * 440 * np.arange(start, start + size) / 48_000)
        frame = av.AudioFrame.from_ndarray((wave * 8_000).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        for resampled in resampler.resample(frame):
            container.mux(stream.encode(resampled))
    container.mux(stream.encode(None))


def _set_rotation(path: Path, degrees: int) -> None:
    data = bytearray(path.read_bytes())
    cos, sin = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    start = data.index(b"tkhd") + 4 + 40  # the matrix of a version-0 track header
    data[start : start + len(matrix)] = matrix
    path.write_bytes(data)
