"""What tests of attention share: maps to feed, weights as after training, instances small enough to try everything."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from temporal_attn.attention import build
from temporal_attn.attention.registry import find


def maps(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal maps, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomise(module: nn.Module, seed: int = 0, scale: float = 0.5) -> nn.Module:
    """Parameters and statistics as after some training: nothing stays at a special value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module


def tiny(name: str, channels: int = 16, gate: str | None = None) -> nn.Module:
    """A mechanism by name with few parameters, always the same ones; without a gate, that of its paper."""
    known = inspect.signature(find(name)).parameters
    options: dict[str, int | str] = {}
    if "reduction" in known:
        options["reduction"] = 2
    if gate is not None:
        options["gate"] = gate
    torch.manual_seed(0)
    return build(name, channels, **options)
