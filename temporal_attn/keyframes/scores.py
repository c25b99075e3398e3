"""Frame scores by name: what each frame contributes to a class, asked in twelve ways on tokens computed once.

Methods that ask the model (`shapley` and its relatives) are measures; those that read it (`attn_pool`, `rollout_pool`,
`chefer`, `grad_pool`) are previews and say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from temporal_attn.keyframes.ablation import leave_one_in, leave_one_out, leave_one_out_and_in
from temporal_attn.keyframes.auto import shapley_with_ties_broken
from temporal_attn.keyframes.decomposition import logit_shares
from temporal_attn.keyframes.game import FrameGame, FrameHead, FrameScores
from temporal_attn.keyframes.gradients import integrated_gradients, pool_gradient
from temporal_attn.keyframes.kernel_shap import kernel_shap
from temporal_attn.keyframes.rollout import attention_pool, chefer, rollout_pool
from temporal_attn.keyframes.shapley import BUDGET, exact_shapley
from temporal_attn.keyframes.targets import resolve_target
from temporal_attn.keyframes.third_party import captum_ablation, captum_integrated_gradients, captum_shapley
from temporal_attn.types import UserError

__all__ = [
    "METHODS",
    "OPTIONAL",
    "FrameGame",
    "FrameHead",
    "FrameScores",
    "Method",
    "names",
    "resolve_method",
    "resolve_target",
    "score_frames",
]

Score = Callable[[FrameGame, int, int], FrameScores]
"""(the game of a clip, budget of evaluations, seed) -> a score a player."""

_LOGITS = "centred logits"


@dataclass(frozen=True, slots=True)
class Method:
    """A way to score frames.

    Args:
        score: Scores of a game within a budget of evaluations.
        unit: What a score counts.
        signed: Whether a negative score speaks against the class; an unsigned score only compares frames.
        faithful: Whether the score measures what the model does without frames; otherwise it is a preview.
        summary: What it measures, in words for a report.
        complete: Whether the scores are Shapley values, which sum to v(N) − v(∅).
        sampled: Whether the budget is spent on a sample, unless it is enough for every coalition.
    """

    score: Score
    unit: str
    signed: bool
    faithful: bool
    summary: str
    complete: bool = False
    sampled: bool = False


def _fixed(score: Callable[[FrameGame], Tensor]) -> Score:
    """A score whose cost is fixed and that draws nothing at random."""
    return lambda game, budget, seed: FrameScores(score(game))


METHODS: dict[str, Method] = {
    "auto": Method(
        shapley_with_ties_broken,
        _LOGITS,
        True,
        True,
        "Shapley values; frames that they cannot tell apart stand in the order of loo+loi",
        complete=True,
        sampled=True,
    ),
    "shapley": Method(
        kernel_shap, _LOGITS, True, True, "Shapley values, estimated by KernelSHAP", complete=True, sampled=True
    ),
    "exact": Method(
        lambda game, budget, seed: exact_shapley(game),
        _LOGITS,
        True,
        True,
        "Shapley values over all coalitions",
        complete=True,
    ),
    "loo+loi": Method(
        _fixed(leave_one_out_and_in), _LOGITS, True, True, "mean of leave-one-out and leave-one-in; a quick preview"
    ),
    "loo": Method(_fixed(leave_one_out), _LOGITS, True, True, "leave-one-out: what is lost without the frame"),
    "loi": Method(_fixed(leave_one_in), _LOGITS, True, True, "leave-one-in: what the frame says alone"),
    "ig": Method(_fixed(integrated_gradients), _LOGITS, True, True, "integrated gradients from the mean frame"),
    "logit": Method(_fixed(logit_shares), _LOGITS, True, True, "exact shares of the logit where it is pooled"),
    "grad_pool": Method(
        _fixed(pool_gradient), _LOGITS, True, False, "gradient by the pool's attention to the frame; a quick preview"
    ),
    "chefer": Method(
        _fixed(chefer), "gradient-weighted attention", False, False, "attention rollout weighted by its gradient"
    ),
    "attn_pool": Method(
        _fixed(attention_pool),
        "pooling weights",
        False,
        False,
        "the model's own pooling weights; a preview, not faithful",
    ),
    "rollout_pool": Method(
        _fixed(rollout_pool),
        "attention weights",
        False,
        False,
        "attention rolled out to frames; a preview, not faithful",
    ),
}


OPTIONAL: dict[str, Method] = {
    "captum_shapley": Method(
        captum_shapley, _LOGITS, True, True, "Captum's ShapleyValueSampling over the mean frame", sampled=True
    ),
    "captum_ablation": Method(captum_ablation, _LOGITS, True, True, "Captum's FeatureAblation over the mean frame"),
    "captum_ig": Method(
        captum_integrated_gradients, _LOGITS, True, True, "Captum's IntegratedGradients from the mean frame"
    ),
}
"""Methods of other libraries, for whoever has installed ``temporal-attn[captum]``."""


def names() -> list[str]:
    """Names of the frame scores, the default first."""
    return list(METHODS)


def resolve_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UserError: There is none.
    """
    known = METHODS | OPTIONAL
    if name not in known:
        raise UserError(f"method: there is no frame score {name!r}; choose one of {', '.join(known)}")
    return known[name]


def score_frames(game: FrameGame, method: str = "auto", *, budget: int = BUDGET, seed: int = 0) -> FrameScores:
    """Score the frames of a clip.

    Args:
        game: The clip and the question.
        method: One of `names`, or of `OPTIONAL`.
        budget: Head evaluations of ``auto`` and ``shapley``.
        seed: Source of their sample.

    Returns:
        Values (P,), one a player, in the unit of the method, and where they are estimated an interval (P, 2).

    Raises:
        UserError: An unknown method, one that this model or number of frames does not allow, or too small a budget.
    """
    return resolve_method(method).score(game, budget, seed)
