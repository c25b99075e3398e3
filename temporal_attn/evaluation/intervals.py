"""Confidence intervals by bootstrap over groups: clips of one source video are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_over_groups", "draw_groups", "sums_by_group"]

Array = NDArray[np.float64]

_CHUNK = 1000
_WORK = 20_000_000


def bootstrap_over_groups(
    values: Sequence[float] | Array,
    groups: Sequence[str],
    samples: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean when whole groups are drawn with replacement.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13.

    Args:
        values: One a video, e.g. 0 or 1.
        groups: The group of each video.
        samples: Bootstrap samples; None: as many as `draw_groups` takes.
        level: Coverage.
        seed: Of the draws.

    Returns:
        Lower and upper end. With a single group both are the mean: nothing can be said about others.

    Raises:
        ValueError: No videos, or lengths differ.
    """
    total, size = sums_by_group(np.asarray(values, dtype=np.float64), groups)
    # Groups with the same sum and size are as good as each other: how many of a kind are drawn is all that counts. Of
    # right and wrong videos that stand alone there are two kinds, however many videos there are.
    (total, size), alike = np.unique(np.stack((total, size)), axis=1, return_counts=True)
    means = draw_groups(len(size), lambda drawn: drawn @ total / (drawn @ size), samples, seed, alike)
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


def draw_groups(
    kinds: int,
    statistic: Callable[[Array], Array],
    samples: int | None = None,
    seed: int = 0,
    alike: NDArray[np.int64] | None = None,
) -> Array:
    """A statistic of groups drawn with replacement, once for each sample.

    Args:
        kinds: G, of groups that differ.
        statistic: Takes how often groups of each kind are drawn, (S, G), and gives (S,).
        samples: Bootstrap samples; they come in chunks, so that many groups do not need much memory. None: 10,000, and
            as few as 1000 where there are many groups.
        seed: Of the draws.
        alike: (G,) how many groups there are of each kind; None: one.
    """
    rng = np.random.default_rng(seed)
    if samples is None:
        samples = min(10_000, max(1000, _WORK // kinds))
    number = np.ones(kinds) if alike is None else alike
    sizes = [min(_CHUNK, samples - start) for start in range(0, samples, _CHUNK)]
    groups, share = int(number.sum()), number / number.sum()
    drawn = (rng.multinomial(groups, share, size=size).astype(np.float64) for size in sizes)
    return np.concatenate([statistic(chunk) for chunk in drawn])
