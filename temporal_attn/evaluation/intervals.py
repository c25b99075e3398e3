"""Confidence intervals by bootstrap over groups: clips of one source video are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_over_groups", "draw_groups", "sums_by_group"]

Array = NDArray[np.float64]

_CHUNK = 1000


def bootstrap_over_groups(
    values: Sequence[float] | Array,
    groups: Sequence[str],
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean when whole groups are drawn with replacement.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13.

    Args:
        values: One a video, e.g. 0 or 1.
        groups: The group of each video.
        samples: Bootstrap samples.
        level: Coverage.
        seed: Of the draws.

    Returns:
        Lower and upper end. With a single group both are the mean: nothing can be said about others.

    Raises:
        ValueError: No videos, or lengths differ.
    """
    total, size = sums_by_group(np.asarray(values, dtype=np.float64), groups)
    means = draw_groups(len(size), lambda drawn: drawn @ total / (drawn @ size), samples, seed)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def sums_by_group(values: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    """Sum of the values of each group, and how many there are.

    Args:
        values: (N,) or (N, M).
        groups: N names.

    Returns:
        (G,) or (G, M), and (G,).

    Raises:
        ValueError: No videos, or lengths differ.
    """
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"need as many groups as values and at least one, got {len(groups)} and {len(values)}")
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    size = np.bincount(member).astype(np.float64)
    total = np.zeros((len(size), *values.shape[1:]))
    np.add.at(total, member, values)
    return total, size


def draw_groups(groups: int, statistic: Callable[[Array], Array], samples: int, seed: int = 0) -> Array:
    """A statistic of groups drawn with replacement, once for each sample.

    Args:
        groups: G.
        statistic: Takes how often each group is drawn, (S, G), and gives (S,).
        samples: Bootstrap samples; they come in chunks, so that many groups do not need much memory.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    share = np.full(groups, 1 / groups)
    sizes = [min(_CHUNK, samples - start) for start in range(0, samples, _CHUNK)]
    drawn = (rng.multinomial(groups, share, size=size).astype(np.float64) for size in sizes)
    return np.concatenate([statistic(chunk) for chunk in drawn])
