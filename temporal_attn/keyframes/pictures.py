"""Frames as JPEG: files for key frames, data URIs that fit a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Image", "data_uris", "jpeg"]

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

_SIDES = (480, 320, 224, 160, 112, 80, 56, 40)


def jpeg(image: Image, quality: int = 80, longest: int | None = None) -> bytes:
    """Encode an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        quality: 1 to 95.
        longest: Scale down until no side is longer, in pixels; None keeps the size.
    """
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(image))
    if longest is not None:
        picture.thumbnail((longest, longest), Pillow.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def data_uris(images: Sequence[Image], budget: int, longest: int = _SIDES[0]) -> list[str]:
    """Images for an ``img`` element, all at the largest common size that fits the budget.

    Args:
        images: (H, W, 3) uint8 RGB.
        budget: Characters for all of them together; the smallest size is taken as it is.
        longest: No side becomes longer, in pixels.
    """
    uris: list[str] = []
    for side in (side for side in _SIDES if side <= longest):
        uris = [f"data:image/jpeg;base64,{base64.b64encode(jpeg(i, longest=side)).decode()}" for i in images]
        if sum(map(len, uris)) <= budget:
            break
    return uris
