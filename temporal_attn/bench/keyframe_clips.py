"""Every method and baseline on one explained clip: what it costs, and how good its order of frames is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from temporal_attn.bench.keyframe_baselines import blind_scores
from temporal_attn.keyframes.agreement import auroc, kendall_tau, precision_at, relative_l2
from temporal_attn.keyframes.curves import Scale, areas, greedy_scores, random_scores
from temporal_attn.keyframes.faithfulness import violates
from temporal_attn.keyframes.scores import METHODS, FrameGame, score_frames
from temporal_attn.types import UserError

__all__ = ["COLUMNS", "Scored", "ask_methods", "ends_of", "look_at_clip", "measure_clip"]

COLUMNS = (
    *("auroc", "p_at_3", "deletion", "insertion", "tau", "rel_l2", "violation", "evals", "cpu_s"),
    *("random_deletion", "random_insertion", "best_deletion", "best_insertion"),
)
"""What `measure_clip` says of each method; the last four are of the clip."""

NAN = float("nan")


class Scored(NamedTuple):
    """Scores of one method on one clip, and their price.

    Args:
        values: (P,), or (M, P) where several draws stand for one method.
        evals: Evaluations of the head, those of the complete and the empty clip included.
        cpu_s: CPU seconds beyond the forward pass of the backbone.
        logits: Whether the values are in the unit of Shapley values, so that their size can be compared.
    """

    values: Tensor
    evals: int = 0
    cpu_s: float = 0.0
    logits: bool = False


def ask_methods(game: FrameGame, methods: Mapping[str, tuple[str, int]], seed: int) -> dict[str, Scored]:
    """Scores of the package's methods, each from a fresh game, so that its price is all its own.

    Args:
        game: The clip and the question.
        methods: Name of the row to name of the method and budget. A method that the model does not allow is left out.
        seed: Of methods that draw.
    """
    scored = {}
    for row, (method, budget) in methods.items():
        start = time.process_time()
        fresh = game.under(game.removal)
        try:
            values = score_frames(fresh, method, budget=budget, seed=seed).values
        except UserError:
            continue
        logits = METHODS[method].unit == METHODS["exact"].unit
        scored[row] = Scored(values, fresh.evaluations, time.process_time() - start, logits)
    return scored


def look_at_clip(game: FrameGame, video: Tensor, seed: int) -> dict[str, Scored]:
    """Scores of all baselines: random orders, those that do not ask the model, and the greedy search.

    Args:
        game: The clip and the question.
        video: (P, C, H, W) frames of the players.
        seed: Of the random orders.
    """
    start = time.process_time()
    before = game.evaluations
    greedy = greedy_scores(game)
    searched = Scored(greedy, 2 + game.evaluations - before, time.process_time() - start)
    blind = {name: Scored(values) for name, values in blind_scores(video).items()}
    return {"random": Scored(random_scores(len(game), seed=seed)), **blind, "greedy": searched}


def measure_clip(
    game: FrameGame, scored: Mapping[str, Scored], key: Tensor | None, exact: Tensor | None, scale: Scale
) -> dict[str, list[float]]:
    """The `COLUMNS` of each method.

    Args:
        game: The clip and the question; its removal is the one that tests.
        scored: By method.
        key: (P,) bool, key frames where they are known.
        exact: (P,) exact Shapley values where they are known.
        scale: The two ends between which areas lie on this clip.
    """
    return {name: _measure(game, method, key, exact) + ends_of(scale) for name, method in scored.items()}


def _measure(game: FrameGame, scored: Scored, key: Tensor | None, exact: Tensor | None) -> list[float]:
    draws = list(scored.values.view(-1, len(game)))
    both = areas(game, scored.values)
    return [
        NAN if key is None else _mean([auroc(values, key) for values in draws]),
        NAN if key is None else _mean([precision_at(values, key) for values in draws]),
        both.deletion,
        both.insertion,
        NAN if exact is None else _mean([kendall_tau(values, exact) for values in draws]),
        relative_l2(scored.values, exact) if exact is not None and scored.logits else NAN,
        _mean([violates(game, values) for values in draws]),
        scored.evals,
        scored.cpu_s,
    ]


def ends_of(scale: Scale) -> list[float]:
    """The last four of `COLUMNS`."""
    return [*scale.random, *scale.best]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
