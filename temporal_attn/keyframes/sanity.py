"""The checks of frame scores that ask once more: with halves of the budget, and of models that know nothing.

They are what can fail of a faithfulness test besides the curves: an estimate that does not repeat, and scores that come
out alike whatever the head has learned. Both ask on cached tokens; heads that are shuffled are asked at the smallest
budget, because noise only lowers the agreement that would be a doubt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_attn.keyframes.faithfulness import Faithfulness, measure_faithfulness, permuted_head
from temporal_attn.keyframes.game import FrameGame, FrameScores
from temporal_attn.keyframes.kernel_shap import fewest_evaluations, kernel_shap
from temporal_attn.keyframes.scores import Method
from temporal_attn.keyframes.time_mixing import EncodedClip
from temporal_attn.model import VideoClassifier

__all__ = ["SHUFFLED_HEADS", "check_scores"]

SHUFFLED_HEADS = 4
"""Heads whose τ is averaged: of one alone, 8 frames would stand in much the same order by chance every thirtieth time,
2 frames every second time."""


def check_scores(
    game: FrameGame,
    scores: FrameScores,
    how: Method,
    encoded: EncodedClip,
    model: VideoClassifier,
    *,
    budget: int,
    seed: int = 0,
) -> Faithfulness:
    """`measure_faithfulness` with all of its checks, as far as the method allows them.

    Where the scores were sampled this costs a second budget, half for each of two estimates; the shuffled heads cost
    some twelve evaluations a frame together.

    Args:
        game: The clip and the question.
        scores: What the method said of it.
        how: The method.
        encoded: The clip of the game.
        model: The model that is asked; its head is shuffled in a copy.
        budget: Evaluations that the scores had.
        seed: Of the halves, the shuffles and the random orders.
    """
    return measure_faithfulness(
        game,
        scores.values,
        complete=how.complete,
        halves=_halves(game, how, budget, seed) if _was_sampled(how, scores) else None,
        random_head=_of_shuffled_heads(game, how, encoded, model, seed),
        seed=seed,
    )


def _was_sampled(how: Method, scores: FrameScores) -> bool:
    """Whether chance had a say; an interval without any width tells that every coalition was asked."""
    exact = scores.ci is not None and bool((scores.ci[:, 0] == scores.ci[:, 1]).all())
    return how.sampled and not exact


def _halves(game: FrameGame, how: Method, budget: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two estimates from separate samples of half the budget, or of the least that an estimate takes."""
    half = max(budget // 2, fewest_evaluations(len(game)))
    first, second = (how.score(game, half, 2 * seed + number).values for number in (0, 1))
    return first, second


def _of_shuffled_heads(
    game: FrameGame, how: Method, encoded: EncodedClip, model: VideoClassifier, seed: int
) -> Tensor | None:
    """(M, P) scores by models with shuffled heads; None where shuffling leaves the model as it is."""
    score = kernel_shap if how.complete else how.score  # Shapley values, of which `exact` would ask every coalition
    rows = []
    for number in range(SHUFFLED_HEADS):
        other = permuted_head(model, SHUFFLED_HEADS * seed + number)
        if all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True)):
            return None
        lost = game.by(encoded.head_of(other))
        rows.append(score(lost, fewest_evaluations(len(game)), seed).values)
    return torch.stack(rows)
