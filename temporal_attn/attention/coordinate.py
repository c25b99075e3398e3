"""Coordinate attention: a channel's weight depends on the row and on the column.

Paper: Hou, Zhou and Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021.
    https://arxiv.org/abs/2103.02907
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.channel import bottleneck_width
from temporal_attn.attention.gates import Gate, start_at_zero

__all__ = ["CoordAttention", "line_means"]


class CoordAttention(nn.Module):
    """Channel weights for each row and each column, from averages along them.

    Paper: Hou, Zhou and Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021.
        https://arxiv.org/abs/2103.02907

    Equation: f = h-swish(BN(W [mean_w x; mean_h x]));  y = σ(W_h f_h) ⊙ σ(W_w f_w) ⊙ x

    Place: as squeeze-and-excitation, in each residual block after the last normalisation, or after the depthwise
        convolution of an inverted bottleneck. It knows where on the map a thing is, so it does not go well with
        inputs whose position means nothing.

    Args:
        channels: C of the input.
        reduction: Width of the bottleneck is C // reduction, at least 8.
        gate: How both weights enter, see `Gate`. ``identity`` starts as y = x; ``sigmoid`` starts near a quarter.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, H, 1) and (B, C, 1, W).

    Raises:
        ValueError: Channels or reduction is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, reduction: int = 32, gate: str = "sigmoid") -> None:
        super().__init__()
        hidden = bottleneck_width(channels, reduction, least=8)
        # Linear layers and not 1×1 convolutions: on strips of H + W places they take half the time on a CPU.
        self.reduce = nn.Linear(channels, hidden, bias=False)  # the authors' bias: the normalisation removes it
        self.norm = nn.BatchNorm1d(hidden)  # never of a single value: even a 1×1 map has a row and a column
        self.rows = nn.Linear(hidden, channels)
        self.columns = nn.Linear(hidden, channels)
        self.row_gate = Gate(gate)
        self.column_gate = Gate(gate)
        start_at_zero(gate, self.rows)
        start_at_zero(gate, self.columns)

    def forward(self, x: Tensor) -> Tensor:
        """Reweighted maps (B, C, H, W)."""
        batch, _, height, width = x.shape
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        # One normalisation over rows and columns together, so they travel as one strip of H + W places.
        strip = self.norm(self.reduce(line_means(x)).flatten(0, 1))
        strip = nn.functional.hardswish(strip).view(batch, height + width, self.norm.num_features)
        rows = self.rows(strip[:, :height]).transpose(1, 2)[:, :, :, None]
        columns = self.columns(strip[:, height:]).transpose(1, 2)[:, :, None]
        # The weights are small: better they are put into the map's order than that the products run through two.
        rows = self.row_gate(rows.contiguous(memory_format=layout))
        columns = self.column_gate(columns.contiguous(memory_format=layout))
        weighted: Tensor = x * rows * columns
        return weighted


def line_means(x: Tensor) -> Tensor:
    """Means of the rows, then those of the columns.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, H + W, C).
    """
    if x.is_contiguous(memory_format=torch.channels_last):
        # Taken as the (B, H, W, C) that it is in memory: reduced as (B, C, H, W) it costs six times as much on a CPU.
        places = x.permute(0, 2, 3, 1)
        return torch.cat((places.mean(2), places.mean(1)), dim=1)
    return torch.cat((x.mean(3), x.mean(2)), dim=2).transpose(1, 2)
