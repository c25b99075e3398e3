"""From frame tokens to a clip feature: blocks over time, a normalisation, and a pool; all of them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.temporal.convolution import ConvolutionBlock
from temporal_attn.temporal.drop_path import drop_path_rates
from temporal_attn.temporal.gating import FrameGate, SqueezeExcitation
from temporal_attn.temporal.pooling import (
    AttentionPool,
    ClassTokenPool,
    GatedPool,
    MaxPool,
    MeanPool,
    PowerMeanPool,
)
from temporal_attn.temporal.recurrent import RecurrentBlock
from temporal_attn.temporal.timeline import count_seconds

__all__ = ["POOLS", "TEMPORAL", "Size", "TemporalEncoder", "build", "names", "options"]


class TemporalEncoder(nn.Module):
    """Optional blocks over time, a normalisation, pool.

    Args:
        dim: D of the tokens.
        pool: Maps (B, T, D) and mask (B, T) to (B, D) and weights (B, T).
        blocks: Map (B, T, D), mask, pts to (B, T, D); none of them leaves a frame-wise model.
        norm: Of the tokens that are pooled; None is a LayerNorm.

    Shape:
        tokens (B, T, D), mask (B, T) bool, pts (B, T) seconds; output (B, D) and weights (B, T).
    """

    def __init__(
        self, dim: int, pool: nn.Module, blocks: Sequence[nn.Module] = (), norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim) if norm is None else norm
        self.pool = pool

    def forward(self, tokens: Tensor, mask: Tensor, pts: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights; what stands in padding has no influence."""
        # Padding may hold anything, NaN included, and 0 · NaN is NaN: replace it, do not multiply it.
        tokens = torch.where(mask[..., None], tokens, 0)
        # Only differences of seconds matter. Counted from the first frame, small ones stay precise.
        pts = count_seconds(pts, mask)
        for block in self.blocks:
            tokens = block(tokens, mask, pts)
        feature, weights = self.pool(self.norm(tokens), mask)
        return feature, weights


class Size(NamedTuple):
    """What every temporal model is told; each takes what it has a use for.

    Args:
        dim: D of the tokens.
        heads: Attention heads.
        depth: Number of blocks.
        mlp_ratio: Width of a block's MLP over D.
        dropout: In the blocks.
        drop_path: Stochastic depth of the last block.
    """

    dim: int
    heads: int = 8
    depth: int = 2
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    drop_path: float = 0.0


POOLS: dict[str, Callable[[Size], nn.Module]] = {
    "mean": lambda size: MeanPool(),
    "max": lambda size: MaxPool(),
    "gated": lambda size: GatedPool(size.dim),
    "cls": lambda size: ClassTokenPool(size.dim, size.heads, size.mlp_ratio),
    "attention_pool": lambda size: AttentionPool(size.dim, size.heads),
    "frame_gate": lambda size: FrameGate(size.dim),
    "power_mean": lambda size: PowerMeanPool(size.dim),
}
"""Ways to pool by name."""


def _pooled(size: Size, pool: str, blocks: Sequence[nn.Module] = ()) -> TemporalEncoder:
    if pool not in POOLS:
        raise ValueError(f"pool {pool!r} is not known; choose one of: {', '.join(POOLS)}")
    return TemporalEncoder(size.dim, POOLS[pool](size), blocks)


def _power_mean(size: Size, *, power: float = 0.4) -> TemporalEncoder:
    # A LayerNorm of each frame would take away what says how strong a channel is.
    return TemporalEncoder(size.dim, PowerMeanPool(size.dim, power), norm=nn.Identity())


def _gated(size: Size, *, hidden: int = 128) -> TemporalEncoder:
    return TemporalEncoder(size.dim, GatedPool(size.dim, hidden))


def _squeeze_excitation(size: Size, *, pool: str = "mean", reduction: int = 16) -> TemporalEncoder:
    return _pooled(size, pool, [SqueezeExcitation(size.dim, reduction)])


def _transformer(
    size: Size,
    *,
    pool: str = "attention_pool",
    position: str = "rotary",
    direction: str = "bidirectional",
    window: int | None = None,
    min_period: float = 0.2,
    max_period: float = 100.0,
    max_frames: int = 64,
) -> TemporalEncoder:
    how = (min_period, max_period, position, direction, window, max_frames)
    rates = drop_path_rates(size.drop_path, size.depth)
    blocks = [SelfAttentionBlock(size.dim, size.heads, size.mlp_ratio, size.dropout, rate, *how) for rate in rates]
    return _pooled(size, pool, blocks)


def _gru(size: Size, *, pool: str = "mean", direction: str = "bidirectional") -> TemporalEncoder:
    rates = drop_path_rates(size.drop_path, size.depth)
    return _pooled(size, pool, [RecurrentBlock(size.dim, size.dropout, rate, direction) for rate in rates])


def _tcn(size: Size, *, pool: str = "mean", direction: str = "bidirectional", kernel_size: int = 3) -> TemporalEncoder:
    blocks = [
        ConvolutionBlock(size.dim, kernel_size, 2**level, size.dropout, rate, direction)
        for level, rate in enumerate(drop_path_rates(size.drop_path, size.depth))
    ]
    return _pooled(size, pool, blocks)


TEMPORAL: dict[str, Callable[..., TemporalEncoder]] = {
    # frames are pooled as they are
    "mean": lambda size: _pooled(size, "mean"),
    "max": lambda size: _pooled(size, "max"),
    "gated": _gated,
    "cls": lambda size: _pooled(size, "cls"),
    "attention_pool": lambda size: _pooled(size, "attention_pool"),
    "frame_gate": lambda size: _pooled(size, "frame_gate"),
    "power_mean": _power_mean,
    # frames see each other before they are pooled
    "squeeze_excitation": _squeeze_excitation,
    "transformer": _transformer,
    "gru": _gru,
    "tcn": _tcn,
}


def names() -> list[str]:
    """Names that `build` knows."""
    return list(TEMPORAL)


def options(name: str) -> dict[str, Any]:
    """Further options of a temporal model, with their defaults.

    Raises:
        ValueError: The name is not known.
    """
    parameters = list(inspect.signature(_find(name)).parameters.values())
    return {parameter.name: parameter.default for parameter in parameters[1:]}


def build(
    name: str,
    dim: int,
    heads: int = 8,
    depth: int = 2,
    mlp_ratio: float = 2.0,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    **chosen: Any,  # noqa: ANN401 - checked against `options`
) -> TemporalEncoder:
    """Make a temporal encoder by name.

    Args:
        name: One of `names`: ``mean`` (TSN), ``max``, ``gated``, ``cls``, ``attention_pool``, ``frame_gate`` and
            ``power_mean`` pool frames as they are; in ``squeeze_excitation``, ``transformer``, ``gru`` and ``tcn``
            they see each other first.
        dim: D of the tokens.
        heads: Attention heads.
        depth: Number of blocks.
        mlp_ratio: Width of a block's MLP over D.
        dropout: In the blocks.
        drop_path: Stochastic depth of the last block.
        chosen: Further options of that model, see `options`: ``pool`` (one of `POOLS`), ``position``, ``direction``,
            ``window``, ``min_period``, ``max_period`` and ``max_frames`` as in `SelfAttentionBlock`, ``hidden`` of
            `GatedPool`, ``power`` of `PowerMeanPool`, ``reduction`` of `SqueezeExcitation`, ``kernel_size`` of
            `ConvolutionBlock`.

    Raises:
        ValueError: The name or an option is not known, heads does not divide dim, or a value is out of range.

    Example:
        >>> build("transformer", 64, position="relative", direction="causal", window=16).blocks[0].window
        16
    """
    make, known = _find(name), options(name)
    for option, value in chosen.items():
        if option not in known:
            raise ValueError(
                f"temporal model {name!r} does not take the option {option!r}; it takes: {', '.join(known) or 'none'}"
            )
        _check_kind(option, value, known[option])
    return make(Size(dim, heads, depth, mlp_ratio, dropout, drop_path), **chosen)


def _check_kind(option: str, value: object, default: object) -> None:
    """Refuse a value of another kind than the default; YAML reads 1e-1 as text, and nothing converts what it read."""
    if isinstance(default, str):
        is_right, kind = isinstance(value, str), "a name"
    elif isinstance(default, float):
        is_right, kind = isinstance(value, int | float), "a number, written with a point"
    else:  # a count; None where there may be none
        is_right, kind = isinstance(value, int) or value is default is None, "a whole number"
    if not is_right or isinstance(value, bool):
        raise ValueError(f"option {option!r} of a temporal model is {value!r}; it has to be {kind}")


def _find(name: str) -> Callable[..., TemporalEncoder]:
    if name not in TEMPORAL:
        raise ValueError(f"temporal model {name!r} is not known; choose one of: {', '.join(TEMPORAL)}")
    return TEMPORAL[name]
