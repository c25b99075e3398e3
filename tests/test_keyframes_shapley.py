"""Shapley values: axioms, brute force over orders, convergence, and intervals that hold what they promise."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from temporal_attn.keyframes.ablation import leave_one_out_and_in
from temporal_attn.keyframes.auto import shapley_with_ties_broken, shrink_to_line
from temporal_attn.keyframes.kernel_shap import ask_pairs, kernel_shap
from temporal_attn.keyframes.shapley import (
    exact_shapley,
    marginal_contributions,
    permutation_shapley,
    student_t,
)
from temporal_attn.types import UserError
from tests.white_box import shapley_by_orders

ESTIMATORS = [kernel_shap, permutation_shapley, shapley_with_ties_broken]


class Table:
    """A game given by the worth of each of its 2^P coalitions; bit i of the row is player i."""

    def __init__(self, worth: Tensor) -> None:
        self.worth = worth.double()
        self.players = len(worth).bit_length() - 1
        self.v_full, self.v_empty = float(worth[-1]), float(worth[0])
        self.asked: list[Tensor] = []

    def __len__(self) -> int:
        return self.players

    def value(self, coalitions: Tensor) -> Tensor:
        self.asked.append(coalitions)
        return self.worth[(coalitions.long() << torch.arange(self.players)).sum(1)]

    def of(self, seen: frozenset[int]) -> float:
        return float(self.worth[sum(1 << player for player in seen)])


def random_game(players: int, seed: int) -> Table:
    return Table(torch.randn(2**players, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def coalitions_of(players: int) -> Tensor:
    return (torch.arange(2**players)[:, None] >> torch.arange(players)) & 1 > 0


def smooth_game(players: int, seed: int) -> Table:
    """A small net of the players: every order of interaction, but large ones are small, as in a trained head."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(players, 8, generator=generator, dtype=torch.float64)
    out = torch.randn(8, generator=generator, dtype=torch.float64)
    return Table(torch.tanh(0.7 * coalitions_of(players).double() @ hidden) @ out)


def pair_game(players: int, seed: int) -> Table:
    """Every frame for itself, and every two together."""
    generator = torch.Generator().manual_seed(seed)
    z = coalitions_of(players).double()
    alone = torch.randn(players, generator=generator, dtype=torch.float64)
    together = torch.randn(players, players, generator=generator, dtype=torch.float64)
    return Table(z @ alone + torch.einsum("si,ij,sj->s", z, together, z))


@settings(max_examples=20, deadline=None)
@given(players=st.integers(1, 6), seed=st.integers(0, 999))
def test_exact_values_are_the_mean_over_all_orders(players, seed):
    game = random_game(players, seed)
    exact = exact_shapley(game)
    assert exact.values.tolist() == pytest.approx(shapley_by_orders(players, game.of), abs=1e-5)
    assert exact.values.sum().item() == pytest.approx(game.v_full - game.v_empty, abs=1e-5)
    torch.testing.assert_close(exact.ci[:, 0], exact.ci[:, 1])


@pytest.mark.parametrize("estimate", [lambda game: exact_shapley(game), *ESTIMATORS])
@pytest.mark.parametrize("players", [7, 11])
def test_the_axioms(estimate, players):
    """Efficiency, symmetry and the dummy player, on a net where two players do the same and one does nothing."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(players, 8, generator=generator, dtype=torch.float64)
    hidden[3], hidden[5] = hidden[2], 0.0
    game = Table(torch.tanh(coalitions_of(players).double() @ hidden).sum(1))
    scores = estimate(game)
    assert scores.values.sum().item() == pytest.approx(game.v_full - game.v_empty, abs=1e-4)
    half = 2 * (scores.ci[:, 1] - scores.ci[:, 0]) + 1e-5
    assert abs(scores.values[2] - scores.values[3]) <= half[2]
    assert abs(scores.values[5]) <= half[5]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), players=st.integers(2, 6))
def test_values_add_up_over_games(seed, players):
    one, two = random_game(players, seed), random_game(players, seed + 1)
    both = Table(one.worth + 2 * two.worth)
    torch.testing.assert_close(
        exact_shapley(both).values, exact_shapley(one).values + 2 * exact_shapley(two).values, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("players", [2, 5, 8, 9])
def test_a_full_enumeration_is_exact(players):
    game = random_game(players, 7)
    expected = exact_shapley(game).values
    for estimate in (kernel_shap, shapley_with_ties_broken):
        scores = estimate(game, budget=2**players)
        torch.testing.assert_close(scores.values, expected)
        torch.testing.assert_close(scores.ci[:, 0], scores.ci[:, 1])


@pytest.mark.parametrize("players", [10, 11])
def test_a_regression_over_all_pairs_is_exact(players, monkeypatch):
    """The regression itself, without the short cut that enumerates."""
    monkeypatch.setattr("temporal_attn.keyframes.kernel_shap.EXACT_FRAMES", 0)
    game = random_game(players, 3)
    scores = kernel_shap(game, budget=2 ** (players + 1))
    torch.testing.assert_close(scores.values, exact_shapley(game).values, atol=1e-5, rtol=1e-4)
    assert len(torch.cat(game.asked)) >= 2**players - 2


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_interactions_of_two_are_exact_from_pairs_of_complements_or_reverses(estimate):
    game = pair_game(12, 0)
    torch.testing.assert_close(estimate(game, 300).values, exact_shapley(game).values, atol=1e-4, rtol=1e-4)


def test_the_mean_of_both_ends_is_exact_for_interactions_of_two():
    game = pair_game(8, 1)
    torch.testing.assert_close(leave_one_out_and_in(game).float(), exact_shapley(game).values, atol=1e-4, rtol=1e-4)


def test_contributions_along_given_orders_are_those_of_a_loop():
    game = random_game(5, 2)
    orders = torch.tensor(list(itertools.permutations(range(5)))[::13])
    gains = marginal_contributions(game, orders)
    for order, gain in zip(orders.tolist(), gains, strict=True):
        seen: frozenset[int] = frozenset()
        for player in order:
            assert gain[player].item() == pytest.approx(game.of(seen | {player}) - game.of(seen))
            seen |= {player}


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_more_evaluations_come_closer(estimate):
    def error(budget: int) -> float:
        squares = []
        for seed in range(8):
            game = smooth_game(12, seed)
            squares.append((estimate(game, budget, seed).values - exact_shapley(game).values).square().sum())
        return float(torch.stack(squares).mean().sqrt())

    assert error(2048) < 0.6 * error(256)


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_intervals_cover(estimate):
    inside = []
    for seed in range(40):
        game = smooth_game(10, seed)
        truth, scores = exact_shapley(game).values, estimate(game, 240, seed)
        inside.append(((scores.ci[:, 0] <= truth) & (truth <= scores.ci[:, 1])).float().mean())
        assert (scores.ci[:, 0] <= scores.values).all()
        assert (scores.values <= scores.ci[:, 1]).all()
    assert 0.9 <= torch.stack(inside).mean() <= 0.995


@settings(max_examples=20, deadline=None)
@given(players=st.integers(10, 24), budget=st.integers(100, 1200), seed=st.integers(0, 99))
def test_the_sample_is_made_of_different_pairs_within_the_budget(players, budget, seed):
    class Sizes(Table):
        def __init__(self) -> None:
            self.players, self.v_full, self.v_empty, self.asked = players, 1.0, 0.0, []

        def value(self, coalitions: Tensor) -> Tensor:
            self.asked.append(coalitions)
            return coalitions.double().mean(1)

    game = Sizes()
    pairs = ask_pairs(game, budget, seed)
    [asked] = game.asked
    assert len(asked) + 2 <= budget
    assert len({tuple(row) for row in asked.tolist()}) == len(asked), "nothing is asked twice"
    first, second = asked.chunk(2)
    assert (first ^ second).all()
    torch.testing.assert_close(first[:players], torch.eye(players, dtype=torch.bool))
    torch.testing.assert_close(
        pairs.leave_one_out_and_in(), torch.full((players,), 1 / players, dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_a_seed_is_a_result(estimate):
    game = smooth_game(12, 0)
    torch.testing.assert_close(estimate(game, 200, 3).values, estimate(game, 200, 3).values, rtol=0, atol=0)
    assert not torch.equal(estimate(game, 200, 3).values, estimate(game, 200, 4).values)


def test_the_default_is_not_further_off_than_kernel_shap_and_orders_better():
    """A redundant clip: three frames say the same, the others hardly count, and each of those a little differently."""
    errors: dict[str, list[float]] = {"kernel": [], "auto": []}
    concordance: dict[str, list[float]] = {"kernel": [], "auto": []}
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        z = coalitions_of(12).double()
        little = 0.02 * torch.randn(12, generator=generator, dtype=torch.float64)
        game = Table(4 * z[:, [1, 4, 7]].amax(1) + z @ little)
        truth = exact_shapley(game).values
        for name, estimate in (("kernel", kernel_shap), ("auto", shapley_with_ties_broken)):
            values = estimate(game, 300, seed).values
            errors[name].append(float((values - truth).norm() / truth.norm()))
            agree = torch.sign(values[:, None] - values) * torch.sign(truth[:, None] - truth)
            concordance[name].append(float(agree.sum() / (12 * 11)))
    mean = {name: sum(values) / len(values) for name, values in errors.items()}
    tau = {name: sum(values) / len(values) for name, values in concordance.items()}
    assert mean["auto"] <= mean["kernel"]
    assert tau["auto"] > tau["kernel"] + 0.1


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_where_nothing_matters_nothing_scores(estimate):
    scores = estimate(Table(torch.full((2**11,), 3.0)))
    assert scores.values.abs().max() < 1e-9
    assert scores.ci.abs().max() < 1e-9


def test_shrinkage_keeps_what_is_certain_and_the_sum():
    generator = torch.Generator().manual_seed(0)
    predictor = torch.randn(12, generator=generator, dtype=torch.float64)
    values = 2 * predictor + torch.randn(12, generator=generator, dtype=torch.float64)
    errors = torch.full((12,), 1.0, dtype=torch.float64)
    errors[3] = 1e-9
    shrunk = shrink_to_line(values, errors, predictor)
    assert shrunk.sum().item() == pytest.approx(values.sum().item())
    assert shrunk[3].item() == pytest.approx(values[3].item(), abs=1e-6)
    torch.testing.assert_close(shrink_to_line(values, torch.zeros_like(errors), predictor), values)


def test_noise_on_a_line_is_taken_away():
    generator = torch.Generator().manual_seed(0)
    predictor = torch.linspace(-1, 2, 40, dtype=torch.float64)
    noise = torch.randn(40, generator=generator, dtype=torch.float64)
    shrunk = shrink_to_line(3 * predictor + 0.5 * noise, torch.full((40,), 0.5, dtype=torch.float64), predictor)
    assert (shrunk - 3 * predictor).norm() < 0.5 * (0.5 * noise).norm()


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (17, 2.110), (1000, 1.962)]
)
def test_quantiles_are_those_of_the_tables(freedom, expected):
    assert student_t(freedom) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: exact_shapley(Table(torch.zeros(2**17))), "17 frames are too many"),
        (lambda: kernel_shap(random_game(12, 0), budget=30), "budget: 30"),
        (lambda: shapley_with_ties_broken(random_game(12, 0), budget=30), "budget: 30"),
        (lambda: permutation_shapley(random_game(12, 0), budget=30), "budget: 30"),
    ],
)
def test_too_much_or_too_little_is_one_line_with_the_remedy(ask, words):
    with pytest.raises(UserError, match=words):
        ask()
