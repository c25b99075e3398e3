"""Several clips of one video for a test: at several times, and at several places of the frame.

All views of a video are decoded in one go and stay together, so that a batch holds whole videos.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.frames import View

__all__ = ["ONE_VIEW", "Views", "crop_views"]


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


def crop_views(frames: Tensor, side: int, num_crops: int = 1) -> Tensor:
    """Square crops that are spread evenly over the longer side of the frames, and centred on the shorter one.

    Paper for three of them: Wang et al., "Non-local Neural Networks", CVPR 2018. https://arxiv.org/abs/1711.07971

    Args:
        frames: (..., H, W).
        side: Of the crops, in pixels, at most H and W.
        num_crops: 1 takes the centre.

    Returns:
        (num_crops, ..., side, side), from left to right or from top to bottom.
    """
    height, width = frames.shape[-2:]
    crops = []
    for number in range(num_crops):
        place = View(number, num_crops).place
        top = int((height - side) * (place if height > width else 0.5))
        left = int((width - side) * (0.5 if height > width else place))
        crops.append(frames[..., top : top + side, left : left + side])
    return torch.stack(crops)
