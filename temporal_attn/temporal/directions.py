"""Which frames a frame may attend to: all of them, those before it, or the past with one half of the heads.

Paper of ``split``: Shen et al., "DiSAN: Directional Self-Attention Network", AAAI 2018. https://arxiv.org/abs/1709.04696
    (a forward and a backward mask side by side); of the window: Beltagy, Peters and Cohan, "Longformer", 2020.
    https://arxiv.org/abs/2004.05150
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_attn.temporal.timeline import time_rank

__all__ = ["DIRECTIONS", "check_direction", "visible_frames"]

DIRECTIONS = ("bidirectional", "causal", "split")


def check_direction(direction: str, window: int | None, heads: int) -> None:
    """Refuse what cannot be looked along.

    Raises:
        ValueError: The direction is not known, the window holds no frame, or ``split`` has an odd number of heads.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction {direction!r} is not known; choose one of: {', '.join(DIRECTIONS)}")
    if window is not None and window < 1:
        raise ValueError(f"window={window} holds no frame; give at least 1, or None for all frames")
    if direction == "split" and heads % 2:
        raise ValueError(f"direction 'split' gives each half of the heads a direction; heads={heads} is odd")


def visible_frames(mask: Tensor, pts: Tensor, direction: str, window: int | None, heads: int) -> Tensor:
    """Which keys each query may see.

    Order is that of the seconds, and frames of one moment see each other in every direction. Every token sees itself:
    padding has to look somewhere, and what comes of it is dropped.

    Args:
        mask: (B, T) bool, True = a real frame.
        pts: (B, T) seconds, finite on padding too.
        direction: ``bidirectional``; ``causal``, itself and what came before; ``split``, the first half of the heads
            causal and the second half the other way round.
        window: Frames within reach along each direction, the frame itself included; None for all.
        heads: Number of heads.

    Returns:
        Bool that broadcasts to (B, heads, T, T): queries, keys.
    """
    if direction == "bidirectional" and window is None:
        return (mask | ~mask.any(1, keepdim=True))[:, None, None]
    rank = time_rank(pts, mask)
    lag = rank[:, None, :, None] - rank[:, None, None, :]
    seen = mask[:, None, None]
    if window is not None:
        seen = seen & (lag.abs() < window)
    if direction == "causal":
        seen = seen & (lag >= 0)
    elif direction == "split":
        seen = seen & torch.cat((lag >= 0, lag <= 0), 1).repeat_interleave(heads // 2, 1)
    return seen | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
