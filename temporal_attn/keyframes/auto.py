"""The default score: Shapley values whose noise gives way to the order of leave-one-out and leave-one-in.

Order and magnitude need different estimators. KernelSHAP's magnitudes are right, but its sampling error falls on every
frame alike, and shuffles frames that hardly count. The mean of leave-one-out and leave-one-in is free of sampling error
and orders frames well, but its magnitudes are wrong where three or more act together: handing KernelSHAP's magnitudes
out in its order makes the error of a conjunction three times as large. So the values are drawn towards the line that
best predicts them from that mean, as far as their own errors and the spread around the line say (empirical Bayes). A
frame that stands out hardly moves; frames that the sample cannot tell apart fall into the order of ``loo+loi``.

Papers: Morris, "Parametric Empirical Bayes Inference", JASA 1983; Paule and Mandel, "Consensus Values and Weighting
Factors", 1982 (the spread around the line).
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameScores, Game
from temporal_attn.keyframes.kernel_shap import ask_pairs, enumerable, regress
from temporal_attn.keyframes.shapley import BUDGET, exact_shapley, with_interval

__all__ = ["shapley_with_ties_broken", "shrink_to_line"]


def shapley_with_ties_broken(game: Game, budget: int = BUDGET, seed: int = 0) -> FrameScores:
    """KernelSHAP, drawn towards the line of ``loo+loi``; exact where the budget is enough for every coalition.

    The values sum to v(N) − v(∅). The intervals are as wide as KernelSHAP's, so they are on the safe side.

    Args:
        game: The game.
        budget: Evaluations, those of ``loo+loi`` among them.
        seed: Source of the sample.

    Raises:
        UserError: The budget is too small.
    """
    if enumerable(game, budget):
        return exact_shapley(game)
    pairs = ask_pairs(game, budget, seed)
    sampled = regress(pairs)
    assert sampled.ci is not None
    half = (sampled.ci[:, 1] - sampled.ci[:, 0]).double() / 2
    values = shrink_to_line(sampled.values.double(), half / 1.96, pairs.leave_one_out_and_in())
    return with_interval(values, half)


def shrink_to_line(values: Tensor, errors: Tensor, predictor: Tensor) -> Tensor:
    """Posterior means of true values that lie around a line in the predictor.

    Equation: φ_i ~ N(a + b x_i, τ²), φ̂_i ~ N(φ_i, s_i²);  E[φ_i | φ̂_i] is the mean of φ̂_i and the line, weighted by
    1 / s_i² and 1 / τ². τ² is where the weighted squares around the line match their number of degrees of freedom. What
    the sum has changed by goes back to the frames by their variance.

    Args:
        values: (P,) φ̂.
        errors: (P,) standard errors s.
        predictor: (P,) x.

    Returns:
        (P,) with the sum of ``values``.
    """
    freedom = len(values) - 2
    variance = errors.square().clamp(min=1e-12 * float(values.square().mean()) + 1e-30)
    terms = torch.stack([torch.ones_like(predictor), predictor], 1)
    spread = 0.0
    for _ in range(50):
        weights = 1 / (variance + spread)
        line = terms @ torch.linalg.lstsq(terms * weights.sqrt()[:, None], values * weights.sqrt()).solution
        squares = weights * (values - line).square()
        excess = float(squares.sum()) - freedom
        if excess <= 1e-6 * max(freedom, 1):  # Newton's steps come from the left
            break
        spread += excess / float((weights * squares).sum())
    kept = spread / (spread + variance)
    shrunk = kept * values + (1 - kept) * line
    slack = kept * variance
    if float(slack.sum()) == 0:  # all on the line: nothing knows better than the line itself
        slack = torch.ones_like(values)
    settled: Tensor = shrunk + slack / slack.sum() * (values.sum() - shrunk.sum())
    return settled
