"""Read the weights that attention used, in one way for every mechanism, for pictures and for losses.

A module shows its weights by a method ``attention_weights(inputs, output)``, which gets what its forward pass took and
gave. So mechanisms that never form their weights in the forward pass (fused attention) make them only when somebody
looks, and modules of other packages join by having the method.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from torch import Tensor, nn

from temporal_attn.attention.compiled import run_uncompiled, uncompiled

__all__ = ["ShowsWeights", "attention_maps", "record_attention"]


class ShowsWeights(Protocol):
    """A module whose weights can be read."""

    def attention_weights(self, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Weights of one forward pass.

        Args:
            inputs: Arguments of the forward pass in the order of its signature, also those that were given by name.
            output: Its result.
        """
        ...


@contextmanager
def record_attention(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the weights of whatever passes through a net.

    Gradients flow through them, so that a loss may ask for sparse or smooth attention; wrap the pass in
    ``torch.no_grad()`` for pictures.

    Args:
        net: A net with attention, or an attention module itself. Where it is compiled, it runs uncompiled meanwhile,
            because compiled code has no place to listen at. Where it recomputes activations (gradient checkpointing),
            the backward pass belongs inside too.

    Yields:
        Name of each module to its weights, filled by every forward pass; the last pass counts.

    Example:
        >>> with record_attention(net) as maps:  # doctest: +SKIP
        ...     loss = cross_entropy(net(x), y) + 0.01 * sum(weight.mean() for weight in maps.values())
    """
    maps: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
            maps[name] = cast(ShowsWeights, module).attention_weights(_in_order(module, inputs, named), output)

        return hook

    handles = [
        module.register_forward_hook(listen(name.replace("_orig_mod.", "")), with_kwargs=True)
        for name, module in uncompiled(net).named_modules()
        if hasattr(module, "attention_weights")
    ]
    try:
        with run_uncompiled():
            yield maps
    finally:
        for handle in handles:
            handle.remove()


def attention_maps(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Weights that a net's attention uses on an input.

    Args:
        net: A net with attention, or an attention module itself.
        x: (B, 3, H, W) images for a net, (B, C, H, W) maps for a module.

    Returns:
        Name of the module that made them to its weights: (B, C, 1, 1) for channels, (B, 1, h, w) for places, (B, heads,
        queries, keys) for self-attention; each mechanism says its own.
    """
    with record_attention(net) as maps:
        net(x)
    return maps


def _in_order(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Arguments of a forward pass by place, however they were given."""
    if not named:
        return inputs
    arguments = inspect.signature(module.forward).bind(*inputs, **named)
    arguments.apply_defaults()  # those between two given ones have a place too
    return arguments.args
