"""Where frames stand in time: seconds since the clip began, ranks, and the order in which to read them.

Frames are a set of tokens with times: no module here depends on the place at which a frame stands in its tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["count_seconds", "time_order", "time_rank"]


def count_seconds(pts: Tensor, mask: Tensor) -> Tensor:
    """Seconds since the first real frame, 0 on padding.

    They are float64 where the device has it: after an hour float32 tells frames apart to a quarter of a millisecond,
    which is a visible part of the fastest rotation of `RotaryTime`.

    Args:
        pts: (B, T) seconds of any type.
        mask: (B, T) bool, True = a real frame.
    """
    pts = pts.to(torch.float32 if pts.device.type == "mps" else torch.float64)
    start = pts.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    return torch.where(mask, pts - start, 0)


def time_order(pts: Tensor, mask: Tensor) -> Tensor:
    """Positions (B, T) of the frames from the earliest to the latest, padding behind them."""
    return pts.masked_fill(~mask, torch.inf).argsort(dim=1, stable=True)


def time_rank(pts: Tensor, mask: Tensor) -> Tensor:
    """How many earlier moments the clip shows, (B, T): frames of one moment share their rank; padding comes last."""
    moments, order = pts.masked_fill(~mask, torch.inf).sort(dim=1, stable=True)
    later = torch.nn.functional.pad(moments[:, 1:] != moments[:, :-1], (1, 0))
    return torch.zeros_like(order).scatter(1, order, later.long().cumsum(1))
