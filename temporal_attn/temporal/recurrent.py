"""A gated recurrent unit over frames: the baseline that reads a clip in order.

Paper: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014.
    https://arxiv.org/abs/1406.1078
Equation: x ← x + W_o [GRU(LN(x)), reversed GRU(LN(x))], with W_o zero at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.temporal.drop_path import DropPath
from temporal_attn.temporal.timeline import time_order

__all__ = ["RecurrentBlock"]


class RecurrentBlock(nn.Module):
    """Reads the real frames in the order of their seconds; how far they lie apart it does not know.

    Args:
        dim: D of the tokens, and of the state of each direction.
        dropout: On the output.
        drop_path: Probability to skip the block for a whole clip in training.
        direction: ``bidirectional``, or ``causal``: from the past only.

    Shape:
        x (B, T, D), mask (B, T) bool, pts (B, T) seconds; output (B, T, D).

    Raises:
        ValueError: The direction is another one.
    """

    def __init__(
        self, dim: int, dropout: float = 0.0, drop_path: float = 0.0, direction: str = "bidirectional"
    ) -> None:
        super().__init__()
        if direction not in ("bidirectional", "causal"):
            raise ValueError(f"direction {direction!r} is none of a GRU; choose one of: bidirectional, causal")
        self.direction = direction
        self.norm = nn.LayerNorm(dim)
        self.forwards = nn.GRU(dim, dim, batch_first=True)
        self.backwards = nn.GRU(dim, dim, batch_first=True) if direction == "bidirectional" else None
        self.out = nn.Linear(dim * (1 if self.backwards is None else 2), dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Tokens (B, T, D), each with what was read up to it."""
        # Padding is read last, where it tells real frames nothing; packed sequences would need lengths on the CPU.
        order = time_order(pts, mask)
        tokens = self.norm(x)
        read = [_read(self.forwards, tokens, order)]
        if self.backwards is not None:
            place = torch.arange(x.shape[1], device=x.device)
            last = mask.sum(1, keepdim=True) - 1
            read.append(_read(self.backwards, tokens, order.gather(1, torch.where(place <= last, last - place, place))))
        return self.finish(x, torch.cat(read, -1))

    def finish(self, x: Tensor, read: Tensor) -> Tensor:
        """Add the states (B, T, D or 2D) to tokens (B, T, D)."""
        out: Tensor = x + self.drop_path(self.dropout(self.out(read)))
        return out


def _read(gru: nn.GRU, tokens: Tensor, order: Tensor) -> Tensor:
    """States (B, T, D) of tokens that are read in an order (B, T), each at the place of its token."""
    index = order[..., None].expand_as(tokens)
    states, _ = gru(tokens.gather(1, index))
    return torch.zeros_like(states).scatter(1, index, states)
