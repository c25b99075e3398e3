"""Where a cell of a map stands: what attention over cells needs to tell near from far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Bias", "RelativePosition", "sincos"]

Bias = tuple[Tensor, Tensor]
"""A bias of scores as a product of two factors, (heads, N, R) and (M, R), so that it is never N × M in memory."""


def sincos(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of row and column at geometric frequencies: the table of Vaswani et al. for both axes.

    Channels take turns: sine and cosine of the row, sine and cosine of the column, then the next lower frequency.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        channels: C, any number.
        device: Where the table is made.

    Returns:
        (H·W, C) in [−1, 1].
    """
    count = -(-channels // 4)
    frequency = 10_000 ** (-torch.arange(count, device=device) / count)
    phases = [place[:, None] * frequency for place in _cells(height, width, device)]
    waves = [wave for phase in phases for wave in (phase.sin(), phase.cos())]
    return torch.stack(waves, -1).flatten(1)[:, :channels]


class RelativePosition(nn.Module):
    """A learned bias for the way from query to key: one for the rows between them, one for the columns.

    The bias of Shaw, Uszkoreit and Vaswani, "Self-Attention with Relative Position Representations", NAACL 2018
    (https://arxiv.org/abs/1803.02155), as one number a head (Raffel et al., JMLR 2020,
    https://arxiv.org/abs/1910.10683), for each axis of the map by itself.

    Args:
        heads: Number of heads.
        reach: Cells beyond which a distance counts as this one, so that maps may be of any size.
    """

    def __init__(self, heads: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.rows = nn.Parameter(torch.zeros(heads, 2 * reach + 1))
        self.columns = nn.Parameter(torch.zeros(heads, 2 * reach + 1))

    def forward(self, height: int, width: int) -> Bias:
        """Factors (heads, N, height + width) and (N, height + width) whose product is the bias (heads, N, N)."""
        rows, columns = self._table(self.rows, height), self._table(self.columns, width)
        y, x = _cells(height, width, rows.device)
        # A query's biases for each row and each column, times the row and the column that a key stands in.
        left = torch.cat((rows[:, y], columns[:, x]), -1)
        right = torch.cat((torch.eye(height, device=y.device)[y], torch.eye(width, device=x.device)[x]), -1)
        return left, right.to(left.dtype)

    def _table(self, bias: Tensor, size: int) -> Tensor:
        place = torch.arange(size, device=bias.device)
        way = (place - place[:, None]).clamp(-self.reach, self.reach) + self.reach
        return bias[:, way]


def _cells(height: int, width: int, device: torch.device | None) -> tuple[Tensor, Tensor]:
    place = torch.arange(height * width, device=device)
    return place // width, place % width
