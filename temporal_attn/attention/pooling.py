"""Mean and maximum over the places of a map, in the order in which the map lies in memory.

In channels_last the numbers of one channel lie C apart. The general reductions walk down one vector of channels at a
time, a cache line in every C, which no prefetcher follows. Both together take 7.3 ms of CPU on the maps of the four
stages of ResNet-50 (8 frames of 224², float32, 48 MB); docs/attention_speed.md says on what machine.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

__all__ = ["maximum", "mean", "mean_and_max"]

_STREAMS = 8
"""Most runs of places that compiled code reads side by side, each in sequence; of more the processor loses track, and
the maps of stage 1 take 2.5 ms instead of 1.9."""

_LEFT = 128
"""Places that are not worth a further step by runs. The 392 left of stage 1 take 0.28 ms with one and 0.55 without.
With one for the 98 of stage 2 the compiler runs stages that do not wait for each other in turns, to hold less memory.
"""


def mean(x: Tensor) -> Tensor:
    """Mean (B, C) of each channel of maps (B, C, H, W)."""
    return avg_pool2d(x, list(x.shape[2:])).flatten(1) if _place_by_place(x) else x.mean((2, 3))


def maximum(x: Tensor) -> Tensor:
    """Maximum (B, C) of each channel of maps (B, C, H, W)."""
    return max_pool2d(x, list(x.shape[2:])).flatten(1) if _place_by_place(x) else x.amax((2, 3))


def mean_and_max(x: Tensor) -> Tensor:
    """Mean and maximum of each channel over space.

    Where places tie for the maximum, they share its gradient in parts that depend on the form taken here.

    Args:
        x: Maps (B, C, H, W).

    Returns:
        (B, 2, C), the mean first.
    """
    channels_last = _channels_last_on_cpu(x)
    if channels_last and x.requires_grad:
        # The faster forms have dear gradients. Those of the pooling operators are copied from layout to layout: forward
        # and backward take 13 to 25 % longer. Those of runs are masks of masks: CBAM on stage 3, compiled, takes 21 ms
        # instead of 13.
        places = x.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.stack((places.mean(1), places.amax(1)), 1)
    if channels_last and torch.compiler.is_compiling():
        return _by_runs(x)
    return torch.stack((mean(x), maximum(x)), 1)


def _channels_last_on_cpu(x: Tensor) -> bool:
    try:
        return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    except RuntimeError:  # torch does not tell within `torch.func.vmap`
        return False


def _place_by_place(x: Tensor) -> bool:
    """Whether to take the pooling operators: they go through a map with a row of channels in the cache.

    Over the four stages the mean takes 2.3 ms instead of 4.7, both 4.0 instead of 7.3. Not where gradients flow, which
    these operators copy from layout to layout, nor compiled, where the plain form becomes part of other loops.
    """
    return _channels_last_on_cpu(x) and not x.requires_grad and not torch.compiler.is_compiling()


def _by_runs(x: Tensor) -> Tensor:
    """Reduce runs of places against each other, then what is left: 3.3 ms when compiled, the plain form 5.6.

    A step by runs is elementwise, so that the compiler makes one loop of both reductions, which reads the map once and
    in order. Stacking its results makes it write them down instead of folding this step into the next one.
    """
    batch, channels, height, width = x.shape
    sums = maxima = x.permute(0, 2, 3, 1).flatten(1, 2)
    while (runs := next(number for number in range(_STREAMS, 0, -1) if sums.shape[1] % number == 0)) > 1:
        shape = (batch, runs, sums.shape[1] // runs, channels)
        both = torch.stack((sums.reshape(shape).sum(1), maxima.reshape(shape).amax(1)))
        sums, maxima = both[0], both[1]
        if shape[2] <= _LEFT:
            break
    return torch.stack((sums.sum(1) / (height * width), maxima.amax(1)), 1)
