"""Pooling of frame tokens into one clip feature, with the weight of every frame.

Nothing non-linear follows a pool, so the clip's logits are a weighted sum over frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["AttentionPool", "MeanPool"]


class MeanPool(nn.Module):
    """Masked mean over frames: temporal segment networks' consensus.

    Paper: Wang et al., "Temporal Segment Networks", ECCV 2016. https://arxiv.org/abs/1608.00859
    Equation: z = Σ_t m_t f_t / Σ_t m_t.

    Shape:
        x (B, T, D), mask (B, T) bool; output (B, D) and weights (B, T) that sum to 1 (0 for a clip without frames).
    """

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights."""
        real = mask.to(x.dtype)
        weights = real / real.sum(1, keepdim=True).clamp(min=1)
        return torch.einsum("bt,btd->bd", weights, x), weights


class AttentionPool(nn.Module):
    """Multi-head attention pooling with one learned query a head.

    Paper: the pooling by multi-head attention of Lee et al., "Set Transformer", ICML 2019, with one seed and no MLP.
        https://arxiv.org/abs/1810.00825
    Equation: e_ht = q_hᵀ W_k,h f_t / √d_h;  w_h = softmax over real frames;  z = W_o concat_h Σ_t w_ht W_v,h f_t.

    Queries start at zero and the value and output maps at the identity: at the start this is `MeanPool`.

    Args:
        dim: D of the tokens.
        heads: Number of heads; D must divide by it.

    Shape:
        x (B, T, D), mask (B, T) bool; output (B, D) and weights (B, T), the mean over heads, which sum to 1 (0 for a
        clip without frames).

    Raises:
        ValueError: heads does not divide dim.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(heads, dim // heads))
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        for linear in (self.value, self.out):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def head_weights(self, x: Tensor, mask: Tensor) -> Tensor:
        """Weights (B, heads, T) of every head; float32, because a softmax over close scores needs it."""
        batch, frames, dim = x.shape
        keys = self.key(x).view(batch, frames, self.heads, dim // self.heads).float()
        # A product and a sum: autocast would run an einsum of the same in half precision.
        scores = (keys * self.query.float()).sum(-1).transpose(1, 2) * (dim // self.heads) ** -0.5
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights: Tensor = scores.softmax(-1) * mask[:, None]
        return weights

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights."""
        batch, frames, dim = x.shape
        weights = self.head_weights(x, mask)
        values = self.value(x).view(batch, frames, self.heads, dim // self.heads)
        pooled = torch.einsum("bht,bthd->bhd", weights.to(values.dtype), values).reshape(batch, dim)
        out: Tensor = self.out(pooled)
        return out, weights.mean(1)
