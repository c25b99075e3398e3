"""From the logits of views to the probabilities of a video, and what validation decides about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, nll_loss

from temporal_attn.evaluation.selective import risk_coverage, threshold_for_coverage, threshold_for_risk
from temporal_attn.metrics import VideoScore, average_views

__all__ = ["Average", "Scoring", "calibrated", "fit_temperature", "negative_log_likelihood"]

Average = Literal["probabilities", "logits"]

_LOWEST, _HIGHEST = math.log(0.05), math.log(20.0)
_TOLERANCE = 1e-4
_TINY = 1e-12


@dataclass(frozen=True)
class Scoring:
    """How logits become the probabilities that are given out, and when none are.

    Args:
        average: What is averaged over the views of a video: ``probabilities`` or ``logits``.
        multi_label: Whether classes are asked one by one (sigmoid), instead of against each other (softmax).
        temperature: What logits are divided by.
        threshold: Least probability of the top class at which the model answers; None where it always does.

    Raises:
        ValueError: There is no such average.
    """

    average: Average = "probabilities"
    multi_label: bool = False
    temperature: float = 1.0
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.average not in get_args(Average):
            raise ValueError(f"average is {self.average!r}; it has to be {' or '.join(get_args(Average))}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (..., K) of logits (..., K), in single precision or better."""
        scaled = (logits if logits.dtype == torch.float64 else logits.float()) / self.temperature
        return scaled.sigmoid() if self.multi_label else scaled.softmax(-1)

    def by_video(self, views: VideoScore) -> VideoScore:
        """Probabilities of each video.

        Args:
            views: Logits, one row a view.
        """
        if self.average == "logits":
            videos = average_views(views)
            return replace(videos, scores=self.probabilities(videos.scores))
        return average_views(replace(views, scores=self.probabilities(views.scores)))

    def abstains(self, probabilities: Sequence[float]) -> bool:
        """Whether the model keeps silent about a video.

        Args:
            probabilities: K values.
        """
        return self.threshold is not None and max(probabilities) < self.threshold


def calibrated(
    views: VideoScore, scoring: Scoring, risk: float | None = None, coverage: float | None = None
) -> Scoring:
    """The scoring with the temperature that validation asks for, and the threshold for a wanted risk or coverage.

    Args:
        views: Validation logits, one row a view; what has no label or no number is left out.
        scoring: What stays; all of it where there is no view at all.
        risk: Most that may be wrong of what is answered, as a share; None asks for nothing.
        coverage: Least share of the videos that is answered; likewise, and only one of the two.
    """
    if not len(views.index):  # no video could be read, which says nothing of the model
        return scoring
    views = _known(views)
    if not len(views.index):
        return replace(scoring, temperature=1.0, threshold=None)
    scoring = replace(scoring, temperature=fit_temperature(views, scoring), threshold=None)
    if risk is None and coverage is None:
        return scoring
    videos = scoring.by_video(views)
    confidence, top = videos.scores.double().max(1)
    right = videos.label == top if videos.label.ndim == 1 else videos.label.gather(1, top[:, None])[:, 0] > 0
    curve = risk_coverage(confidence.cpu().numpy(), right.double().cpu().numpy())
    chosen = threshold_for_coverage(curve, coverage) if coverage is not None else threshold_for_risk(curve, risk or 0.0)
    return replace(scoring, threshold=chosen)


def negative_log_likelihood(probabilities: Tensor, label: Tensor) -> Tensor:
    """Mean over videos of -log of the true class's probability; of several labels the mean over classes as well.

    Args:
        probabilities: (N, K).
        label: (N,) class indices; of several labels (N, K), 1 for each class that holds.
    """
    clamped = probabilities.clamp(min=_TINY)
    if label.ndim == 1:
        return nll_loss(clamped.log(), label)
    return binary_cross_entropy(clamped.clamp(max=1), label.to(clamped))


def fit_temperature(views: VideoScore, scoring: Scoring) -> float:
    """The temperature under which the labels are most probable, given that it is not far from 1 without good reason.

    Paper: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. https://arxiv.org/abs/1706.04599
    Equation: argmin over T of Σ -log p(y | z / T) + ½ (log T)²

    The last term is a standard normal prior of log T. It weighs as much as one video, and keeps the answer finite where
    all videos are right, or all wrong, and the likelihood alone would drive T to zero or infinity.

    Args:
        views: Validation logits, one row a view, all of them labelled.
        scoring: How they become probabilities; its own temperature does not matter.

    Returns:
        T in [0.05, 20].
    """
    videos = len(set(views.index.tolist()))

    def cost(log_t: float) -> float:
        found = replace(scoring, temperature=math.exp(log_t)).by_video(views)
        return videos * negative_log_likelihood(found.scores, found.label).item() + log_t**2 / 2

    return math.exp(_golden_section(cost, _LOWEST, _HIGHEST))


def _known(views: VideoScore) -> VideoScore:
    """The rows with a label and with nothing but numbers."""
    kept = views.label.reshape(len(views.label), -1).ge(0).all(1) & views.scores.isfinite().all(1)
    return VideoScore(views.index[kept], views.scores[kept], views.label[kept])


def _golden_section(cost: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it.

    Source: Kiefer, "Sequential minimax search for a maximum", Proc. AMS 1953.
    """
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    of_left, of_right = cost(left), cost(right)
    while high - low > _TOLERANCE:
        if of_left <= of_right:
            high, right, of_right = right, left, of_left
            left = high - golden * (high - low)
            of_left = cost(left)
        else:
            low, left, of_left = left, right, of_right
            right = low + golden * (high - low)
            of_right = cost(right)
    return (low + high) / 2
