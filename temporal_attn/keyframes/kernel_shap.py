"""KernelSHAP: Shapley values by weighted regression on coalitions and their complements.

Papers: Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017,
https://arxiv.org/abs/1705.07874; Covert and Lee, "Improving KernelSHAP", AISTATS 2021,
https://arxiv.org/abs/2012.01536 (pairs of complements); MacKinnon and White, "Some heteroskedasticity-consistent
covariance matrix estimators", Journal of Econometrics 1985 (HC3, the interval).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from temporal_attn.keyframes.game import ClipError, FrameScores, Game
from temporal_attn.keyframes.shapley import BUDGET, EXACT_FRAMES, exact_shapley, student_t, with_interval

__all__ = ["PairedAnswers", "ask_pairs", "enumerable", "fewest_evaluations", "kernel_shap", "regress"]


def kernel_shap(game: Game, budget: int = BUDGET, seed: int = 0) -> FrameScores:
    """Shapley values by weighted regression on pairs of a coalition and its complement.

    Equation: φ = argmin Σ_S k(|S|) (v(S) − v(∅) − Σ_{i ∈ S} φ_i)²  subject to  Σ φ = v(N) − v(∅), with the Shapley
    kernel k(s) = (P − 1) / (C(P, s) s (P − s)).

    Sizes are enumerated from the outside in (1 and P − 1 first, they weigh most) while a size takes no more than half
    of what is left of the budget; the rest is spread over the inner sizes by their weight and drawn without
    replacement. With 2^P ≤ budget everything is enumerated, and the result is exact. Pairs make every interaction of
    an even number of frames cancel. The interval is the sandwich estimate of the regression, of the sampled pairs only.

    Args:
        game: The game.
        budget: Evaluations, the complete and the empty coalition included.
        seed: Source of the sample.

    Raises:
        ClipError: The budget is too small to play each frame alone and left out, and to sample beyond.
    """
    if enumerable(game, budget):
        return exact_shapley(game)
    return regress(ask_pairs(game, budget, seed))


def enumerable(game: Game, budget: int) -> bool:
    """Whether the budget is enough for every coalition."""
    return len(game) <= EXACT_FRAMES and 2 ** len(game) <= budget


def fewest_evaluations(players: int) -> int:
    """The smallest budget: each player alone and left out, and half as many coalitions beyond."""
    return 2 * (players + players // 2) + 2


class _Design(NamedTuple):
    """Pairs of complements to ask.

    Args:
        coalitions: (M, P) bool; their complements are asked too.
        weights: (M,) float64, kernel weight of a pair over the share of its size that is in the sample.
        unseen: (M,) float64, share of the pair's size that is not in the sample: 0 where it is enumerated.
    """

    coalitions: Tensor
    weights: Tensor
    unseen: Tensor


class PairedAnswers(NamedTuple):
    """What a game said to pairs of complements, in worth over v(∅).

    Args:
        design: The pairs; the first P of them are each player alone and all but that player.
        worth: (M,) float64, v(S) − v(∅).
        complement: (M,) float64, v(N − S) − v(∅).
        total: v(N) − v(∅).
    """

    design: _Design
    worth: Tensor
    complement: Tensor
    total: float

    def leave_one_out_and_in(self) -> Tensor:
        """The score of that name, (P,) float64, from answers that are here already."""
        players = self.design.coalitions.shape[1]
        return (self.total - self.complement[:players] + self.worth[:players]) / 2


def ask_pairs(game: Game, budget: int = BUDGET, seed: int = 0) -> PairedAnswers:
    """Draw the pairs of `kernel_shap` and ask the game."""
    design = _draw_coalitions(len(game), budget, seed)
    answers = game.value(torch.cat([design.coalitions, ~design.coalitions])).double() - game.v_empty
    worth, complement = answers.chunk(2)
    return PairedAnswers(design, worth, complement, game.v_full - game.v_empty)


def _draw_coalitions(players: int, budget: int, seed: int) -> _Design:
    left = (budget - 2) // 2  # pairs
    fewest = fewest_evaluations(players)
    if budget < fewest:
        raise ClipError(
            f"budget: {budget} evaluations are too few for {players} frames or stretches; give {fewest} or more, or a "
            "method that does not sample, such as loo+loi"
        )
    generator = torch.Generator().manual_seed(seed)
    # Pairs of each size: a size and its complement are one, and half of the middle size pairs with the other half.
    population = {s: math.comb(players, s) // (2 if 2 * s == players else 1) for s in range(1, players // 2 + 1)}
    rows, weights, unseen = [], [], []

    def add(size: int, coalitions: Tensor) -> None:
        share = len(coalitions) / population[size]
        kernel = (players - 1) / (math.comb(players, size) * size * (players - size))
        rows.append(coalitions)
        weights.append(torch.full((len(coalitions),), kernel / share, dtype=torch.float64))
        unseen.append(torch.full((len(coalitions),), 1 - share, dtype=torch.float64))

    inner = list(population)
    while inner and (population[inner[0]] <= left / 2 or inner[0] == 1):
        size = inner.pop(0)
        add(size, _every(players, size)[: population[size]])
        left -= population[size]
    for size, number in _allocate(inner, population, players, left).items():
        add(size, _sample(players, size, number, generator))
    return _Design(torch.cat(rows), torch.cat(weights), torch.cat(unseen))


def _every(players: int, size: int) -> Tensor:
    """All coalitions of a size, (C(P, size), P) bool; the complement of row r is row −1 − r of the other size."""
    chosen = torch.tensor(list(itertools.combinations(range(players), size)))
    return torch.zeros(len(chosen), players, dtype=torch.bool).scatter_(1, chosen, True)


def _allocate(sizes: list[int], population: dict[int, int], players: int, pairs: int) -> dict[int, int]:
    """Pairs of each size, in proportion to the kernel mass 1 / (s (P − s)), at least one and at most all."""
    mass = {s: (0.5 if 2 * s == players else 1.0) / (s * (players - s)) for s in sizes}
    numbers: dict[int, int] = {}
    total, spent = sum(mass.values()), 0.0
    for size in sizes:  # what rounding leaves over goes on to the next size
        spent += pairs * mass[size] / total
        numbers[size] = max(1, min(population[size], round(spent) - sum(numbers.values())))
    while sum(numbers.values()) > pairs:
        numbers[max(numbers, key=lambda s: numbers[s])] -= 1
    return {size: number for size, number in numbers.items() if number}


def _sample(players: int, size: int, number: int, generator: torch.Generator) -> Tensor:
    """Different coalitions of a size, (number, P) bool, uniformly; of the middle size no two are complements."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < number:
        for row in torch.rand(2 * number, players, generator=generator).argsort(1)[:, :size].sort(1).values.tolist():
            if 2 * size == players and 0 not in row:
                row = sorted(set(range(players)) - set(row))
            found.setdefault(tuple(row))
    chosen = torch.tensor(list(found)[:number])
    return torch.zeros(number, players, dtype=torch.bool).scatter_(1, chosen, True)


def regress(pairs: PairedAnswers) -> FrameScores:
    """Solve the constrained regression of `kernel_shap`, and carry the sample's spread through it."""
    design, worth, complement, total = pairs
    z = design.coalitions.double()
    weighted = z * design.weights[:, None]
    rest = (1 - z) * design.weights[:, None]
    moments = z.T @ weighted + (1 - z).T @ rest
    solved = torch.linalg.inv(moments)
    ones = torch.ones(len(moments), dtype=torch.float64)
    towards = solved @ ones / (ones @ solved @ ones)
    project = solved - torch.outer(towards, ones @ solved)  # moves along Σ φ = const
    values = project @ (weighted.T @ worth + rest.T @ complement) + total * towards

    # Each sampled pair pulls on the values by its residual. A pair with much leverage leaves little of its own error
    # in the residual, which is put back (MacKinnon and White, 1985, HC3).
    pull = weighted * (worth - z @ values)[:, None] + rest * (complement - (1 - z) @ values)[:, None]
    leverage = ((weighted @ project) * z).sum(1) + ((rest @ project) * (1 - z)).sum(1)
    pull = (pull @ project) / (1 - leverage / 2).clamp(min=0.1)[:, None]
    error = (pull.square() * design.unseen[:, None]).sum(0).sqrt()
    freedom = int((design.unseen > 0).sum()) - 1
    return with_interval(values, student_t(max(freedom, 1)) * error)
