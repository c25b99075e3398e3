"""A frame as bytes, and back: packed JPEG or plain pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["decode_frames", "decode_jpeg", "frame_encoder"]

Bytes = npt.NDArray[np.uint8]
Frame = npt.NDArray[np.uint8]


def frame_encoder(encoding: str, quality: int) -> Callable[[Frame], bytes]:
    """What makes bytes of an (H, W, 3) frame.

    Args:
        encoding: ``jpeg`` or ``uint8``.
        quality: Of the JPEG.
    """
    if encoding == "uint8":
        return lambda frame: frame.transpose(2, 0, 1).tobytes()  # in planes, as a batch wants them
    from PIL import Image

    def encode(frame: Frame) -> bytes:
        data = io.BytesIO()
        Image.fromarray(frame).save(data, "JPEG", quality=quality)
        return data.getvalue()

    return encode


def decode_frames(
    data: Bytes, offsets: npt.NDArray[np.int64], wanted: Sequence[int], encoding: str, size: tuple[int, int]
) -> Frame:
    """Some frames of a video.

    Args:
        data: (N,) the bytes of all its frames.
        offsets: (K + 1,) where each frame begins in them, and at last where the last one ends.
        wanted: Positions in [0, K).
        encoding: ``jpeg`` or ``uint8``.
        size: (height, width).

    Returns:
        (len(wanted), height, width, 3).

    Raises:
        ValueError: The bytes are no JPEG.
    """
    if encoding == "uint8":
        planes: Frame = data.reshape(-1, 3, *size).take(wanted, axis=0)
        upright: Frame = planes.transpose(0, 2, 3, 1)
        return upright
    decode = _jpeg_decoder()
    frames: Frame = np.stack([decode(data[offsets[place] : offsets[place + 1]]) for place in wanted])
    return frames


def decode_jpeg(data: Bytes) -> Frame:
    """The (H, W, 3) picture of a JPEG.

    Raises:
        ValueError: It is none, or damaged.
    """
    return _jpeg_decoder()(data)


@cache
def _jpeg_decoder() -> Callable[[Bytes], Frame]:
    """That of simplejpeg where it is installed, otherwise Pillow's: the same pixels, in twice the time."""
    try:
        from simplejpeg import decode_jpeg as decode
    except ImportError:
        return _decode_by_pillow
    decoder: Callable[[Bytes], Frame] = decode
    return decoder


def _decode_by_pillow(data: Bytes) -> Frame:
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(data.tobytes()), formats=("JPEG",)))
    except OSError as error:
        raise ValueError(str(error)) from None
