"""Attention by name: those of this package, those that other packages register, and any class by its path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import nn

from temporal_attn.attention.branch import SelectiveKernel, SplitAttention
from temporal_attn.attention.cbam import CBAM
from temporal_attn.attention.channel import ECA, SE, ChannelGate
from temporal_attn.attention.context import GlobalContext
from temporal_attn.attention.coordinate import CoordAttention
from temporal_attn.attention.dual import DualAttention, DualChannelAttention, DualPositionAttention
from temporal_attn.attention.mixed import BAM, SCSE
from temporal_attn.attention.non_local import NonLocal
from temporal_attn.attention.pyramid import ASPP, PFA
from temporal_attn.attention.query import QueryKeyValue
from temporal_attn.attention.second_order import SOCA
from temporal_attn.attention.spatial import CBAMSpatialGate, Conv1x1Gate
from temporal_attn.attention.stn import SpatialTransformer

__all__ = ["ENTRY_POINTS", "build", "find", "names"]

ENTRY_POINTS = "temporal_attn.attention"
"""Group of entry points by which an installed package adds mechanisms: name = "module:Class"."""

_REGISTRY: dict[str, Callable[..., nn.Module]] = {
    # channels
    "se": SE,
    "eca": ECA,
    "soca": SOCA,
    "coord": CoordAttention,
    "gc": GlobalContext,
    "channel_gate": ChannelGate,
    # places
    "conv1x1": Conv1x1Gate,
    "cbam_spatial": CBAMSpatialGate,
    "stn": SpatialTransformer,
    # both
    "bam": BAM,
    "scse": SCSE,
    "cbam": CBAM,
    # self-attention on maps
    "nonlocal": NonLocal,
    "position_attention": DualPositionAttention,
    "channel_attention": DualChannelAttention,
    "danet": DualAttention,
    "qkv": QueryKeyValue,
    # branches
    "sk": SelectiveKernel,
    "split": SplitAttention,
    # scales
    "aspp": ASPP,
    "pfa": PFA,
}


def names() -> list[str]:
    """Names of the mechanisms that map (B, C, H, W) to the same shape, those of installed packages included."""
    return sorted({*_REGISTRY, *_registered_elsewhere()})


def find(name: str) -> Callable[..., nn.Module]:
    """Class of a mechanism.

    Args:
        name: One of `names`, or the path of a class: ``package.module.Class`` or ``package.module:Class``. Names of
            this package come first: another package cannot take them.

    Raises:
        ValueError: Nothing has that name, what has it cannot be imported, or it is not a class of modules.
    """
    if not isinstance(name, str):
        raise ValueError(f"attention {name!r} must be a name, or the path of a class as a string")
    if name in _REGISTRY:
        return _REGISTRY[name]
    point = _registered_elsewhere().get(name)
    if point is None:
        module, _, attribute = name.rpartition(":" if ":" in name else ".")
        if not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
            raise ValueError(
                f"attention {name!r} is not known; choose one of: {', '.join(names())}; or give the path of a class"
            )
        point = EntryPoint(name, f"{module}:{attribute}", ENTRY_POINTS)
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"attention {name!r} cannot be imported from {point.value!r}: {error}") from None
    # A path may come with a checkpoint: what is called has to be a layer, not any function of any package.
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"attention {name!r} must be a class of torch.nn.Module, but {point.value!r} is {found!r}")
    return found


def build(name: str, channels: int, gate: str | None = None, **options: Any) -> nn.Module:  # noqa: ANN401
    """Make an attention module by name.

    Args:
        name: One of `names`, or the path of a class ``package.module.Class`` whose first argument is the channels.
        channels: C of the maps.
        gate: See `gates`. None leaves it to the class: those of this package have the form of the paper, and classes of
            other packages may know no gate.
        options: Further arguments of the class; those with a bottleneck take ``reduction``.

    Raises:
        ValueError: The name is not known, or the class does not take an option or its value.

    Example:
        >>> build("cbam", 64, reduction=8, gate="identity").channel.down.out_channels
        8
    """
    make = find(name)
    if gate is not None:
        options["gate"] = gate
    signature = inspect.signature(make)
    try:
        signature.bind(channels, **options)
    except TypeError as error:
        known = list(signature.parameters)[1:]
        no_gate = "gate" in options and "gate" not in known
        reason = "it knows no gate, so insert it with gate=None (attention_gate: null)" if no_gate else error
        raise ValueError(f"attention {name!r}: {reason}; it takes: {', '.join(known)}") from None
    try:
        return make(channels, **options)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        # What a class says of options of the wrong type or range that it does not look at itself.
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"attention {name!r}: {reason} ({channels} channels, options: {given or 'none'})") from error


@cache
def _registered_elsewhere() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
