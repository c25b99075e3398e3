"""Frames and heat maps as pictures: files, and data URIs that fit a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAT_STOPS", "Image", "data_uri", "data_uris", "heat_uris", "jpeg", "overlaid", "png"]

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

Heat = NDArray[np.float32]
"""(h, w) in [0, 1]."""

HEAT_STOPS = ((122, 20, 60), (214, 57, 44), (248, 146, 40), (255, 226, 92))
"""Colours of heat from weak to strong, RGB; strength also shows as opacity, so that nothing covers nothing."""

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
        uris = [data_uri(jpeg(image, longest=side), "image/jpeg") for image in images]
        if sum(map(len, uris)) <= budget:
            break
    return uris


def png(image: Image) -> bytes:
    """Encode an image (H, W, 3) or (H, W, 4) uint8 without loss."""
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(image)).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def data_uri(data: bytes, kind: str) -> str:
    """A file as the source of an ``img`` element; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def heat_uris(maps: Sequence[Heat], budget: int) -> list[str]:
    """Heat maps for ``img`` elements that lie over frames: one pixel a cell, the browser enlarges them.

    Args:
        maps: (h, w) in [0, 1].
        budget: Characters for all of them together; maps of fewer cells are taken until they fit.
    """
    from PIL import Image as Pillow

    uris: list[str] = []
    for side in (*_SIDES[3:], 28, 14, 7, 4):
        shrunk = [
            np.asarray(
                Pillow.fromarray(heat).resize(
                    (min(side, heat.shape[1]), min(side, heat.shape[0])), Pillow.Resampling.BOX
                )
            )
            for heat in maps
        ]
        uris = [data_uri(png(_coloured(heat)), "image/png") for heat in shrunk]
        if sum(map(len, uris)) <= budget:
            break
    return uris


def overlaid(image: Image, heat: Heat, opacity: float = 0.75) -> Image:
    """A heat map over its frame.

    Args:
        image: (H, W, 3) uint8 RGB.
        heat: (h, w) in [0, 1].
        opacity: Of the strongest heat.

    Returns:
        (H, W, 3) uint8.
    """
    from PIL import Image as Pillow

    height, width = image.shape[:2]
    enlarged = Pillow.fromarray(heat.astype(np.float32)).resize((width, height), Pillow.Resampling.BILINEAR)
    layer = _coloured(np.asarray(enlarged)).astype(np.float32)
    share = opacity * layer[..., 3:] / 255
    mixed: Image = (image * (1 - share) + layer[..., :3] * share).round().astype(np.uint8)
    return mixed


def _coloured(heat: Heat) -> Image:
    """(h, w, 4) uint8 RGBA."""
    strength = np.clip(heat, 0, 1)
    at = np.linspace(0, 1, len(HEAT_STOPS))
    channels = [np.interp(strength, at, [stop[channel] for stop in HEAT_STOPS]) for channel in range(3)]
    coloured: Image = np.stack([*channels, 255 * strength], -1).round().astype(np.uint8)
    return coloured
