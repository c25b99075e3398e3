"""A frame as bytes, and back: packed JPEG or plain pixels."""

from __future__ import annotations

import io
import warnings
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
    pictures = [decode(data[offsets[place] : offsets[place + 1]]) for place in wanted]
    if pictures[0].flags.c_contiguous:
        return np.stack(pictures)
    frames: Frame = np.stack([picture.transpose(2, 0, 1) for picture in pictures]).transpose(0, 2, 3, 1)
    return frames


def decode_jpeg(data: Bytes) -> Frame:
    """The (H, W, 3) picture of a JPEG.

    Raises:
        ValueError: It is none, or damaged.
    """
    return _jpeg_decoder()(data)


@cache
def _jpeg_decoder() -> Callable[[Bytes], Frame]:
    """That of simplejpeg where it is installed, else torchvision's in 1.7 times the time, else Pillow's in 2.4 times.

    All give the same pixels. torchvision 0.29 announces that it will lose its decoder.
    """
    try:
        from simplejpeg import decode_jpeg as decode
    except ImportError:
        try:
            from torchvision.io import decode_jpeg as _  # noqa: F401  whether it is there
        except ImportError:
            return _decode_by_pillow
        warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)
        return _decode_by_torchvision
    decoder: Callable[[Bytes], Frame] = decode
    return decoder


def _decode_by_torchvision(data: Bytes) -> Frame:
    """A picture whose memory is (3, H, W)."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        planes = decode_jpeg(torch.from_numpy(data.copy()), ImageReadMode.RGB)  # a store's memory is read-only
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    picture: Frame = planes.permute(1, 2, 0).numpy()
    return picture


def _decode_by_pillow(data: Bytes) -> Frame:
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(data.tobytes()), formats=("JPEG",)))
    except OSError as error:
        raise ValueError(str(error)) from None
