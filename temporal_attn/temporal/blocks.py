"""A pre-norm self-attention block over frame tokens that starts as the identity.

Paper: Vaswani et al., "Attention Is All You Need", NIPS 2017. https://arxiv.org/abs/1706.03762, with the
normalisation before each branch (Xiong et al., ICML 2020. https://arxiv.org/abs/2002.04745).
Equation: x ← x + W_o Attention(LN(x));  x ← x + MLP(LN(x)), with W_o and the MLP's last layer zero at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from temporal_attn.attention.fused import scores_of
from temporal_attn.temporal.directions import check_direction, visible_frames
from temporal_attn.temporal.drop_path import DropPath
from temporal_attn.temporal.positions import POSITIONS, LearnedPosition, RelativeTime, RotaryTime, SinusoidalTime
from temporal_attn.temporal.timeline import time_rank

__all__ = ["SelfAttentionBlock", "mlp_width"]


class SelfAttentionBlock(nn.Module):
    """Frames attend to frames; padding is never attended to.

    Time enters in one of three places: rotary positions turn queries and keys, sinusoidal and learned ones are added to
    what queries and keys are made from (as in Carion et al., "DETR", ECCV 2020: values say what was seen and not when),
    and relative ones bias the scores.

    Args:
        dim: D of the tokens.
        heads: Number of heads; D must divide by it.
        mlp_ratio: Width of the MLP over D.
        dropout: On both branches' outputs.
        drop_path: Probability to skip a branch for a whole clip in training (stochastic depth).
        min_period: Shortest period of positions on seconds.
        max_period: Longest period of positions on seconds.
        position: One of `POSITIONS`.
        direction: ``bidirectional``, ``causal`` or ``split``, see `visible_frames`.
        window: Frames within reach, see `visible_frames`.
        max_frames: Length of the table of learned positions.

    Shape:
        x (B, T, D), mask (B, T) bool with True = real frame, pts (B, T) seconds; output (B, T, D). Weights, by
        `attention_maps`: (B, heads, T, T), rows are queries and sum to 1 over the frames that they see; those of
        padding are 0.

    Raises:
        ValueError: heads does not divide dim, or a name or number is not one that is known here.
    """

    attention_axes = "frames"

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        min_period: float = 0.2,
        max_period: float = 100.0,
        position: str = "rotary",
        direction: str = "bidirectional",
        window: int | None = None,
        max_frames: int = 64,
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        if position not in POSITIONS:
            raise ValueError(f"position {position!r} is not known; choose one of: {', '.join(POSITIONS)}")
        check_direction(direction, window, heads)
        self.heads = heads
        self.position = position
        self.direction = direction
        self.window = window
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        if position == "rotary":
            self.rotary = RotaryTime(dim // heads, min_period, max_period)
        elif position == "sinusoidal":
            self.sinusoidal = SinusoidalTime(dim, min_period, max_period)
        elif position == "learned":
            self.learned = LearnedPosition(dim, max_frames)
        elif position == "relative":
            self.relative = RelativeTime(heads, min_period, max_period)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = mlp_width(dim, mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        for last in (self.out, self.mlp[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Tokens (B, T, D) after one round of attention."""
        q, k, v = self.project(x, mask, pts)
        seen = visible_frames(mask, pts, self.direction, self.window, self.heads)
        return self.finish(x, scaled_dot_product_attention(q, k, v, attn_mask=self.biased(seen, pts, pts, q.dtype)))

    def project(self, x: Tensor, mask: Tensor, pts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, D / heads), of tokens (B, T, D)."""
        batch, frames, dim = x.shape
        projected = self.qkv(self.norm1(x))
        if self.position in ("sinusoidal", "learned"):
            when = self.sinusoidal(pts) if self.position == "sinusoidal" else self.learned(time_rank(pts, mask), mask)
            moved = linear(when.to(x.dtype), self.qkv.weight[: 2 * dim])
            projected = projected + pad(moved, (0, dim))
        q, k, v = projected.view(batch, frames, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        if self.position == "rotary":
            angles = self.rotary.angles(pts)
            q, k = self.rotary(q, angles), self.rotary(k, angles)
        return q, k, v

    def biased(self, seen: Tensor, queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
        """What joins the scores: which keys are seen, and with relative positions a bias.

        Args:
            seen: Bool that broadcasts to (B, heads, T, S), True = visible.
            queries: (B, T) seconds.
            keys: (B, S) seconds.
            dtype: Of the scores.
        """
        if self.position != "relative":
            return seen
        bias: Tensor = self.relative(queries, keys).to(dtype)
        return bias.masked_fill(~seen, -torch.inf)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add what attention made, (B, heads, T, D / heads), and then the MLP, to tokens (B, T, D)."""
        x = x + self.drop_path(self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))
        out: Tensor = x + self.drop_path(self.dropout(self.mlp(self.norm2(x))))
        return out

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor | None = None) -> Tensor:
        """Weights (B, heads, T, T) that the fused attention uses and never forms, in float32 at least.

        Args:
            inputs: x, mask and pts of a forward pass.
            _output: Its result, which is not needed.
        """
        x, mask, pts = inputs
        q, k, _ = self.project(x, mask, pts)
        scores = scores_of(q, k) * q.shape[-1] ** -0.5
        seen = visible_frames(mask, pts, self.direction, self.window, self.heads)
        if self.position == "relative":
            scores = scores + self.relative(pts, pts).to(scores.dtype)
        weights: Tensor = scores.masked_fill(~seen, -torch.inf).softmax(-1) * mask[:, None, :, None]
        return weights


def mlp_width(dim: int, ratio: float) -> int:
    """Hidden width of an MLP on tokens of width ``dim``.

    Raises:
        ValueError: It would be nothing.
    """
    width = int(dim * ratio)
    if width < 1:
        raise ValueError(f"mlp_ratio={ratio} leaves nothing of dim={dim}")
    return width
