"""From frame tokens to a clip feature: blocks of self-attention, a normalisation, and a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.temporal.pooling import AttentionPool, MeanPool

__all__ = ["TEMPORAL", "TemporalEncoder", "build", "names"]


class TemporalEncoder(nn.Module):
    """Optional self-attention blocks, LayerNorm, pool.

    Args:
        dim: D of the tokens.
        pool: Maps (B, T, D) and mask (B, T) to (B, D) and weights (B, T).
        blocks: Map (B, T, D), mask, pts to (B, T, D); none of them leaves a frame-wise model.

    Shape:
        tokens (B, T, D), mask (B, T) bool, pts (B, T) seconds; output (B, D) and weights (B, T).
    """

    def __init__(self, dim: int, pool: nn.Module, blocks: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.pool = pool

    def forward(self, tokens: Tensor, mask: Tensor, pts: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights; what stands in padding has no influence."""
        # Padding may hold anything, NaN included, and 0 · NaN is NaN: replace it, do not multiply it.
        tokens = torch.where(mask[..., None], tokens, 0)
        # Only differences of seconds matter. Counted from the first frame, small ones stay precise.
        pts = pts if pts.is_floating_point() else pts.float()
        start = pts.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
        pts = torch.where(mask, pts - start, 0).float()
        for block in self.blocks:
            tokens = block(tokens, mask, pts)
        feature, weights = self.pool(self.norm(tokens), mask)
        return feature, weights


class Recipe(NamedTuple):
    """What a temporal model is made of.

    Args:
        self_attention: Whether frames attend to frames before they are pooled.
        attention_pool: Whether the pool learns weights; otherwise it is the mean.
    """

    self_attention: bool
    attention_pool: bool


TEMPORAL = {
    "mean": Recipe(self_attention=False, attention_pool=False),
    "attention_pool": Recipe(self_attention=False, attention_pool=True),
    "transformer": Recipe(self_attention=True, attention_pool=True),
}


def names() -> list[str]:
    """Names that `build` knows."""
    return list(TEMPORAL)


def build(
    name: str,
    dim: int,
    heads: int = 8,
    depth: int = 2,
    mlp_ratio: float = 2.0,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> TemporalEncoder:
    """Make a temporal encoder by name.

    Args:
        name: ``mean`` (TSN), ``attention_pool`` (no mixing between frames) or ``transformer`` (self-attention blocks
            with rotary time, then attention pooling).
        dim: D of the tokens.
        heads: Attention heads.
        depth: Number of self-attention blocks.
        mlp_ratio: Width of each block's MLP over D.
        dropout: In the blocks.
        drop_path: Stochastic depth of the last block.

    Raises:
        ValueError: The name is not known, or heads does not divide dim.
    """
    if name not in TEMPORAL:
        raise ValueError(f"temporal model {name!r} is not known; choose one of: {', '.join(TEMPORAL)}")
    recipe = TEMPORAL[name]
    pool = AttentionPool(dim, heads) if recipe.attention_pool else MeanPool()
    # Deeper blocks are dropped more often, linearly (Huang et al., "Deep Networks with Stochastic Depth").
    rates = [drop_path * (i + 1) / depth for i in range(depth)] if recipe.self_attention else []
    return TemporalEncoder(dim, pool, [SelfAttentionBlock(dim, heads, mlp_ratio, dropout, rate) for rate in rates])
