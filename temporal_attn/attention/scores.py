"""How well a query fits a key: the scores of query–key–value attention, by name.

Products go through one fused kernel with all that follows them; the additive score goes over blocks of queries.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from temporal_attn.attention.fused import attend, scores_of
from temporal_attn.attention.positions import Bias

__all__ = ["SCORES", "AdditiveScore", "CosineScore", "DotScore", "ScaledDotScore", "Score"]

ADDITIVE_BLOCK = 16
"""Queries at a time for which the additive score holds its (keys × width) sums in memory."""


class Score(Protocol):
    """How well each query fits each key, and what comes of it."""

    def __call__(self, q: Tensor, k: Tensor, bias: Bias | None) -> Tensor:
        """Scores (B, heads, N, M) of queries (B, heads, N, D) and keys (B, heads, M, D)."""
        ...

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias | None) -> Tensor:
        """All three stages at once: values (B, heads, M, E) mixed to (B, heads, N, E)."""
        ...


class DotScore(nn.Module):
    """⟨q, k⟩ (Luong, Pham and Manning, EMNLP 2015. https://arxiv.org/abs/1508.04025).

    Args:
        heads: Number of heads.
        width: D of one head.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = width

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose plain product is the score."""
        return q, k

    def forward(self, q: Tensor, k: Tensor, bias: Bias | None) -> Tensor:
        """Scores (B, heads, N, M)."""
        return scores_of(*self._with_bias(q, k, bias))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias | None) -> Tensor:
        """Mixed values (B, heads, N, E), fused."""
        return attend(*self._with_bias(q, k, bias), v)

    def _with_bias(self, q: Tensor, k: Tensor, bias: Bias | None) -> tuple[Tensor, Tensor]:
        dtype = q.dtype
        q, k = (part.to(dtype) for part in self.prepare(q, k))  # autocast takes norms, and what they divide, in float32
        if bias is None:
            return q, k
        # ⟨q, k⟩ + ⟨a, b⟩ = ⟨[q a], [k b]⟩: the bias needs no matrix of its own, and neither does its gradient.
        left, right = (factor.to(dtype).expand(*q.shape[:2], -1, -1) for factor in bias)
        return torch.cat((q, left), -1), torch.cat((k, right), -1)


class ScaledDotScore(DotScore):
    """⟨q, k⟩ / √D (Vaswani et al., NIPS 2017. https://arxiv.org/abs/1706.03762)."""

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose plain product is the score."""
        return q * self.width**-0.5, k


class CosineScore(DotScore):
    """τ cos(q, k) with a learned τ a head, 10 at the start and 100 at most.

    From Graves, Wayne and Danihelka, "Neural Turing Machines", 2014 (https://arxiv.org/abs/1410.5401); τ is kept as its
    logarithm and bounded as in Liu et al., "Swin Transformer V2", CVPR 2022 (https://arxiv.org/abs/2111.09883).
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__(heads, width)
        self.log_temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys whose plain product is the score."""
        temperature = self.log_temperature.clamp(max=math.log(100.0)).exp()
        return normalize(q, dim=-1) * temperature, normalize(k, dim=-1)


class AdditiveScore(nn.Module):
    """wᵀ tanh(q + k) (Bahdanau, Cho and Bengio, ICLR 2015. https://arxiv.org/abs/1409.0473).

    It is no product, so no fused kernel knows it. It goes over blocks of queries, and the backward pass makes each
    block again: time grows with N · M · D, memory with M · D.

    Args:
        heads: Number of heads.
        width: D of one head.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, 1, 1, width).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, q: Tensor, k: Tensor, bias: Bias | None) -> Tensor:
        """Scores (B, heads, N, M)."""
        scores = (torch.tanh(q.unsqueeze(3) + k.unsqueeze(2)) * self.weight).sum(-1)
        return scores if bias is None else scores + bias[0] @ bias[1].mT

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias | None) -> Tensor:
        """Mixed values (B, heads, N, E), block by block."""
        out = []
        for start in range(0, q.shape[2], ADDITIVE_BLOCK):
            rows = slice(start, start + ADDITIVE_BLOCK)
            block = (q[:, :, rows], k, v, None if bias is None else (bias[0][:, rows], bias[1]))
            out.append(
                checkpoint(self._mix_block, *block, use_reentrant=False, preserve_rng_state=False)
                if torch.is_grad_enabled()
                else self._mix_block(*block)
            )
        return torch.cat(out, 2)

    def _mix_block(self, q: Tensor, k: Tensor, v: Tensor, bias: Bias | None) -> Tensor:
        return self.forward(q, k, bias).softmax(-1).to(v.dtype) @ v


SCORES: dict[str, type[DotScore] | type[AdditiveScore]] = {
    "scaled_dot": ScaledDotScore,
    "dot": DotScore,
    "cosine": CosineScore,
    "additive": AdditiveScore,
}
"""Name of each score to its class."""
