"""Attention over the cells of all frames of a clip: jointly, or over time and then over space.

Paper: Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021.
    https://arxiv.org/abs/2102.05095
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, scaled_dot_product_attention

from temporal_attn.attention.fused import attend, scores_of, weights_of
from temporal_attn.temporal.positions import RotaryTime

__all__ = ["FactorisedSpaceTime", "JointSpaceTime", "SpaceAttention", "TimeAttention"]


class JointSpaceTime(nn.Module):
    """Every cell of every frame attends to every cell of every real frame; starts as the identity.

    Paper: Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021
        (joint space-time). https://arxiv.org/abs/2102.05095

    Equation: y = x + W_o Attention(LN(x)) over all T·h·w cells, queries and keys rotated by their frame's seconds;
        W_o = 0 at the start.

    Place: on small maps of the last stage: cost grows with (T·h·w)², memory with T·h·w.

    Args:
        channels: C of the maps.
        heads: Number of heads; C must divide by it into heads of even width.
        min_period: Shortest rotation period of `RotaryTime`, in seconds.
        max_period: Longest rotation period, in seconds.

    Shape:
        x (B, T, C, h, w), mask (B, T) bool with True = real frame, pts (B, T) seconds; output as x. Padding passes as
        it is. Weights (B, heads, T, T): how much the cells of a frame (row) take from each frame, on average; rows sum
        to 1 over real frames, those of padding are 0.

    Raises:
        ValueError: heads does not divide the channels into even widths, or the periods are not 0 < min < max.
    """

    attention_axes = "frames"

    def __init__(self, channels: int, heads: int = 4, min_period: float = 0.2, max_period: float = 100.0) -> None:
        super().__init__()
        self.attention = _Attention(channels, heads, RotaryTime(_width(channels, heads), min_period, max_period))

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Attended clips (B, T, C, h, w)."""
        return _add(x, self.attention(*self._sequence(x, mask, pts)).view(*x.shape[:2], -1, x.shape[2]), mask)

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        """Weights (B, heads, T, T) between frames; fused like the forward pass, so no weight of a cell is formed."""
        x, mask, pts = inputs
        batch, frames = mask.shape
        tokens, visible, seconds = self._sequence(x, mask, pts)
        full = torch.promote_types(x.dtype, torch.float32)
        q, k, _ = (part.to(full) for part in self.attention.project(tokens, seconds))
        # The mask as one more product: queries have 1 where padded keys have what no score can outweigh.
        barred = (~visible).to(full)[:, None, :, None].expand(-1, q.shape[1], -1, 1)
        q = torch.cat((q, torch.ones_like(barred)), -1)
        k = torch.cat((k, barred * -1e30), -1)
        # Values that name their frame add up to the weight of each frame.
        frame = one_hot(torch.arange(frames, device=x.device).repeat_interleave(tokens.shape[1] // frames), frames)
        mixed = attend(q, k, frame.to(full).expand(*q.shape[:2], -1, -1))
        return mixed.view(batch, q.shape[1], frames, -1, frames).mean(3) * mask.view(batch, 1, frames, 1)

    @staticmethod
    def _sequence(x: Tensor, mask: Tensor, pts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = _tokens(x, mask).flatten(1, 2)
        cells = tokens.shape[1] // mask.shape[1]
        return tokens, _visible(mask).repeat_interleave(cells, 1), _seconds(pts, mask).repeat_interleave(cells, 1)


class TimeAttention(nn.Module):
    """Each cell attends to the same cell in all real frames; starts as the identity.

    Paper: Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021
        (the temporal half of divided attention). https://arxiv.org/abs/2102.05095

    Equation: y = x + W_o Attention(LN(x)) over the T frames of each cell, queries and keys rotated by their frame's
        seconds; W_o = 0 at the start.

    Place: as `FactorisedSpaceTime`.

    Args:
        channels: C of the maps.
        heads: Number of heads; C must divide by it into heads of even width.
        min_period: Shortest rotation period of `RotaryTime`, in seconds.
        max_period: Longest rotation period, in seconds.

    Shape:
        x (B, T, C, h, w), mask (B, T) bool with True = real frame, pts (B, T) seconds; output as x. Padding passes as
        it is. Weights (B, heads, T, T), the mean over cells; rows sum to 1 over real frames, those of padding are 0.

    Raises:
        ValueError: heads does not divide the channels into even widths, or the periods are not 0 < min < max.
    """

    attention_axes = "frames"

    def __init__(self, channels: int, heads: int = 4, min_period: float = 0.2, max_period: float = 100.0) -> None:
        super().__init__()
        self.attention = _Attention(channels, heads, RotaryTime(_width(channels, heads), min_period, max_period))

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Attended clips (B, T, C, h, w)."""
        added = self.attention(*self._sequences(x, mask, pts))
        return _add(x, added.view(x.shape[0], -1, *x.shape[1:3]).transpose(1, 2), mask)

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        """Weights (B, heads, T, T) between frames, the mean over cells."""
        x, mask, pts = inputs
        tokens, visible, seconds = self._sequences(x, mask, pts)
        q, k, _ = self.attention.project(tokens, seconds)
        weights = scores_of(q, k).masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)
        return weights.view(x.shape[0], -1, *weights.shape[1:]).mean(1) * mask[:, None, :, None]

    @staticmethod
    def _sequences(x: Tensor, mask: Tensor, pts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = _tokens(x, mask).transpose(1, 2).flatten(0, 1)
        cells = tokens.shape[0] // mask.shape[0]
        return tokens, _visible(mask).repeat_interleave(cells, 0), _seconds(pts, mask).repeat_interleave(cells, 0)


class SpaceAttention(nn.Module):
    """Each cell attends to all cells of its own frame; starts as the identity.

    Paper: Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021
        (the spatial half of divided attention). https://arxiv.org/abs/2102.05095

    Equation: y = x + W_o Attention(LN(x)) over the h·w cells of each frame; W_o = 0 at the start.

    Place: as `FactorisedSpaceTime`.

    Args:
        channels: C of the maps.
        heads: Number of heads; C must divide by it.

    Shape:
        x (B, T, C, h, w), mask (B, T) bool with True = real frame; output as x. Padding passes as it is. Weights
        (B, T, heads, h·w, h·w); those of padding are 0.

    Raises:
        ValueError: heads does not divide the channels.
    """

    attention_axes = "places"

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = _Attention(channels, heads)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attended clips (B, T, C, h, w)."""
        return _add(x, self.attention(_tokens(x, mask).flatten(0, 1)).view(*x.shape[:2], -1, x.shape[2]), mask)

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        """Weights (B, T, heads, queries, keys) over the cells of each frame."""
        x, mask = inputs
        q, k, _ = self.attention.project(_tokens(x, mask).flatten(0, 1))
        weights = weights_of(q, k)
        return weights.view(*mask.shape, *weights.shape[1:]) * mask[..., None, None, None]


class FactorisedSpaceTime(nn.Module):
    """Attention over time for each cell, then over space for each frame; starts as the identity.

    Paper: Bertasius, Wang and Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021
        (divided attention). https://arxiv.org/abs/2102.05095

    Equation: x' = x + W_t Attention_T(LN(x));  y = x' + W_s Attention_{h·w}(LN(x')), with W_t = W_s = 0 at the start.

    Place: after a stage whose maps are too large for `JointSpaceTime`: cost grows with T·h·w·(T + h·w).

    Args:
        channels: C of the maps.
        heads: Number of heads of both halves; C must divide by it into heads of even width.
        min_period: Shortest rotation period of `RotaryTime`, in seconds.
        max_period: Longest rotation period, in seconds.

    Shape:
        x (B, T, C, h, w), mask (B, T) bool with True = real frame, pts (B, T) seconds; output as x. Padding passes as
        it is. Weights: those of `TimeAttention` and `SpaceAttention`.

    Raises:
        ValueError: heads does not divide the channels into even widths, or the periods are not 0 < min < max.
    """

    def __init__(self, channels: int, heads: int = 4, min_period: float = 0.2, max_period: float = 100.0) -> None:
        super().__init__()
        self.time = TimeAttention(channels, heads, min_period, max_period)
        self.space = SpaceAttention(channels, heads)

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Attended clips (B, T, C, h, w)."""
        out: Tensor = self.space(self.time(x, mask, pts), mask)
        return out


class _Attention(nn.Module):
    """Multi-head attention over normalised tokens (S, L, C), before it is added to them."""

    def __init__(self, channels: int, heads: int, rotary: RotaryTime | None = None) -> None:
        super().__init__()
        self.width = _width(channels, heads)
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.rotary = rotary
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def project(self, tokens: Tensor, seconds: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values (S, heads, L, width)."""
        projected = self.query_key_value(self.norm(tokens)).view(*tokens.shape[:2], 3, self.heads, self.width)
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        if self.rotary is not None and seconds is not None:
            angles = self.rotary.angles(seconds)
            q, k = self.rotary(q, angles), self.rotary(k, angles)
        return q * self.width**-0.5, k, v

    def forward(self, tokens: Tensor, visible: Tensor | None = None, seconds: Tensor | None = None) -> Tensor:
        q, k, v = self.project(tokens, seconds)
        seen = None if visible is None else visible[:, None, None]
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _width(channels: int, heads: int) -> int:
    if heads < 1 or channels % heads:
        raise ValueError(f"heads={heads} does not divide channels={channels}; choose a divisor of it")
    return channels // heads


def _tokens(x: Tensor, mask: Tensor) -> Tensor:
    """Cells (B, T, h·w, C) of a clip, zero on padding: what stands there may be NaN, and NaN · 0 is NaN."""
    return x.masked_fill(~mask[..., None, None, None], 0).flatten(3).transpose(2, 3)


def _seconds(pts: Tensor, mask: Tensor) -> Tensor:
    return pts.masked_fill(~mask, 0)


def _visible(mask: Tensor) -> Tensor:
    """Frames that may be attended to. A clip of padding alone sees all of its zeros; what comes of it is dropped."""
    return mask | ~mask.any(1, keepdim=True)


def _add(x: Tensor, added: Tensor, mask: Tensor) -> Tensor:
    """Add (B, T, h·w, C) to the real frames of a clip (B, T, C, h, w)."""
    return x + added.masked_fill(~mask[..., None, None], 0).transpose(2, 3).reshape(x.shape).to(x.dtype)
