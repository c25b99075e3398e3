"""Attention by name: those of this package, those that other packages register, and any class by its path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from temporal_attn.attention.cbam import CBAM

__all__ = ["ENTRY_POINTS", "build", "find", "names"]

ENTRY_POINTS = "temporal_attn.attention"
"""Group of entry points by which an installed package adds mechanisms: name = "module:Class"."""

_REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "cbam": CBAM,
}


def names() -> list[str]:
    """Names of the mechanisms that map (B, C, H, W) to the same shape, those of installed packages included."""
    return sorted({*_REGISTRY, *_registered_elsewhere()})


def find(name: str) -> Callable[..., nn.Module]:
    """Class of a mechanism.

    Args:
        name: One of `names`, or the path of a class: ``package.module.Class``.

    Raises:
        ValueError: Nothing has that name, or what has it cannot be imported.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    elsewhere = _registered_elsewhere()
    path = elsewhere.get(name, name)
    module, _, attribute = path.replace(":", ".").rpartition(".")
    if not module:
        raise ValueError(
            f"attention {name!r} is not known; choose one of: {', '.join(names())}; or give the path of a class"
        )
    try:
        found: Callable[..., nn.Module] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"attention {name!r} cannot be imported from {path!r}: {error}") from None
    return found


def build(name: str, channels: int, **options: Any) -> nn.Module:  # noqa: ANN401
    """Make an attention module by name.

    Args:
        name: One of `names`, or the path of a class ``package.module.Class`` whose first argument is the channels.
        channels: C of the maps.
        options: Further arguments of the class; every class of this package takes ``gate``, whose default there is the
            form of the paper, and those with a bottleneck take ``reduction``.

    Raises:
        ValueError: The name is not known, or the class does not take an option or its value.

    Example:
        >>> build("cbam", 64, reduction=8, gate="identity").channel.down.out_channels
        8
    """
    make = find(name)
    signature = inspect.signature(make)
    try:
        signature.bind(channels, **options)
    except TypeError as error:
        known = ", ".join(list(signature.parameters)[1:])
        raise ValueError(f"attention {name!r}: {error}; it takes: {known}") from None
    return make(channels, **options)


@cache
def _registered_elsewhere() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
