"""Average precision: how far up a class's videos stand when all are ordered by its probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from temporal_attn.evaluation.intervals import draw_groups

__all__ = ["average_precision", "mean_average_precision_interval"]

Array = NDArray[np.float64]

_WEIGHTS = 5_000_000
"""Of how many videos, times samples, the weights are held at once."""
_WORK = 100_000_000


def average_precision(scores: Array, positive: Array, weights: Array | None = None) -> Array:
    """Average precision of one class, without interpolation; videos with the same score count as found together.

    Equation: AP = Σ_n (R_n - R_{n-1}) P_n over the distinct scores, P precision and R recall.
    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010, in the form of scikit-learn.

    Args:
        scores: (N,).
        positive: (N,) 1 for videos of the class.
        weights: (S, N) how often each video counts, in S samples; None: once, in one sample.

    Returns:
        (S,), NaN where a sample has no positive.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # the last video of each score
    found_at = np.flatnonzero(positive[order])
    weights = np.ones((1, len(scores))) if weights is None else weights
    if not len(found_at):
        return np.full(len(weights), np.nan)
    # Recall moves only at the scores of positives, so that precision is asked there, and nothing else is summed apart.
    ends = np.unique(np.flatnonzero(last)[np.cumsum(last)[found_at] - last[found_at]])
    starts = np.append(0, ends[:-1] + 1)
    by_video = weights.T
    seen = np.add.reduceat(by_video[order[: ends[-1] + 1]], starts, axis=0).cumsum(0).astype(np.float64)
    gained = np.add.reduceat(by_video[order[found_at]], np.searchsorted(found_at, starts), axis=0).astype(np.float64)
    found = gained.cumsum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(seen > 0, found / seen, 0)
        result: Array = (gained * precision).sum(0) / found[-1]
    return result


def mean_average_precision_interval(
    scores: Array,
    positive: Array,
    groups: Sequence[str],
    samples: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean average precision by bootstrap over groups.

    Args:
        scores: (N, K).
        positive: (N, K) 1 for each class that holds.
        groups: The group of each video.
        samples: Bootstrap samples; None: 1000, and as few as 200 where there are many videos and classes. A class
            that a sample has no video of does not enter its mean; a sample without a video of any class is left out.
        level: Coverage.
        seed: Of the draws.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    present = np.flatnonzero(positive.any(0))
    if samples is None:
        samples = min(1000, max(200, _WORK // scores.size))

    at_once = max(50, _WEIGHTS // len(scores))

    def statistic(drawn: Array) -> Array:
        parts = []
        for start in range(0, len(drawn), at_once):
            # A video's weights lie together, and numbers this small are exact in single precision too.
            weights = drawn[start : start + at_once].T.astype(np.float32)[member]
            by_class = np.array([average_precision(scores[:, k], positive[:, k], weights.T) for k in present])
            count = (~np.isnan(by_class)).sum(0)
            parts.append(np.nansum(by_class, axis=0) / np.where(count > 0, count, np.nan))
        return np.concatenate(parts)

    found = draw_groups(int(member.max()) + 1, statistic, samples, seed)
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(found, [tail, 100 - tail])
    return float(low), float(high)
