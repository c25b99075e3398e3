"""Attention inside one frame: modules that map (B, C, H, W) to the same shape.

`names` lists them, `build` makes one by name, `insert_attention` puts one into a backbone and `attention_maps` reads
the weights that they used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from temporal_attn.attention.cbam import CBAM
from temporal_attn.attention.gates import Gate
from temporal_attn.attention.insertion import attention_maps, insert_attention, remove_attention

__all__ = ["CBAM", "Gate", "attention_maps", "build", "insert_attention", "names", "remove_attention"]

_REGISTRY: dict[str, Callable[..., nn.Module]] = {"cbam": CBAM}


def names() -> list[str]:
    """Names that `build` knows."""
    return sorted(_REGISTRY)


def build(name: str, channels: int, gate: str = "sigmoid", options: Mapping[str, Any] | None = None) -> nn.Module:
    """Make an attention module by name.

    Args:
        name: One of `names`.
        channels: C of the maps.
        gate: How the weight enters, see `Gate`; the default is the paper's.
        options: Further arguments of the module's constructor.

    Raises:
        ValueError: The name is not known, or the module does not take an option.
    """
    if name not in _REGISTRY:
        raise ValueError(f"attention {name!r} is not known; choose one of: {', '.join(names())}")
    try:
        arguments = inspect.signature(_REGISTRY[name]).bind(channels, gate=gate, **(options or {}))
    except TypeError as error:
        raise ValueError(f"attention {name!r}: {error}") from None
    return _REGISTRY[name](*arguments.args, **arguments.kwargs)
