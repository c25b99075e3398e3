"""Video files of the kinds that matter to a reader, encoded on the spot, and the kind that a file is of."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.readers import VideoIndex

__all__ = ["encode_files", "kind_of"]

_SHORT_GOP = 24
"""Frames of a group of pictures up to which seeking beats decoding through, on clips of a few seconds."""


_LARGE = 1080
"""Pixels of the short side from which on scaling a frame costs about as much as decoding it."""


class _Kind(NamedTuple):
    suffix: str
    codec: str
    gop: int
    b_frames: int = 0
    is_uneven: bool = False
    size: tuple[int, int] = (240, 320)
    starts_late: bool = False
    is_turned: bool = False


_KINDS = (
    _Kind(".avi", "mpeg4", 12),
    _Kind(".avi", "mpeg4", 600),
    _Kind(".avi", "mpeg4", 12, b_frames=2),
    _Kind(".mp4", "libx264", 12, b_frames=2),
    _Kind(".mp4", "libx264", 250, b_frames=2),
    _Kind(".mp4", "libx264", 250, b_frames=2, is_uneven=True),
    _Kind(".mp4", "libx264", 12, b_frames=2, starts_late=True),
    _Kind(".mp4", "libx264", 12, b_frames=2, is_turned=True),
    _Kind(".mp4", "libx264", 250, b_frames=2, size=(1080, 1920)),
    _Kind(".mp4", "libx265", 12),
    _Kind(".webm", "libvpx-vp9", 60),
    _Kind(".mkv", "libsvtav1", 60),
)
_RATE = 25
_TICKS = 90_000
_CUT_SECONDS = 0.7


def kind_of(index: VideoIndex) -> str:
    """Kind of a file, by what decides over the cost of reading: ``gop12``, ``single_gop`` or ``b_frames`` in AVI.

    ``gop12`` stands for groups of up to 24 frames, ``single_gop`` for longer ones. Other files are named after their
    codec, with ``gop12`` or ``long_gop``, and ``edit_list``, ``rotated`` or ``1080p`` where they are.
    """
    if index.container != "avi":
        codec = index.codec.removeprefix("lib").removesuffix("-vp9")
        traits = {
            "edit_list": index.hidden > 0,
            "rotated": index.quarter_turns > 0,
            "1080p": min(index.coded) >= _LARGE,
        }
        gop = "gop12" if index.gop_frames <= _SHORT_GOP else "long_gop"
        return "_".join([codec, gop, *(name for name, has in traits.items() if has)])
    if (np.diff(index.order) < 0).any():
        return "b_frames"
    return "gop12" if len(index.starts) > 1 and index.gop_frames <= _SHORT_GOP else "single_gop"


def encode_files(folder: Path, frames: int = 200, seed: int = 0) -> list[Path]:
    """One file of each kind that this FFmpeg can encode.

    Args:
        folder: Where they are written.
        frames: Of each file.
        seed: Of what they show: textured squares that move over a textured ground.
    """
    from av.error import FFmpegError

    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes its settings to stderr otherwise
    paths = []
    for number, kind in enumerate(_KINDS):
        path = folder / f"{number}{kind.suffix}"
        try:
            _encode(path, kind, _scene(frames, kind.size, np.random.default_rng((seed, number))))
        except (FFmpegError, ValueError):  # ValueError: an encoder that this FFmpeg was built without
            continue
        paths.append(path)
    return paths


def _scene(frames: int, size: tuple[int, int], rng: np.random.Generator) -> Iterator[npt.NDArray[np.uint8]]:
    height, width = size
    ground = _texture(rng, (height, width))
    patches = [_texture(rng, (64, 64)) for _ in range(3)]
    places, steps = rng.integers(0, (height - 64, width - 64), (3, 2)), rng.integers(-4, 5, (3, 2))
    for number in range(frames):
        frame = ground.copy()
        for patch, place, step in zip(patches, places, steps, strict=True):
            y, x = (place + number * step) % (height - 64, width - 64)
            frame[y : y + 64, x : x + 64] = patch
        yield frame


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    fine = rng.integers(0, 24, (*size, 3), np.uint8)
    texture: npt.NDArray[np.uint8] = coarse.repeat(8, 0).repeat(8, 1) // 12 * 10 + fine
    return texture


def _encode(path: Path, kind: _Kind, scene: Iterator[npt.NDArray[np.uint8]]) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=_RATE)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = kind.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = kind.gop, kind.b_frames, 1
        context.options = _options(kind)
        if kind.is_uneven:
            context.time_base = Fraction(1, _TICKS)
        tick = Fraction(1, _TICKS) if kind.is_uneven else Fraction(1, _RATE)
        for number, pixels in enumerate(scene):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base = tick
            frame.pts = number * (_TICKS // _RATE) + 900 * (number % 3) if kind.is_uneven else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if kind.starts_late:
        path.write_bytes(_cut_by_edit_list(path.read_bytes(), _CUT_SECONDS))
    if kind.is_turned:
        path.write_bytes(_turned(path.read_bytes()))


def _cut_by_edit_list(data: bytes, seconds: float) -> bytes:
    """An MP4 whose only track starts in its middle, as a cut without re-encoding leaves it: what lies before is coded.

    Format: ISO/IEC 14496-12, boxes ``elst``, ``mdhd`` and ``mvhd`` in their version 0.
    """
    edited = bytearray(data)
    track_scale, movie_scale = (
        struct.unpack_from(">I", edited, edited.index(name) + 16)[0] for name in (b"mdhd", b"mvhd")
    )
    entry = edited.index(b"elst") + 12  # behind the name, version and flags, and the number of entries
    duration, start = struct.unpack_from(">Ii", edited, entry)
    struct.pack_into(
        ">Ii", edited, entry, duration - round(seconds * movie_scale), start + round(seconds * track_scale)
    )
    return bytes(edited)


def _turned(data: bytes) -> bytes:
    """An MP4 that a player turns by 90°, as a telephone held upright writes it.

    Format: ISO/IEC 14496-12, the matrix of the box ``tkhd`` in its version 0.
    """
    turned = bytearray(data)
    one = 1 << 16
    struct.pack_into(">9i", turned, turned.index(b"tkhd") + 44, 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    return bytes(turned)


def _options(kind: _Kind) -> dict[str, str]:
    if kind.codec == "libx264":
        return {"preset": "veryfast", "keyint_min": str(kind.gop), "sc_threshold": "0", "bf": str(kind.b_frames)}
    if kind.codec == "libx265":
        return {"preset": "ultrafast", "x265-params": f"log-level=error:keyint={kind.gop}:min-keyint={kind.gop}"}
    if kind.codec == "libvpx-vp9":
        return {"deadline": "realtime", "cpu-used": "8", "g": str(kind.gop)}
    if kind.codec == "libsvtav1":
        return {"preset": "12", "svtav1-params": f"keyint={kind.gop}"}
    return {"qscale": "4", "sc_threshold": "1000000000"}
