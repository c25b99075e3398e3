"""Augmentation of whole batches on their device: one draw a clip, the same for each of its frames.

All parameters of a clip come from its own seed in the batch, so that it looks the same in whatever batch it lands.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from datamodules.options import AugmentOptions
from temporal_attn.types import VideoBatch

__all__ = ["ClipAugment"]

_CROP_TRIALS = 10  # as torchvision's RandomResizedCrop


class ClipAugment:
    """Random resized crop, horizontal flip and colour jitter on uint8 clips.

    The crop is Inception's: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    https://arxiv.org/abs/1409.4842

    Args:
        options: Ranges of the draws.
        size: Side in pixels of the square that comes out.

    Shape:
        video (B, T, C, H, W) uint8 becomes (B, T, C, size, size) uint8 on the same device; all else stays.
    """

    def __init__(self, options: AugmentOptions, size: int) -> None:
        self.options = options
        self.size = size

    def __call__(self, batch: VideoBatch) -> VideoBatch:
        """A new batch with augmented clips; one without frames, such as one of cached features, is returned as is."""
        if "video" not in batch:
            return batch
        video = batch["video"]
        augmented = video.new_empty((*video.shape[:3], self.size, self.size))
        for row, (clip, seed) in enumerate(zip(video, batch["seed"].tolist(), strict=True)):
            augmented[row] = self.clip(clip, seed)
        return cast(VideoBatch, {**batch, "video": augmented})

    def clip(self, clip: Tensor, seed: int) -> Tensor:
        """One clip (T, C, H, W), augmented by its seed to (T, C, size, size)."""
        generator = torch.Generator().manual_seed(seed)
        top, left, height, width = self._draw_crop(clip.shape[-2], clip.shape[-1], generator)
        clip = F.resized_crop(clip, top, left, height, width, [self.size, self.size], antialias=True)
        if _uniform(0, 1, generator) < self.options.flip:
            clip = F.horizontal_flip(clip)
        return self._jitter(clip, generator)

    def _draw_crop(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random crop; the largest allowed one in the centre if no draw fits."""
        low, high = self.options.ratio
        for _ in range(_CROP_TRIALS):
            area = height * width * _uniform(*self.options.scale, generator)
            ratio = math.exp(_uniform(math.log(low), math.log(high), generator))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                top = int(torch.randint(height - h + 1, (), generator=generator))
                return top, int(torch.randint(width - w + 1, (), generator=generator)), h, w
        h = min(height, round(width / low))
        w = min(width, round(height * high))
        return (height - h) // 2, (width - w) // 2, h, w

    def _jitter(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        changes = (
            (self.options.brightness, F.adjust_brightness),
            (self.options.contrast, F.adjust_contrast),
            (self.options.saturation, F.adjust_saturation),
        )
        for strength, adjust in changes:
            if strength > 0:
                clip = adjust(clip, _uniform(max(0.0, 1 - strength), 1 + strength, generator))
        if self.options.hue > 0:
            clip = F.adjust_hue(clip, _uniform(-self.options.hue, self.options.hue, generator))
        return clip


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
