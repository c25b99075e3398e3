"""Attention over the cells of frame maps, and not only over pooled frames.

A frame of n × n cells is one token of width n² · C', its cells side by side. So a frame is still one row to whoever
masks, caches or leaves out frames, and only what stands here takes it apart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.temporal.convolution import ConvolutionBlock
from temporal_attn.temporal.encoder import TemporalEncoder
from temporal_attn.temporal.recurrent import RecurrentBlock

__all__ = ["CellEncoder", "CellProjection"]


class CellProjection(nn.Module):
    """LayerNorm and Linear of every cell, and a learned vector for where in the frame it is, zero at the start.

    Args:
        width: C' of a cell.
        dim: D of a projected cell; 0 keeps the width and has no Linear.
        cells: P cells a frame.

    Shape:
        frames (…, P · C'), output (…, P · D).
    """

    def __init__(self, width: int, dim: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, dim) if dim else nn.Identity()
        self.place = nn.Parameter(torch.zeros(cells, dim or width))

    def forward(self, frames: Tensor) -> Tensor:
        """Projected frames, their cells side by side."""
        out: Tensor = self.linear(self.norm(frames.reshape(*frames.shape[:-1], self.cells, -1))) + self.place
        return out.flatten(-2)


class CellEncoder(nn.Module):
    """A temporal encoder over all cells of all frames.

    Args:
        encoder: Takes T · P tokens; cells of one frame have its seconds.
        cells: P cells a frame.

    Shape:
        frames (B, T, P · D), mask (B, T) bool, pts (B, T) seconds; output (B, D) and frame weights (B, T), the sums
        over the cells of a frame.

    Raises:
        ValueError: The encoder reads tokens one after the other, which cells of one frame are not.
    """

    def __init__(self, encoder: TemporalEncoder, cells: int) -> None:
        super().__init__()
        for block in encoder.blocks:
            if isinstance(block, ConvolutionBlock | RecurrentBlock):
                raise ValueError(
                    "spatial_tokens: a GRU or TCN reads frames one after the other and cells have no such order; "
                    "take spatial_tokens=1, or another temporal model"
                )
        self.encoder = encoder
        self.cells = cells

    def forward(self, frames: Tensor, mask: Tensor, pts: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights."""
        batch, length = mask.shape
        tokens = frames.reshape(batch, length * self.cells, -1)
        feature, weights = self.encoder(
            tokens, mask.repeat_interleave(self.cells, 1), pts.repeat_interleave(self.cells, 1)
        )
        return feature, weights.view(batch, length, self.cells).sum(-1)
