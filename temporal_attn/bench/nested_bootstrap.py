"""Intervals of means over clips and training seeds: both could have been others.

Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8: seeds are drawn first, and
clips within them second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "interval", "mean_over_seeds", "resampled_means"]

Floats = NDArray[np.float64]


def mean_over_seeds(samples: Sequence[Floats]) -> Floats:
    """Mean over clips, then over seeds: S arrays (N_s, M) -> (M,). What is nan is left out of its column's mean."""
    means = [_weighted_mean(np.ones((1, len(sample))), sample)[0] for sample in samples]
    mean: Floats = np.mean(means, axis=0)
    return mean


def resampled_means(samples: Sequence[Floats], draws: int = 10_000, seed: int = 0) -> Floats:
    """Means of as many seeds and clips, drawn with replacement: S arrays (N_s, M) -> (draws, M).

    All columns are drawn together, so that the difference or the ratio of two is paired. With one seed only the clips
    are drawn.

    Args:
        samples: One array a training seed, a row a clip, a column a measure; nan where a clip has none.
        draws: Bootstrap samples.
        seed: Of the draws.
    """
    total = np.zeros((draws, samples[0].shape[1]))
    for number, rows, counts in _lots(tuple(len(sample) for sample in samples), draws, seed):
        total[rows] += _weighted_mean(counts, samples[number])
    return total / len(samples)


@lru_cache(maxsize=4)
def _lots(sizes: tuple[int, ...], draws: int, seed: int) -> list[tuple[int, NDArray[np.int64], Floats]]:
    """Which samples draw which seed, and how often each of its clips: (seed's number, rows (D,), counts (D, N)).

    Kept, because all methods of a regime are drawn alike, and drawing costs more than what follows.
    """
    rng = np.random.default_rng(seed)
    lots = []
    for _ in sizes:
        chosen = rng.integers(len(sizes), size=draws)
        for number, size in enumerate(sizes):
            rows = np.flatnonzero(chosen == number)
            counts = rng.multinomial(size, np.full(size, 1 / size), size=len(rows))
            lots.append((number, rows, counts.astype(np.float64)))
    return lots


def interval(means: Floats, statistic: Callable[[Floats], Floats], level: float = 0.95) -> list[float] | None:
    """Percentile interval of a statistic of resampled means; None where it is not a number.

    Args:
        means: Output of `resampled_means`, (draws, M).
        statistic: (draws, M) -> (draws,).
        level: Coverage.
    """
    values = statistic(means)
    if not np.isfinite(values).any():
        return None
    tail = (1 - level) / 2
    return [float(edge) for edge in np.nanquantile(values, (tail, 1 - tail))]


def _weighted_mean(weights: Floats, sample: Floats) -> Floats:
    """(D, N) weights of rows, (N, M) values -> (D, M); nan where a column has no value among the weighted rows."""
    known = np.isfinite(sample)
    with np.errstate(invalid="ignore"):
        mean: Floats = (weights @ np.where(known, sample, 0)) / (weights @ known.astype(np.float64))
    return mean
