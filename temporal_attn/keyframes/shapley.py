"""Shapley values of frames: exact for few frames, from random orders for more.

The Shapley value of a frame is what it adds to the frames before it, on average over all orders in which frames could
come. It is the only share that sums to v(N) − v(∅), treats equal frames equally, gives nothing to frames that change
nothing, and adds up over games (Shapley, "A value for n-person games", 1953).

Papers: Castro, Gómez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009,
https://doi.org/10.1016/j.cor.2008.04.004 (random orders); Mitchell et al., "Sampling Permutations for Shapley Value
Estimation", JMLR 2022, https://arxiv.org/abs/2104.12199 (antithetic pairs of them).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from temporal_attn.keyframes.game import ClipError, FrameScores, Game

__all__ = [
    "BUDGET",
    "EXACT_FRAMES",
    "exact_shapley",
    "marginal_contributions",
    "permutation_shapley",
    "student_t",
    "with_interval",
]

BUDGET = 544
"""Head evaluations of the estimators: 34 times 16 frames."""
EXACT_FRAMES = 16
"""Most players whose coalitions are all enumerated: 2^16 of them."""
ROUNDING = 1e-6
"""Share of the largest score below which a score is rounding."""


def exact_shapley(game: Game) -> FrameScores:
    """Shapley values by every one of the 2^P coalitions.

    Equation: φ_i = Σ_{S ∌ i} |S|! (P − |S| − 1)! / P! · (v(S ∪ i) − v(S)).

    Raises:
        ClipError: More than `EXACT_FRAMES` players.
    """
    players = len(game)
    if players > EXACT_FRAMES:
        raise ClipError(
            f"method: exact asks 2^P coalitions, {players} frames are too many; use shapley, or {EXACT_FRAMES} frames"
        )
    bits = 1 << torch.arange(players)
    numbers = torch.arange(2**players)
    worth = torch.cat([game.value((part[:, None] & bits) > 0).double() for part in torch.split(numbers, 4096)])
    sizes = ((numbers[:, None] & bits) > 0).sum(1)
    share = torch.tensor([1 / (players * math.comb(players - 1, s)) for s in range(players)], dtype=torch.float64)
    shares = []
    for bit in bits:
        without = numbers[(numbers & bit) == 0]
        shares.append((share[sizes[without]] * (worth[without + bit] - worth[without])).sum())
    values = torch.stack(shares)
    return with_interval(values, torch.zeros_like(values))


def marginal_contributions(game: Game, orders: Tensor) -> Tensor:
    """What each player adds to those before it, in given orders. At most M · (P − 1) evaluations.

    Args:
        game: The game.
        orders: (M, P) int64, each row a permutation of the players, first comer first.

    Returns:
        (M, P) float64 by player; each row sums to v(N) − v(∅). Their mean estimates the Shapley values.
    """
    count, players = orders.shape
    rank = orders.argsort(1)
    steps = torch.arange(1, players)
    before = rank[:, None, :] < steps[None, :, None]  # (M, P − 1, P): the first s comers
    worth = torch.empty(count, players + 1, dtype=torch.float64)
    worth[:, 0], worth[:, -1] = game.v_empty, game.v_full
    if players > 1:
        worth[:, 1:-1] = game.value(before.flatten(0, 1)).double().view(count, players - 1)
    return worth.diff(dim=1).gather(1, rank)


def permutation_shapley(game: Game, budget: int = BUDGET, seed: int = 0) -> FrameScores:
    """Shapley values from random orders, each played forwards and backwards.

    Two orders that are each other's reverse err in opposite directions; where frames act alone or in pairs one such
    pair is exact. The interval is Student's t over pairs.

    Args:
        game: The game.
        budget: Evaluations; each pair of orders takes 2 · (P − 1).
        seed: Source of the orders.

    Raises:
        ClipError: The budget is too small for two pairs, below which there is no interval.
    """
    players = len(game)
    if players == 1:
        return exact_shapley(game)
    pairs = budget // (2 * (players - 1))
    if pairs < 2:
        raise ClipError(f"budget: {budget} evaluations are too few for {players} frames; give {4 * (players - 1)}")
    generator = torch.Generator().manual_seed(seed)
    forwards = torch.rand(pairs, players, generator=generator).argsort(1)
    gains = (marginal_contributions(game, forwards) + marginal_contributions(game, forwards.flip(1))) / 2
    error = gains.std(0) / math.sqrt(pairs)
    return with_interval(gains.mean(0), student_t(pairs - 1) * error)


def student_t(freedom: int) -> float:
    """97.5 % quantile of Student's t, by the expansion of Abramowitz and Stegun, 26.7.5."""
    z = NormalDist().inv_cdf(0.975)
    if freedom < 4:  # where the expansion has not converged
        return (12.706, 4.303, 3.182)[freedom - 1]
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def with_interval(values: Tensor, half: Tensor) -> FrameScores:
    """Values (P,) with intervals of half-width ``half`` (P,).

    What is below the rounding of float32 answers is 0: rounding speaks neither for a class nor against it.
    """
    values = torch.where(values.abs() < ROUNDING * values.abs().max(), 0, values)
    return FrameScores(values.float(), torch.stack([values - half, values + half], 1).float())
