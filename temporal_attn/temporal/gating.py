"""Gates over time: one number a frame, or one number a channel that the whole clip agrees on.

A gate a frame enters where frames are pooled. Anywhere before, the LayerNorm in front of the pool would take a frame's
scale away again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from temporal_attn.attention.gates import Gate, start_at_zero
from temporal_attn.temporal.pooling import MeanPool, SoftmaxPool

__all__ = ["FrameGate", "SqueezeExcitation"]


class FrameGate(SoftmaxPool):
    """Every frame says by itself how much of it counts; the clip is the mean of what is let through.

    Paper: no single one; the attention of Bahdanau, Cho and Bengio, ICLR 2015, with a sigmoid instead of the softmax.
        https://arxiv.org/abs/1409.0473
    Equation: g_t = σ(uᵀ f_t + b);  z = Σ_t g_t f_t / Σ_t g_t.

    A gate is at most 1, so that no single frame can drown the others, however high it scores; this is a softmax over
    log g_t. u and b start at zero: at the start all gates are alike and this is `MeanPool`.

    Args:
        dim: D of the tokens.

    Shape:
        As `SoftmaxPool`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)
        start_at_zero("identity", self.score)

    def scores(self, x: Tensor) -> Tensor:
        """Logarithms of the gates, log g_t."""
        score: Tensor = self.score(x)
        return logsigmoid(score.to(torch.promote_types(score.dtype, torch.float32))).transpose(1, 2)


class SqueezeExcitation(nn.Module):
    """What the whole clip shows decides which channels of its frames count; starts as the identity.

    Paper: Hu, Shen, Albanie, Sun and Wu, "Squeeze-and-Excitation Networks", CVPR 2018, with the mean over frames in the
        place of the mean over places. https://arxiv.org/abs/1709.01507
    Equation: y_t = 2σ(W_2 δ(W_1 mean_s f_s)) ⊙ f_t, with W_2 zero at the start.

    Args:
        dim: D of the tokens.
        reduction: The bottleneck is D // reduction wide.

    Shape:
        x (B, T, D), mask (B, T) bool, pts (B, T) seconds, which do not matter; output (B, T, D). Weights, by
        `attention_maps`: (B, D) in [0, 2].

    Raises:
        ValueError: The reduction leaves no channel.
    """

    def __init__(self, dim: int, reduction: int = 16) -> None:
        super().__init__()
        if not 0 < reduction <= dim:
            raise ValueError(f"reduction={reduction} leaves nothing of dim={dim}; give one from 1 to {dim}")
        self.mean = MeanPool()
        self.down = nn.Linear(dim, dim // reduction)
        self.up = nn.Linear(dim // reduction, dim)
        self.gate = Gate("identity")
        start_at_zero("identity", self.up)

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Tokens (B, T, D) with their channels weighed."""
        clip, _ = self.mean(x, mask)
        out: Tensor = x * self.gate(self.up(self.down(clip).relu()))[:, None]
        return out
