"""Batch norm as a part of the convolution before it, while nothing is trained.

With fixed statistics both are linear, and so one convolution does the work of both (Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2,
https://arxiv.org/abs/1712.05877): maps are written once and not twice, which is what a CPU waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["folded"]

_CLOSE = 1e-3
"""How far, of the largest value, folded maps may lie from those of before: many times what rounding does, and far less
than a convolution whose output somebody else reads too."""


@contextmanager
def folded(net: nn.Module, run: Callable[[], Tensor]) -> Iterator[int]:
    """While this lasts, batch norms are part of the convolutions whose output they normalise.

    Modules, their hooks and what they return stay as they are, but for rounding and for the convolutions in question,
    which return what the batch norm made of it. Afterwards every weight is the one that it was. Nothing may read or
    write weights meanwhile.

    Args:
        net: Holds the convolutions.
        run: Takes a picture through the net as it will be used. Only what it meets in evaluation mode is folded; a net
            that gives other answers folded, because it uses the output of a convolution twice, stays as it is.

    Yields:
        How many batch norms are folded.
    """
    restore: list[Callable[[], None]] = []
    try:
        with torch.no_grad():
            pairs = _pairs(net, run)
            expected = run()
            restore.extend(_fold(conv, norm) for conv, norm in pairs)
            if (run() - expected).abs().max() > _CLOSE * expected.abs().max():
                _undo(restore)
        yield len(restore)
    finally:
        _undo(restore)


def _pairs(net: nn.Module, run: Callable[[], Tensor]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions, and the batch norm that gets what each of them returns."""
    came_from: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # tensors are kept, so that no other gets the same id
    calls: dict[nn.Module, int] = {}
    found: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def seen(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            came_from[id(out)] = (out, module)
        elif isinstance(module, nn.BatchNorm2d) and id(args[0]) in came_from:
            found[came_from[id(args[0])][1]] = module

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [module.register_forward_hook(seen) for module in net.modules() if isinstance(module, kinds)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    once = [(conv, norm) for conv, norm in found.items() if calls[conv] == calls[norm] == 1]
    return [(conv, norm) for conv, norm in once if _is_linear(norm) and "weight" in conv._parameters]


def _is_linear(norm: nn.BatchNorm2d) -> bool:
    """Whether a batch norm has fixed statistics, and nothing behind them but an activation that can be called alone."""
    from timm.layers.norm_act import BatchNormAct2d

    return type(norm) in (nn.BatchNorm2d, BatchNormAct2d) and not norm.training and norm.running_mean is not None


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Callable[[], None]:
    """Fold a batch norm into a convolution; returns what takes it out again."""
    weight, bias, mean, var = conv.weight, conv.bias, norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, norm.weight, norm.bias)
    activation: Callable[[Tensor], Tensor] = getattr(norm, "act", _nothing)
    norm.forward = lambda input: activation(input)  # type: ignore[method-assign]  # a module itself would become a child

    def undo() -> None:
        conv.weight, conv.bias = weight, bias
        del norm.forward

    return undo


def _nothing(x: Tensor) -> Tensor:
    return x


def _undo(restore: list[Callable[[], None]]) -> None:
    while restore:
        restore.pop()()
