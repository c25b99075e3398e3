"""What runs with several seeds say together, and how two sorts of runs differ on the same seeds and videos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from temporal_attn.evaluation.intervals import bootstrap_over_groups

__all__ = ["Answers", "Estimate", "Runs", "accuracy", "difference", "share_of_seeds", "signed"]

Answers = Mapping[str, bool]
"""Video id to whether it was classified correctly."""
Runs = Mapping[int, Answers]
"""Seed to the answers of that run."""


class Estimate(NamedTuple):
    """A share and its 95 % interval by bootstrap over groups."""

    value: float
    low: float
    high: float


def share_of_seeds(runs: Runs, seeds: Iterable[int]) -> NDArray[np.float64]:
    """(N,) share of these seeds that classified each video correctly, videos in the order of their names."""
    share = np.array([[runs[seed][video] for video in sorted(runs[seed])] for seed in seeds], dtype=np.float64)
    mean: NDArray[np.float64] = share.mean(0)
    return mean


def accuracy(runs: Runs, groups: Sequence[str]) -> Estimate:
    """Accuracy, the mean over seeds.

    Args:
        runs: At least one.
        groups: Group of each video, in the order of their names.
    """
    share = share_of_seeds(runs, runs)
    return Estimate(float(share.mean()), *bootstrap_over_groups(share, groups))


def difference(runs: Runs, base: Runs, groups: Sequence[str]) -> Estimate | None:
    """How much more accurate runs are than others, paired by seed and video; None where they share no seed.

    Args:
        runs: These.
        base: Those that they are compared with.
        groups: Group of each video, in the order of their names.
    """
    seeds = sorted(set(runs) & set(base))
    if not seeds:
        return None
    gained = share_of_seeds(runs, seeds) - share_of_seeds(base, seeds)
    return Estimate(float(gained.mean()), *bootstrap_over_groups(gained, groups))


def signed(share: float) -> str:
    """A share in points, with its sign, and a minus that is as wide as the plus."""
    return f"{100 * share:+.1f}".replace("-", "−")
