"""Whether probabilities mean what they say: reliability, calibration error and proper scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from temporal_attn.evaluation.intervals import draw_groups, sums_by_group

__all__ = ["BINS", "Reliability", "brier_score", "calibration_interval", "reliability"]

Array = NDArray[np.float64]

BINS = 15


class Reliability(NamedTuple):
    """Confidence beside accuracy, in bins of confidence of equal width.

    Args:
        videos: How many there are in each bin, (M,).
        confidence: Their mean confidence, NaN in an empty bin.
        accuracy: The share of them that is right, NaN in an empty bin.
    """

    videos: NDArray[np.int64]
    confidence: Array
    accuracy: Array

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy, weighted by the bins' videos."""
        used = self.videos > 0
        gap = np.abs(self.accuracy[used] - self.confidence[used])
        return float((self.videos[used] * gap).sum() / self.videos.sum())


def reliability(confidence: Array, correct: Array, bins: int = BINS) -> Reliability:
    """Reliability diagram of the top label.

    Paper: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; in this form
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. https://arxiv.org/abs/1706.04599
    Equation: bin m holds confidences in ((m - 1) / M, m / M]; ECE = Σ n_m / n · |accuracy_m - confidence_m|

    Args:
        confidence: (N,) probability of each video's top class.
        correct: (N,) whether it is right.
        bins: M.
    """
    place = _bin(confidence, bins)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count,
            np.bincount(place, confidence, bins) / count,
            np.bincount(place, correct, bins) / count,
        )


def calibration_interval(
    confidence: Array,
    correct: Array,
    groups: Sequence[str],
    bins: int = BINS,
    samples: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the expected calibration error by bootstrap over groups.

    Chance alone makes gaps, so that the error of a sample is larger than the truth, and that of a resample larger
    again. The basic interval, 2 · estimate - percentiles, takes the second excess as a measure of the first, where
    percentiles would count it twice.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 5.2.

    Args:
        confidence: (N,) probability of each video's top class.
        correct: (N,) whether it is right.
        groups: The group of each video.
        bins: M.
        samples: Bootstrap samples; None: as many as `draw_groups` takes.
        level: Coverage.
        seed: Of the draws.

    Returns:
        Lower and upper end in [0, 1]; the estimate lies between them.

    Raises:
        ValueError: No videos, or lengths differ.
    """
    gaps = np.zeros((len(confidence), bins))
    gaps[np.arange(len(gaps)), _bin(confidence, bins)] = correct - confidence
    gap, size = sums_by_group(gaps, groups)
    found = draw_groups(len(size), lambda drawn: np.abs(drawn @ gap).sum(1) / (drawn @ size), samples, seed)
    estimate = float(np.abs(gap.sum(0)).sum() / size.sum())
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(np.clip(2 * estimate - high, 0, estimate)), float(np.clip(2 * estimate - low, estimate, 1))


def brier_score(probabilities: Array, truth: Array) -> float:
    """Mean over videos of the squared distance to the truth; of several labels the mean over classes as well.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950.

    Args:
        probabilities: (N, K).
        truth: (N,) class indices; of several labels (N, K), 1 for each class that holds.
    """
    if truth.ndim == 2:
        return float(np.square(probabilities - truth).mean())
    return float(np.square(probabilities - np.eye(probabilities.shape[1])[truth.astype(int)]).sum(1).mean())


def _bin(confidence: Array, bins: int) -> NDArray[np.int64]:
    """Bins that hold their upper edge."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
