"""Mean and maximum over the places of a map, in the order in which the map lies in memory.

In channels_last the numbers of one channel lie C apart. The general reductions walk down one vector of channels at a
time, a cache line in every C, which no prefetcher follows. Both together take 7.3 ms of CPU on the maps of the four
stages of ResNet-50 (8 frames of 224², float32, 48 MB); docs/attention_speed.md says on what machine.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

__all__ = ["mean_and_max"]

_STREAMS = 8
"""Runs of places that compiled code reads side by side, each in sequence; of more the processor loses track, and the
maps of stage 1 take 2.5 ms instead of 1.9."""


def mean_and_max(x: Tensor) -> Tensor:
    """Mean and maximum of each channel over space.

    Where places tie for the maximum, they share its gradient in parts that depend on the form taken here.

    Args:
        x: Maps (B, C, H, W).

    Returns:
        (B, 2, C), the mean first.
    """
    if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.stack((x.mean((2, 3)), x.amax((2, 3))), 1)
    if x.requires_grad:
        # The faster forms have dear gradients. Those of the pooling operators are copied from layout to layout: forward
        # and backward take 13 to 25 % longer. Those of runs are masks of masks: CBAM on stage 3, compiled, takes 21 ms
        # instead of 13.
        places = x.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.stack((places.mean(1), places.amax(1)), 1)
    if torch.compiler.is_compiling():
        return _by_runs(x)
    # The pooling operators go through the map place by place, with a row of channels in the cache: 4.0 ms.
    size = list(x.shape[2:])
    return torch.stack((avg_pool2d(x, size).flatten(1), max_pool2d(x, size).flatten(1)), 1)


def _by_runs(x: Tensor) -> Tensor:
    """Reduce runs of places against each other, then what is left: 3.3 ms when compiled, the plain form 5.6.

    The first step is elementwise, so that the compiler makes one loop of both reductions, which reads the map once and
    in order. Stacking its results makes it write them down instead of folding this step into the next one.
    """
    batch, channels, height, width = x.shape
    places = height * width
    runs = next(number for number in range(_STREAMS, 0, -1) if places % number == 0)
    parts = x.permute(0, 2, 3, 1).reshape(batch, runs, places // runs, channels)
    if runs == 1:
        return torch.stack((parts.mean((1, 2)), parts.amax((1, 2))), 1)
    sums, maxima = torch.stack((parts.sum(1), parts.amax(1)))
    return torch.stack((sums.sum(1) / places, maxima.amax(1)), 1)
