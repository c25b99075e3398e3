"""Dilated convolutions over frames: the baseline that looks at neighbours.

Paper: Bai, Kolter and Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
    Modeling" (TCN), 2018. https://arxiv.org/abs/1803.01271; with one dilated convolution a block and a 1×1 behind it
    (Farha and Gall, "MS-TCN", CVPR 2019. https://arxiv.org/abs/1903.01945).
Equation: x ← x + W_o GELU(conv_dilated(LN(x))), with W_o zero at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from temporal_attn.temporal.drop_path import DropPath
from temporal_attn.temporal.timeline import time_order

__all__ = ["ConvolutionBlock"]


class ConvolutionBlock(nn.Module):
    """One dilated convolution over the real frames in the order of their seconds; beyond their ends there is zero.

    Args:
        dim: D of the tokens.
        kernel_size: Frames that are seen, odd unless causal.
        dilation: Frames from one of them to the next.
        dropout: On the output.
        drop_path: Probability to skip the block for a whole clip in training.
        direction: ``bidirectional``, or ``causal``: from the past only.

    Shape:
        x (B, T, D), mask (B, T) bool, pts (B, T) seconds; output (B, T, D).

    Raises:
        ValueError: The direction is another one, or the kernel has no centre.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 3,
        dilation: int = 1,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        direction: str = "bidirectional",
    ) -> None:
        super().__init__()
        if direction not in ("bidirectional", "causal"):
            raise ValueError(f"direction {direction!r} is none of a TCN; choose one of: bidirectional, causal")
        if kernel_size < 1 or (direction == "bidirectional" and kernel_size % 2 == 0):
            raise ValueError(f"kernel_size={kernel_size} has no centre; give an odd one, or take direction 'causal'")
        self.direction = direction
        self.reach = dilation * (kernel_size - 1)
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv1d(dim, dim, kernel_size, dilation=dilation)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Tokens (B, T, D), each with what its neighbours show."""
        index = time_order(pts, mask)[..., None].expand_as(x)
        frames = torch.where(mask[..., None], self.norm(x), 0).gather(1, index)
        ends = (self.reach, 0) if self.direction == "causal" else (self.reach // 2, self.reach // 2)
        seen = self.conv(pad(frames.transpose(1, 2), ends)).transpose(1, 2)
        return self.finish(x, torch.zeros_like(seen).scatter(1, index, seen))

    def finish(self, x: Tensor, seen: Tensor) -> Tensor:
        """Add what the convolution (B, T, D) saw to tokens (B, T, D)."""
        out: Tensor = x + self.drop_path(self.dropout(self.out(gelu(seen))))
        return out
