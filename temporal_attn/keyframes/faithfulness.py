"""Whether frame scores say what the model does: a test by removal beside chance, and sanity checks that can fail.

Scores pass when frames are missed in the order of their scores, sooner than in a random one (`curves`). The test itself
is in doubt when frames that say nothing are missed too, and the scores are when they come out alike for a model that
knows nothing, when they do not repeat, or when they do not sum to what they share out.

Papers: Liu et al., "Rethinking Attention-Model Explainability through Faithfulness Violation Test", ICML 2022,
https://arxiv.org/abs/2201.12114; Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018,
https://arxiv.org/abs/1810.03292; Jain et al., "Missingness Bias in Model Debugging", ICLR 2022,
https://arxiv.org/abs/2204.08945.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from temporal_attn.keyframes.agreement import kendall_tau
from temporal_attn.keyframes.curves import (
    Areas,
    area,
    areas,
    comprehensiveness,
    deletion_curve,
    greedy_scores,
    insertion_curve,
    normalised,
    random_scores,
    sufficiency,
)
from temporal_attn.keyframes.game import FrameGame

__all__ = [
    "Faithfulness",
    "completeness_gap",
    "cross_evaluation",
    "least_frames",
    "measure_faithfulness",
    "missingness_drift",
    "permuted_head",
    "violates",
]

COMPLETE = 1e-3
"""Largest gap, relative to v(N) − v(∅), of scores that promise to sum to it."""
INDEPENDENT = 0.5
"""Largest τ between the scores of a model and of one whose head is random, for scores that tell about the model."""
REPEATABLE = 0.5
"""Smallest τ between two estimates from separate halves of the budget."""

Head = TypeVar("Head", bound=nn.Module)


def violates(game: FrameGame, scores: Tensor) -> bool:
    """Whether the top frame speaks against the target: without it, v rises (the faithfulness violation test)."""
    without = game.everyone()
    without[int(scores.argmax())] = False
    return bool(game.value(without[None]) > game.v_full)


def completeness_gap(game: FrameGame, scores: Tensor) -> float:
    """|Σ scores − (v(N) − v(∅))| in logits: 0 for Shapley values, which share out all that the clip is worth."""
    return float((scores.double().sum() - (game.v_full - game.v_empty)).abs())


def least_frames(scores: Tensor) -> Tensor:
    """(P,) bool, nearly half of the frames (7 of 16): those with the scores nearest to 0, or the lowest weights."""
    spared = torch.zeros(scores.shape[-1], dtype=torch.bool)
    spared[scores.abs().argsort(stable=True)[: (scores.shape[-1] - 1) // 2]] = True
    return spared


def missingness_drift(game: FrameGame, scores: Tensor) -> float:
    """|f(N) − f(N without the least important frames)|: how much the removal itself changes the answer.

    Frames that say nothing should not be missed. Where they are, removal leads out of what the model was trained on,
    and curves made by removal say little (missingness bias).
    """
    p = game.probability(torch.stack([game.everyone(), ~least_frames(scores)]))
    return float((p[0] - p[1]).abs())


def permuted_head(model: Head, seed: int = 0) -> Head:
    """A copy of a model with the same backbone whose every other parameter has its entries shuffled.

    Scores of a model that knows nothing must not look like those of one that does (the randomisation test of sanity
    checks). Shuffling keeps the distribution of each tensor; a fresh head would be a mean pool, which starts safe.

    Args:
        model: A module, whose ``backbone``, where it has one, is shared with the copy.
        seed: Of the permutations.
    """
    backbone = getattr(model, "backbone", None)
    other = copy.deepcopy(model, {} if backbone is None else {id(backbone): backbone})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not name.startswith("backbone."):
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other


def cross_evaluation(games: Mapping[str, FrameGame], scores: Mapping[str, Tensor]) -> dict[tuple[str, str], Areas]:
    """Areas of scores made with one removal and tested with another: {(scored with, tested with): areas}.

    Scores that are good only under their own removal describe the removal, not the clip.

    Args:
        games: The same clip and question by removal.
        scores: Scores (P,) by the removal they were made with.
    """
    return {(made, tested): areas(game, vector) for made, vector in scores.items() for tested, game in games.items()}


def _mean_tau(scores: Tensor, others: Tensor) -> float | None:
    """Mean Kendall's τ of scores (P,) with each of (M, P); None where no pair has an order to compare."""
    known = [tau for other in others if not math.isnan(tau := kendall_tau(scores, other))]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How faithful the scores of one clip are, each number beside that of random orders where one exists.

    Args:
        deletion: Area under the deletion curve; low is good.
        insertion: Area under the insertion curve; high is good.
        comprehensiveness: Mean f(N) − f(N without the top k); high is good.
        sufficiency: Mean f(N) − f(the top k); low is good.
        random_deletion: The same of random orders, as the next three.
        random_insertion: See above.
        random_comprehensiveness: See above.
        random_sufficiency: See above.
        ndel: Deletion between random (0) and the best order found (1); None where the clip cannot tell orders apart.
        nins: Insertion likewise.
        violation: Whether the top frame speaks against the target.
        completeness_gap: |Σ scores − (v(N) − v(∅))| in logits.
        split_half_tau: τ between two estimates from separate halves of the budget; None where nothing is sampled, or
            all scores are equal.
        random_head_tau: Mean τ between the scores and those of shuffled heads; None where it was not asked, or all
            scores are equal.
        missingness_drift: |Δf| when nearly half of the frames, the least important, are taken away.
        doubts: What makes the numbers above, or the scores, unreliable; one sentence each.
    """

    deletion: float
    insertion: float
    comprehensiveness: float
    sufficiency: float
    random_deletion: float
    random_insertion: float
    random_comprehensiveness: float
    random_sufficiency: float
    ndel: float | None
    nins: float | None
    violation: bool
    completeness_gap: float
    split_half_tau: float | None
    random_head_tau: float | None
    missingness_drift: float
    doubts: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        """Whether no sanity check failed."""
        return not self.doubts


def measure_faithfulness(
    game: FrameGame,
    scores: Tensor,
    *,
    complete: bool = False,
    halves: tuple[Tensor, Tensor] | None = None,
    random_head: Tensor | None = None,
    draws: int = 5,
    seed: int = 0,
) -> Faithfulness:
    """Judge the scores of one clip: some 480 evaluations for 16 frames.

    Args:
        game: The clip and the question; its removal is the one that the test uses.
        scores: (P,).
        complete: Whether the scores promise to sum to v(N) − v(∅).
        halves: Two estimates (P,) from separate halves of the budget; None where nothing is sampled.
        random_head: Scores (P,) of the same clip under `permuted_head`, or (M, P) of several; None leaves that check
            out.
        draws: Random orders to stand beside.
        seed: Of the random orders.
    """
    deletion, insertion = deletion_curve(game, scores), insertion_curve(game, scores)
    chance = random_scores(len(game), draws, seed)
    random_deletion, random_insertion = deletion_curve(game, chance), insertion_curve(game, chance)
    best = [areas(game, greedy_scores(game, insertion=way)) for way in (False, True)]
    own = Areas(float(area(deletion)), float(area(insertion)))
    random = Areas(float(area(random_deletion).mean()), float(area(random_insertion).mean()))
    tau = None if halves is None else _mean_tau(halves[0], halves[1][None])
    head_tau = None if random_head is None else _mean_tau(scores, random_head.reshape(-1, len(scores)))
    gap = completeness_gap(game, scores)
    without_least = game.play(~least_frames(scores)[None]).logits
    flipped = bool(game.question.said(without_least) != game.question.said(game.full.logits))
    checks = {
        f"the scores do not sum to v(N) − v(∅): the gap is {gap:.3g}": complete
        and gap > COMPLETE * max(1.0, abs(game.v_full - game.v_empty)),
        "two halves of the budget disagree; give a larger budget": tau is not None and tau < REPEATABLE,
        "a model with a shuffled head gives much the same scores": head_tau is not None and head_tau > INDEPENDENT,
        "without the frames that matter least the model answers otherwise: removal is out of distribution": flipped,
    }
    return Faithfulness(
        deletion=own.deletion,
        insertion=own.insertion,
        comprehensiveness=float(comprehensiveness(deletion)),
        sufficiency=float(sufficiency(insertion)),
        random_deletion=random.deletion,
        random_insertion=random.insertion,
        random_comprehensiveness=float(comprehensiveness(random_deletion).mean()),
        random_sufficiency=float(sufficiency(random_insertion).mean()),
        ndel=normalised(own.deletion, random.deletion, min(own.deletion, *(found.deletion for found in best))),
        nins=normalised(own.insertion, random.insertion, max(own.insertion, *(found.insertion for found in best))),
        violation=violates(game, scores),
        completeness_gap=gap,
        split_half_tau=tau,
        random_head_tau=head_tau,
        missingness_drift=missingness_drift(game, scores),
        doubts=tuple(text for text, failed in checks.items() if failed),
    )
