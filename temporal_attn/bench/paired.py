"""How much dearer one way is than another, from pairs of measurements that were taken side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["paired_ratio"]

_DRAWS = 2000


def paired_ratio(
    others: Mapping[tuple[int, int], float], own: Mapping[tuple[int, int], float], seed: int
) -> tuple[float | None, list[float] | None]:
    """How many times the cost of `own` the cost of `others` is, over what both have read, with its 95 % interval.

    The interval is a bootstrap over pairs of the same file and round: it tells what timing noise leaves open on these
    files.

    Args:
        others: Seconds by (file, round).
        own: Likewise.
        seed: Of the bootstrap.

    Returns:
        The ratio of the sums, and the edges of its interval; None and None where there is no pair.
    """
    both = sorted(set(others) & set(own))
    if not both:
        return None, None
    pairs = np.array([(others[key], own[key]) for key in both])
    draws = np.random.default_rng(seed).integers(0, len(pairs), (_DRAWS, len(pairs)))
    sums = pairs[draws].sum(axis=1)
    ratio = pairs[:, 0].sum() / pairs[:, 1].sum()
    return float(ratio), [float(edge) for edge in np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))]
