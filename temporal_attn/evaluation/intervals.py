"""Confidence intervals by bootstrap over groups: clips of one source video are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["bootstrap_over_groups"]


def bootstrap_over_groups(
    correct: Sequence[float],
    groups: Sequence[str],
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean when whole groups are drawn with replacement.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13.

    Args:
        correct: One value a video, e.g. 0 or 1.
        groups: The group of each video.
        samples: Bootstrap samples.
        level: Coverage.
        seed: Of the draws.

    Returns:
        Lower and upper end. With a single group both are the mean: nothing can be said about others.

    Raises:
        ValueError: No videos, or lengths differ.
    """
    if len(correct) == 0 or len(correct) != len(groups):
        raise ValueError(f"need as many groups as values and at least one, got {len(groups)} and {len(correct)}")
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    size = np.bincount(member).astype(np.float64)
    total = np.bincount(member, weights=np.asarray(correct, dtype=np.float64))
    rng = np.random.default_rng(seed)
    # How often each group is drawn, one row a sample; chunked, so that many groups do not need much memory.
    means = []
    for start in range(0, samples, 1000):
        drawn = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), size=min(1000, samples - start))
        means.append(drawn @ total / (drawn @ size))
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)
