"""What happens to the pixels of one clip: random resized crop, colour jitter, random erasing.

Each function takes a clip (T, C, H, W) uint8 and gives one of the same kind.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from datamodules.transforms.draws import Box, draw_box, draw_uniform

__all__ = ["colour_jitter", "draw_crop", "erase", "resized_crop"]


def draw_crop(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Box:
    """A random crop, see `draw_box`; the largest one of an allowed shape in the centre if none fits."""
    box = draw_box(height, width, scale, ratio, generator)
    if box is not None:
        return box
    h, w = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def resized_crop(clip: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """The box, scaled to `size`, height and width in pixels."""
    cropped: Tensor = F.resized_crop(clip, *box, size=list(size), antialias=True)
    return cropped


def colour_jitter(
    clip: Tensor,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    generator: torch.Generator,
) -> Tensor:
    """Brightness, contrast, saturation and hue changed in this order; none is drawn whose strength is 0.

    Args:
        clip: (T, 3, H, W) uint8.
        brightness: Factor is drawn from [1 - x, 1 + x], and not below 0.
        contrast: Likewise, around the mean of each frame.
        saturation: Likewise.
        hue: Shift is drawn from [-x, x], in turns of the colour circle.
        generator: Draws.
    """
    changes = (
        (brightness, F.adjust_brightness),
        (contrast, F.adjust_contrast),
        (saturation, F.adjust_saturation),
    )
    for strength, adjust in changes:
        if strength > 0:
            clip = adjust(clip, draw_uniform(max(0.0, 1 - strength), 1 + strength, generator))
    if hue > 0:
        clip = F.adjust_hue(clip, draw_uniform(-hue, hue, generator))
    return clip


def erase(
    clip: Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    each_frame: bool,
    generator: torch.Generator,
) -> Tensor:
    """A random rectangle blackened: random erasing.

    Paper: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020. https://arxiv.org/abs/1708.04896

    Args:
        clip: (T, C, H, W).
        scale: Smallest and largest share of a frame's area.
        ratio: Smallest and largest width / height.
        each_frame: Whether each frame loses another rectangle, instead of all the same: a tube through time, which
            the other frames cannot fill.
        generator: Draws.
    """
    clip = clip.clone()
    height, width = clip.shape[-2:]
    for frames in clip.unbind() if each_frame else (clip,):
        box = draw_box(height, width, scale, ratio, generator)
        if box is not None:
            F.erase(frames, *box, v=torch.zeros((), dtype=clip.dtype, device=clip.device), inplace=True)
    return clip
