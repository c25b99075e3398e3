"""To answer or to abstain: what share of the videos is answered, and what share of the answers is wrong.

Paper: Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.
    https://arxiv.org/abs/1705.08500
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["RiskCoverage", "risk_coverage", "threshold_for_coverage", "threshold_for_risk"]

Array = NDArray[np.float64]


class RiskCoverage(NamedTuple):
    """What every threshold would give, from the highest confidence to the lowest.

    Args:
        threshold: (M,) the distinct confidences; videos at or above it are answered.
        coverage: (M,) the share that is answered.
        risk: (M,) the share of the answers that is wrong.
        aurc: Area under the curve: the mean risk when one video after another is answered, the surest first.
            Source: Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019.
            https://arxiv.org/abs/1805.08206
    """

    threshold: Array
    coverage: Array
    risk: Array
    aurc: float


def risk_coverage(confidence: Array, correct: Array) -> RiskCoverage:
    """The curve of risk over coverage.

    Args:
        confidence: (N,) at least one.
        correct: (N,) whether the answer is right. Among answers of one confidence the errors count as spread evenly,
            so that the order of the videos changes nothing.
    """
    levels, place = np.unique(-confidence, return_inverse=True)
    count = np.bincount(place)
    wrong = np.bincount(place, 1.0 - correct)
    answered, errors = count.cumsum(), wrong.cumsum()
    # Errors among the first n answers, n = 1 … N: straight lines between one confidence and the next.
    number = np.arange(1, len(confidence) + 1)
    so_far = np.interp(number, np.append(0, answered), np.append(0, errors))
    return RiskCoverage(-levels, answered / len(confidence), errors / answered, float((so_far / number).mean()))


def threshold_for_risk(curve: RiskCoverage, risk: float) -> float:
    """The least confidence at which to answer, so that no more of the answers than that are wrong.

    Args:
        curve: Of the videos to choose it on.
        risk: In [0, 1].

    Returns:
        Of all thresholds that keep the risk the one that answers most; above 1 (never answer) where none does.
    """
    kept = np.flatnonzero(curve.risk <= risk)
    return float(curve.threshold[kept[-1]]) if len(kept) else float(np.nextafter(1.0, 2.0))


def threshold_for_coverage(curve: RiskCoverage, coverage: float) -> float:
    """The highest confidence to ask for, so that no fewer of the videos than that are answered.

    Args:
        curve: Of the videos to choose it on.
        coverage: In [0, 1].
    """
    return float(curve.threshold[np.flatnonzero(curve.coverage >= coverage - 1e-12)[0]])
