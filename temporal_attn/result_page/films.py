"""Small pictures of test videos, as the model saw them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from temporal_attn.keyframes.pictures import data_uri, jpeg

__all__ = ["film_of"]


def film_of(dataset: Any, index: int, frames: int, side: int = 112) -> list[str]:  # noqa: ANN401
    """Frames of a video for ``img`` elements; none where the data set gives no frames of it.

    Args:
        dataset: Gives a dict with ``video`` (T, 3, H, W) uint8 by index, and ``mask`` (T,) where some are padding; of
            several views with a leading dimension, of which the first is taken. One of a stranger may give anything.
        index: Of the video.
        frames: At most so many, evenly spread; of one the middle.
        side: No side of a picture is longer, in pixels.
    """
    item = dataset[index]
    video = item.get("video") if isinstance(item, Mapping) else None
    if not isinstance(video, torch.Tensor) or video.dtype != torch.uint8:
        return []
    if video.ndim not in (4, 5) or video.shape[-3] not in (3, 6):
        return []
    mask = torch.as_tensor(item.get("mask", torch.ones(video.shape[:-3], dtype=torch.bool)))
    if video.ndim == 5:
        video, mask = video[0], mask[0]
    real = mask.nonzero().flatten().tolist()
    edges = np.linspace(0, len(real), min(frames, len(real)) + 1)
    chosen = [real[int((low + high) / 2)] for low, high in pairwise(edges)]
    pictures = video[chosen, :3].permute(0, 2, 3, 1).numpy()
    return [data_uri(jpeg(picture, quality=70, longest=side), "image/jpeg") for picture in pictures]
