"""Rotary positions on seconds: attention between two frames depends on the time between them, not on their index.

Paper: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    https://arxiv.org/abs/2104.09864
Equation: q_t → R(ω t) q_t, k_s → R(ω s) k_s, so that ⟨q_t, k_s⟩ depends on t − s only; here t is in seconds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["RotaryTime"]


class RotaryTime(nn.Module):
    """Rotates queries and keys by angles proportional to their frames' seconds.

    Args:
        head_dim: Width of one head, even.
        min_period: Shortest period of a rotation, in seconds.
        max_period: Longest period, in seconds; events further apart than this are hard to tell from nearer ones.

    Shape:
        x (B, heads, T, head_dim), pts (B, T) in seconds; output as x.

    Raises:
        ValueError: head_dim is odd, or the periods are not 0 < min < max.
    """

    frequency: Tensor

    def __init__(self, head_dim: int, min_period: float = 0.2, max_period: float = 100.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, got {head_dim}")
        if not 0 < min_period < max_period:
            raise ValueError(f"periods must be 0 < min < max, got {min_period} and {max_period} s")
        periods = torch.logspace(math.log10(min_period), math.log10(max_period), head_dim // 2, dtype=torch.float64)
        self.register_buffer("frequency", (2 * math.pi / periods).float(), persistent=False)

    def angles(self, pts: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B, 1, T, head_dim / 2), of frames at ``pts`` (B, T) seconds."""
        phase = pts.float()[:, None, :, None] * self.frequency
        return phase.cos(), phase.sin()

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Rotate x (B, heads, T, head_dim) by `angles`."""
        cos, sin = (part.to(x.dtype) for part in angles)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
