"""Random numbers and boxes from a clip's own generator."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

__all__ = ["Box", "draw_box", "draw_uniform"]

_TRIALS = 10  # as torchvision's RandomResizedCrop and RandomErasing


class Box(NamedTuple):
    """A rectangle inside a frame, in pixels, in the order that torchvision's functions take."""

    top: int
    left: int
    height: int
    width: int


def draw_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def draw_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Box | None:
    """A rectangle of random area, shape and place.

    Paper: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015. https://arxiv.org/abs/1409.4842

    Args:
        height: Of the frame.
        width: Of the frame.
        scale: Smallest and largest share of the frame's area.
        ratio: Smallest and largest width / height; its logarithm is drawn.
        generator: Draws.

    Returns:
        The box, or None when none of ten drawn shapes fits into the frame.
    """
    for _ in range(_TRIALS):
        area = height * width * draw_uniform(*scale, generator)
        shape = math.exp(draw_uniform(math.log(ratio[0]), math.log(ratio[1]), generator))
        h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < h <= height and 0 < w <= width:
            top = int(torch.randint(height - h + 1, (), generator=generator))
            return Box(top, int(torch.randint(width - w + 1, (), generator=generator)), h, w)
    return None
