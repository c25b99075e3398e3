"""Appearance and motion by one image net: it sees each frame, and how the frame shortly after differs from it.

Papers: Simonyan and Zisserman, "Two-Stream Convolutional Networks for Action Recognition in Videos", NIPS 2014.
    https://arxiv.org/abs/1406.2199 (two streams, by two nets); Wang et al., "Temporal Segment Networks", ECCV 2016.
    https://arxiv.org/abs/1608.00859 (the difference of two frames in the place of optical flow).

Both streams share the net and its weights, which keeps one set of frozen features and one place for attention. Tokens
of different pairs of frames know nothing of each other, so that frames stay separable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from temporal_attn.backbones import FrameBackbone
from temporal_attn.types import UserError

__all__ = ["TwoStreamBackbone"]

# Neighbouring frames differ by little: doubled, their difference is about as large as a normalised picture.
_GAIN = 2.0


class TwoStreamBackbone(FrameBackbone):
    """A `FrameBackbone` whose channels hold two streams: what a frame shows, then what changes after it.

    Args and errors are those of `FrameBackbone`; ``width`` and ``channels`` are twice those of the net.

    Shape:
        video (N, 6, H, W), RGB of a frame and of the later one, uint8 or normalised float; maps (N, 2C, h, w); tokens
        (N, 2C').
    """

    streams = 2

    def normalise(self, video: Tensor) -> Tensor:
        """The frame, normalised, and the scaled difference of the later one to it: (N, 6, H, W).

        Raises:
            UserError: The frames come alone.
        """
        if video.shape[1] != 6:
            raise UserError(
                f"two_stream needs frames in pairs, 6 channels, and got {video.shape[1]}: set clip.lag of the data, "
                "for example to 0.06 seconds"
            )
        pairs = super().normalise(_apart(video))
        frame, later = pairs[0::2], pairs[1::2]
        return torch.cat((frame, _GAIN * (later - frame)), 1)

    def run_parts(self, parts: Sequence[str], x: Tensor) -> Tensor:
        """What some of the chain's parts make of both streams, (N, 2C, h, w)."""
        return _together(super().run_parts(parts, _apart(x)))

    def pool(self, maps: Tensor) -> Tensor:
        """Tokens (N, 2C') of maps (N, 2C, h, w)."""
        return _together(super().pool(_apart(maps)))

    def _last_maps(self, x: Tensor) -> Tensor:
        return _together(super()._last_maps(_apart(x)))


def _apart(x: Tensor) -> Tensor:
    """Streams that share channels, (N, 2C, …), become rows of their own, (2N, C, …); maps in channels_last."""
    if x.ndim != 4:
        return x.reshape(2 * len(x), x.shape[1] // 2, *x.shape[2:])
    count, channels, *size = x.shape
    streams = x.permute(0, 2, 3, 1).reshape(count, *size, 2, channels // 2)
    return streams.permute(0, 3, 1, 2, 4).reshape(2 * count, *size, channels // 2).permute(0, 3, 1, 2)


def _together(x: Tensor) -> Tensor:
    """The inverse of `_apart`."""
    if x.ndim != 4:
        return x.reshape(len(x) // 2, 2 * x.shape[1], *x.shape[2:])
    # Taken apart in the order of channels_last, so that gradients come back in it: in another, every layer below has to
    # turn them around.
    count, channels, *size = x.shape
    streams = x.permute(0, 2, 3, 1).reshape(count // 2, 2, *size, channels)
    return streams.permute(0, 2, 3, 1, 4).reshape(count // 2, *size, 2 * channels).permute(0, 3, 1, 2)
