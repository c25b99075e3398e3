"""How well frame scores agree: with each other, and with frames that are known to matter.

Ranks and signs only tell the order, and the order of many scores near zero is noise; `relative_l2` tells the size.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["auroc", "kendall_tau", "precision_at", "relative_l2", "spearman_rho"]


def kendall_tau(first: Tensor, second: Tensor) -> float:
    """Kendall's τ-b of two score vectors (P,): in [−1, 1], ties accounted for; nan where a vector has only ties.

    Equation: the cosine of the two matrices sign(a_i − a_j) and sign(b_i − b_j).
    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 1945.
    """
    signs = [torch.sign(scores.double()[:, None] - scores.double()[None, :]).flatten() for scores in (first, second)]
    return float((signs[0] @ signs[1]) / (signs[0].norm() * signs[1].norm()))


def spearman_rho(first: Tensor, second: Tensor) -> float:
    """Spearman's ρ of two score vectors (P,): Pearson's correlation of ranks, where ties share their mean rank."""
    ranks = [mean_ranks(scores) for scores in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    return float((centred[0] @ centred[1]) / (centred[0].norm() * centred[1].norm()))


def mean_ranks(scores: Tensor) -> Tensor:
    """Ranks (P,) from 0, float64; equal scores share the mean of the ranks that they take up."""
    _, member, count = torch.unique(scores, return_inverse=True, return_counts=True)
    shared: Tensor = count.cumsum(0) - (count + 1).double() / 2
    return shared[member]


def relative_l2(scores: Tensor, reference: Tensor) -> float:
    """‖scores − reference‖ / ‖reference‖ of two score vectors (P,)."""
    return float((scores.double() - reference.double()).norm() / reference.double().norm())


def auroc(scores: Tensor, key: Tensor) -> float:
    """Probability that a key frame scores higher than another one, ties counted half.

    Args:
        scores: (P,).
        key: (P,) bool, True = the frame is known to matter; some are and some are not.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982.
    """
    above = scores[key][:, None] - scores[~key][None, :]
    return float(((above > 0).double() + (above == 0).double() / 2).mean())


def precision_at(scores: Tensor, key: Tensor, k: int = 3) -> float:
    """Share of key frames among the k highest scores.

    Args:
        scores: (P,).
        key: (P,) bool, True = the frame is known to matter.
        k: Frames that are picked.
    """
    return float(key[scores.argsort(descending=True, stable=True)[:k]].double().mean())
