"""Videos that look like nothing else: coloured patches that change all the time."""

from __future__ import annotations

import numpy as np

__all__ = ["moving_patches"]


def moving_patches(seed: int, frames: int = 24, height: int = 96, width: int = 128) -> np.ndarray:
    """(frames, height, width, 3) uint8; another seed gives other patches."""
    coarse = np.random.default_rng(seed).integers(0, 255, (-(-frames // 4), 6, 6, 3)).astype(np.uint8)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    return np.repeat(coarse, 4, axis=0)[:frames][:, rows[:, None], columns]
