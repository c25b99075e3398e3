"""Mean and maximum of maps, over places or over channels, in the order in which the maps lie in memory.

In channels_last the numbers of one channel lie C apart. The general reductions walk down one vector of channels at a
time, a cache line in every C, which no prefetcher follows. Both together take 7.3 ms of CPU on the maps of the four
stages of ResNet-50 (8 frames of 224², float32, 48 MB); docs/attention_speed.md says on what machine.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

__all__ = ["maximum", "mean", "mean_and_max", "mean_and_max_of_channels"]

_STREAMS = 8
"""Most runs of places that compiled code reads side by side, each in sequence; of more the processor loses track, and
the maps of stage 1 take 2.5 ms instead of 1.9."""

_LEFT = 128
"""Places that are not worth a further step by runs. The 392 left of stage 1 take 0.28 ms with one and 0.55 without.
With one for the 98 of stage 2 the compiler runs stages that do not wait for each other in turns, to hold less memory.
"""


def mean(x: Tensor) -> Tensor:
    """Mean (B, C) of each channel of maps (B, C, H, W)."""
    if x.requires_grad and _channels_last_on_cpu(x) and not torch.compiler.is_compiling():
        return _places(x).mean(1)  # its gradient lies as the map does
    return avg_pool2d(x, list(x.shape[2:])).flatten(1) if _place_by_place(x) else x.mean((2, 3))


def maximum(x: Tensor) -> Tensor:
    """Maximum (B, C) of each channel of maps (B, C, H, W)."""
    if x.requires_grad and not torch.compiler.is_compiling():
        return mean_and_max(x)[:, 1]
    return max_pool2d(x, list(x.shape[2:])).flatten(1) if _place_by_place(x) else x.amax((2, 3))


def mean_and_max(x: Tensor) -> Tensor:
    """Mean and maximum of each channel over space.

    Places that tie for the maximum share its gradient.

    Args:
        x: Maps (B, C, H, W).

    Returns:
        (B, 2, C), the mean first.
    """
    channels_last, compiled = _channels_last_on_cpu(x), torch.compiler.is_compiling()
    if x.requires_grad and not compiled:
        return _both(_places(x), 1) if channels_last else _both(x.flatten(2), 2).mT
    if x.requires_grad and channels_last:
        # The faster form has a dear gradient: its masks of masks make CBAM on stage 3, compiled, take 21 ms and not 13.
        places = _places(x)
        return torch.stack((places.mean(1), places.amax(1)), 1)
    if channels_last and compiled:
        return _by_runs(x)
    return torch.stack((mean(x), maximum(x)), 1)


def mean_and_max_of_channels(x: Tensor) -> Tensor:
    """Mean and maximum of each place over its channels.

    Args:
        x: Maps (B, C, H, W).

    Returns:
        (B, 2, H, W), the mean first.
    """
    if x.requires_grad and not torch.compiler.is_compiling():
        return _both(x, 1)
    # Not torch.stack: once a size varies, its backward pass is more than torch 2.14's compiler can order.
    return torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)


def _places(x: Tensor) -> Tensor:
    """(B, H·W, C), a view of maps in channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _both(x: Tensor, dim: int) -> Tensor:
    """Mean and maximum over a dimension, which becomes these two."""
    return cast(Tensor, _MeanAndMax.apply(x, dim))


class _MeanAndMax(torch.autograd.Function):
    """The gradient in four passes over the map, in the map's own order.

    The general ones count and multiply truth values one by one, and hand on the mean's in an order of their own, which
    every layer below then has to turn around: over channels 640 ms instead of 25 for 256 maps of 1280 × 7 × 10.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dim: int) -> Tensor:
        return torch.cat((x.mean(dim, keepdim=True), x.amax(dim, keepdim=True)), dim)

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.dim = inputs  # type: ignore[attr-defined]
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx: torch.autograd.function.BackwardCFunction, grad: Tensor) -> tuple[Tensor, None]:
        (x, both), dim = cast(tuple[Tensor, ...], ctx.saved_tensors), ctx.dim  # type: ignore[attr-defined]
        largest = x.clone().eq_(both.narrow(dim, 1, 1))  # numbers and not truth values; places that tie share
        share = grad.narrow(dim, 1, 1) / largest.sum(dim, keepdim=True)
        return torch.addcmul(grad.narrow(dim, 0, 1) / x.shape[dim], largest, share), None


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
    sums = maxima = _places(x)
    while (runs := next(number for number in range(_STREAMS, 0, -1) if sums.shape[1] % number == 0)) > 1:
        shape = (batch, runs, sums.shape[1] // runs, channels)
        both = torch.stack((sums.reshape(shape).sum(1), maxima.reshape(shape).amax(1)))
        sums, maxima = both[0], both[1]
        if shape[2] <= _LEFT:
            break
    return torch.stack((sums.sum(1) / (height * width), maxima.amax(1)), 1)
