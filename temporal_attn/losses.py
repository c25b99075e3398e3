"""Losses of logits (B, K) against labels: one class a clip, shares of mixed clips, or several classes at once.

A label is a class index (B,) or a row of shares (B, K), as mixup and cutmix make them; every loss takes both, and an
index means the same as its one-hot row. What is mixed costs the mean of both labels' losses, weighted by their shares.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax, one_hot

__all__ = [
    "BalancedSoftmax",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "FocalLoss",
    "balanced_weights",
    "build",
    "count_classes",
    "distillation_loss",
    "names",
    "shares",
]


def shares(label: Tensor, num_classes: int) -> Tensor:
    """Labels as rows of shares (B, K), in floats.

    Args:
        label: (B,) int64 class indices, or (B, K) already.
        num_classes: K.
    """
    rows = label if label.ndim == 2 else one_hot(label, num_classes)
    return rows if rows.is_floating_point() else rows.float()


class CrossEntropy(nn.Module):
    """Cross-entropy of the softmax, with smoothed labels and class weights.

    Papers: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016 (smoothing).
        https://arxiv.org/abs/1512.00567; Zhang et al., "mixup", ICLR 2018 (shares). https://arxiv.org/abs/1710.09412
    Equation: L = Σ_ik w_k q'_ik c_ik / Σ_ik w_k q_ik with the costs c = -log softmax(z) and the smoothed labels
        q' = (1 - ε) q + ε / K. For class indices that is `torch.nn.functional.cross_entropy`, weights included.

    Args:
        label_smoothing: ε in [0, 1).
        class_weights: w (K,), None for equal ones.

    Shape:
        logits (B, K), label (B,) int64 or (B, K) shares; output a scalar.
    """

    class_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)  # of the training data, not of the model

    def costs(self, logits: Tensor) -> Tensor:
        """What each class costs (B, K) where it is the true one."""
        return -log_softmax(logits, 1)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean cost of the labels."""
        true = shares(label, logits.shape[1])
        smoothed = true + self.label_smoothing * (1 / logits.shape[1] - true)
        if self.class_weights is not None:
            true, smoothed = true * self.class_weights, smoothed * self.class_weights
        # A batch whose classes all weigh nothing costs nothing.
        return (smoothed * self.costs(logits)).sum() / true.sum().clamp(min=torch.finfo(true.dtype).tiny)


class BalancedSoftmax(CrossEntropy):
    """Cross-entropy under the class frequencies of training, so that the logits themselves hold for balanced classes.

    Paper: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
        https://arxiv.org/abs/2007.10740
    Equation: p_k = n_k exp(z_k) / Σ_j n_j exp(z_j); c = -log p. In evaluation z is used without n.

    Args:
        class_counts: n (K,), videos of each class in training; a class without any counts as one.
        label_smoothing: As in `CrossEntropy`.
        class_weights: Likewise.
    """

    log_counts: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        counts = torch.tensor(class_counts, dtype=torch.float32).clamp(min=1)
        self.register_buffer("log_counts", counts.log(), persistent=False)

    def costs(self, logits: Tensor) -> Tensor:
        """As in `CrossEntropy`, of the frequency-weighted softmax."""
        return super().costs(logits + self.log_counts)


class FocalLoss(CrossEntropy):
    """Cross-entropy in which clips that are classified well already count little.

    Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. https://arxiv.org/abs/1708.02002
    Equation: c = -(1 - p)^γ log p with p = softmax(z); γ = 0 is `CrossEntropy`. The paper's α are the class weights.

    Args:
        gamma: γ, 0 or more; the paper's choice is 2.
        label_smoothing: As in `CrossEntropy`.
        class_weights: Likewise.
    """

    def __init__(
        self, gamma: float = 2.0, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        if not gamma >= 0:
            raise ValueError(f"gamma of the focal loss must not be negative, got {gamma}")
        self.gamma = gamma

    def costs(self, logits: Tensor) -> Tensor:
        """As in `CrossEntropy`, times (1 - p)^γ."""
        cost = super().costs(logits)
        # 1 - p without cancellation. At exactly 0 the slope of a power below 1 is infinite: stay above it.
        rest = -torch.expm1(-cost)
        return rest.clamp(min=torch.finfo(rest.dtype).tiny) ** self.gamma * cost


class BinaryCrossEntropy(nn.Module):
    """Cross-entropy of a sigmoid for each class: for videos that belong to several classes, or to none.

    Equation: L = -mean_ik [v_k y' log σ(z) + (1 - y') log(1 - σ(z))] with y' = (1 - ε) y + ε / 2.

    Args:
        label_smoothing: ε in [0, 1).
        positive_weights: v (K,), None for ones.

    Shape:
        logits (B, K), label (B, K) in [0, 1] or (B,) int64; output a scalar.
    """

    positive_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, positive_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weights = None if positive_weights is None else torch.tensor(positive_weights, dtype=torch.float32)
        self.register_buffer("positive_weights", weights, persistent=False)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean cost over clips and classes."""
        true = shares(label, logits.shape[1])
        smoothed = true + self.label_smoothing * (0.5 - true)
        return binary_cross_entropy_with_logits(logits, smoothed, pos_weight=self.positive_weights)


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far a student's softened probabilities are from its teacher's.

    Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. https://arxiv.org/abs/1503.02531
    Equation: T² KL(softmax(z_teacher / T) ‖ softmax(z / T)), the mean over clips; T² keeps the size of its gradients
        whatever T is.

    Args:
        logits: (B, K) of the student.
        teacher: (B, K) logits of the teacher, or logarithms of its probabilities.
        temperature: T, above 0.
    """
    own, wanted = log_softmax(logits / temperature, 1), log_softmax(teacher / temperature, 1)
    return temperature**2 * kl_div(own, wanted, reduction="batchmean", log_target=True)


# -- long tails ------------------------------------------------------------------------------------------------------


def count_classes(labels: Iterable[int | tuple[int, ...] | None], num_classes: int) -> list[int]:
    """Videos of each class; one of several classes counts for each of them.

    Args:
        labels: Of the videos, None where unknown.
        num_classes: K.
    """
    found: Counter[int] = Counter()
    for label in labels:
        found.update(label if isinstance(label, tuple) else () if label is None else (label,))
    return [found[index] for index in range(num_classes)]


def balanced_weights(class_counts: Sequence[int]) -> list[float]:
    """Weights n / (K n_k) with n = Σ n_k, under which every class counts alike; one without videos counts as one.

    Args:
        class_counts: n_k, videos of each class.
    """
    total, classes = sum(class_counts), len(class_counts)
    return [total / (classes * max(count, 1)) for count in class_counts]


# -- by name ---------------------------------------------------------------------------------------------------------


class _Settings(NamedTuple):
    """What the losses are made from.

    Args:
        label_smoothing: ε.
        class_weights: (K,), or None.
        class_counts: (K,) videos of each class; empty where they are not known.
        focal_gamma: γ.
    """

    label_smoothing: float
    class_weights: list[float] | None
    class_counts: list[int]
    focal_gamma: float


_LOSSES: dict[str, Callable[[_Settings], nn.Module]] = {
    "cross_entropy": lambda s: CrossEntropy(s.label_smoothing, s.class_weights),
    "balanced_softmax": lambda s: BalancedSoftmax(s.class_counts, s.label_smoothing, s.class_weights),
    "focal": lambda s: FocalLoss(s.focal_gamma, s.label_smoothing, s.class_weights),
    "binary": lambda s: BinaryCrossEntropy(s.label_smoothing, s.class_weights),
}


def names() -> list[str]:
    """Names that `build` knows."""
    return list(_LOSSES)


def build(
    name: str,
    num_classes: int,
    label_smoothing: float = 0.0,
    class_weights: str | Sequence[float] | None = None,
    class_counts: Sequence[int] | None = None,
    focal_gamma: float = 2.0,
) -> nn.Module:
    """Make a loss by name: logits (B, K) and label (B,) or (B, K) to a scalar.

    Args:
        name: ``cross_entropy``, ``balanced_softmax``, ``focal``, or ``binary`` for videos of several classes.
        num_classes: K.
        label_smoothing: In [0, 1).
        class_weights: One for each class; ``balanced`` takes them from the counts, see `balanced_weights`. In
            ``binary`` they weigh a class's positives.
        class_counts: Videos of each class in training; needed for ``balanced`` and ``balanced_softmax`` only.
        focal_gamma: γ of ``focal``.

    Raises:
        ValueError: The name is not known, a value is out of its range, or counts are needed and not known.
    """
    if name not in _LOSSES:
        raise ValueError(f"loss {name!r} is not known; choose one of: {', '.join(_LOSSES)}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    counts = list(class_counts or ())
    if (name == "balanced_softmax" or class_weights == "balanced") and len(counts) != num_classes:
        wanted = "loss 'balanced_softmax'" if name == "balanced_softmax" else "class_weights 'balanced'"
        raise ValueError(
            f"{wanted} needs the number of training videos of each of the {num_classes} classes: give class_counts"
        )
    weights = _weights(name, class_weights, counts)
    if weights is not None and (len(weights) != num_classes or not all(0 <= weight < math.inf for weight in weights)):
        raise ValueError(
            f"class_weights must be {num_classes} numbers, none of them negative or infinite, got {weights}"
        )
    return _LOSSES[name](_Settings(label_smoothing, weights, counts, focal_gamma))


def _weights(name: str, given: str | Sequence[float] | None, counts: Sequence[int]) -> list[float] | None:
    if given is None:
        return None
    if not isinstance(given, str):
        return [float(weight) for weight in given]
    if given != "balanced":
        raise ValueError(f"class_weights is {given!r}; it has to be 'balanced', a list, or null")
    return balanced_weights(counts)
