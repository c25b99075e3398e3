"""Several clips of one video for a test: at several times, and at several places of the frame.

All views of a video are decoded in one go and stay together, so that a batch holds whole videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.frames import View

__all__ = ["ONE_VIEW", "Views", "crop_size", "crop_views"]


@dataclass(frozen=True)
class Views:
    """How many views a video has in a test.

    Args:
        num_clips: Clips at times that are spread over the video.
        num_crops: 1 for the frame's centre, 3 for both ends of its long side too.
    """

    num_clips: int = 1
    num_crops: int = 1

    def __len__(self) -> int:
        """Views of a video."""
        return self.num_clips * self.num_crops

    def clips(self) -> list[View]:
        """The clips of a video; view i is crop i % num_crops of clip i // num_crops."""
        return [View(number, self.num_clips) for number in range(self.num_clips)]


ONE_VIEW = Views()


def crop_size(crop: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, in pixels, of a crop that is given by them or by the side of a square."""
    if isinstance(crop, int):
        return crop, crop
    height, width = crop
    return height, width


def crop_views(frames: Tensor, crop: int | Sequence[int], num_crops: int = 1) -> Tensor:
    """Crops that are spread evenly where the frames have most to spare, and centred on the other side.

    Frames that are smaller than the crop are enlarged until they cover it.

    Paper for three of them: Wang et al., "Non-local Neural Networks", CVPR 2018. https://arxiv.org/abs/1711.07971

    Args:
        frames: (..., H, W) uint8.
        crop: Side of a square, or height h and width w, in pixels.
        num_crops: 1 takes the centre.

    Returns:
        (num_crops, ..., h, w), from left to right or from top to bottom.
    """
    h, w = crop_size(crop)
    height, width = frames.shape[-2:]
    scale = max(h / height, w / width)
    if scale > 1:
        from torchvision.transforms.v2.functional import resize

        height, width = max(h, round(height * scale)), max(w, round(width * scale))
        frames = resize(frames, [height, width], antialias=True)
    spare_height, spare_width = height - h, width - w
    crops = []
    for number in range(num_crops):
        place = View(number, num_crops).place
        top = int(spare_height * (place if spare_height > spare_width else 0.5))
        left = int(spare_width * (0.5 if spare_height > spare_width else place))
        crops.append(frames[..., top : top + h, left : left + w])
    return torch.stack(crops)
