"""Curves and checks on planted games, whose right answers are known; agreement against scipy and sklearn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn

from temporal_attn.keyframes.agreement import auroc, kendall_tau, precision_at, relative_l2, spearman_rho
from temporal_attn.keyframes.curves import (
    area,
    areas,
    comprehensiveness,
    deletion_curve,
    greedy_scores,
    insertion_curve,
    normalised,
    random_scores,
    scale_of,
    sufficiency,
)
from temporal_attn.keyframes.faithfulness import (
    completeness_gap,
    cross_evaluation,
    measure_faithfulness,
    missingness_drift,
    permuted_head,
    violates,
)
from temporal_attn.keyframes.scores import FrameGame, score_frames
from temporal_attn.types import ModelOutput


class Votes:
    """Class 0 gets the sum of what the frames say for it, class 1 nothing."""

    training = False

    def classify(self, tokens, mask=None, pts=None):
        votes = (tokens[..., 0] * mask).sum(1)
        return ModelOutput(torch.stack([votes, torch.zeros_like(votes)], 1), mask / mask.sum(1, keepdim=True))


def game_of(votes, **options):
    return FrameGame(Votes(), torch.tensor(votes, dtype=torch.float32)[None, :, None], target=0, **options)


PLANTED = [0.5, 3.0, -1.0, 0.0, 2.0, 0.25]


def p(votes):
    return 1 / (1 + np.exp(-np.sum(votes)))


# Curves


def test_curves_take_frames_away_and_add_them_in_order_of_the_score():
    game, order = game_of(PLANTED), [1, 4, 0, 5, 3, 2]
    scores = torch.tensor(PLANTED)
    votes = np.array(PLANTED)
    wanted = [p(votes[order[k:]]) for k in range(7)]
    assert deletion_curve(game, scores).numpy() == pytest.approx(wanted, abs=1e-6)
    assert insertion_curve(game, scores).numpy() == pytest.approx([p(votes[order[:k]]) for k in range(7)], abs=1e-6)


def test_insertion_is_the_deletion_of_the_opposite_order_read_backwards():
    game = game_of(PLANTED)
    scores = random_scores(6, draws=4)
    assert torch.equal(insertion_curve(game, scores), deletion_curve(game, -scores).flip(-1))


def test_area_is_the_trapezoid_mean():
    curve = np.array([1.0, 0.25, 0.5, 0.0])
    wanted = ((1 + 0.25) / 2 + (0.25 + 0.5) / 2 + (0.5 + 0) / 2) / 3
    assert float(area(torch.tensor(curve))) == pytest.approx(wanted)
    assert float(area(torch.ones(17))) == 1


def test_comprehensiveness_and_sufficiency_are_means_over_1_2_4_and_8_of_16():
    votes = np.linspace(-1, 1.5, 16)
    game, scores = game_of(votes), torch.tensor(votes)
    order = np.argsort(-votes)
    without = [p(votes) - p(votes[order[k:]]) for k in (1, 2, 4, 8)]
    alone = [p(votes) - p(votes[order[:k]]) for k in (1, 2, 4, 8)]
    assert float(comprehensiveness(deletion_curve(game, scores))) == pytest.approx(np.mean(without), abs=1e-6)
    assert float(sufficiency(insertion_curve(game, scores))) == pytest.approx(np.mean(alone), abs=1e-6)


@pytest.mark.parametrize("insertion", [False, True])
def test_greedy_search_finds_the_best_of_all_orders_of_votes(insertion):
    game = game_of(PLANTED[:5])
    orders = torch.tensor(list(itertools.permutations(range(5))), dtype=torch.float32)
    curve = insertion_curve if insertion else deletion_curve
    every = area(curve(game, orders))
    best = every.max() if insertion else every.min()
    assert float(area(curve(game, greedy_scores(game, insertion=insertion)))) == pytest.approx(float(best), abs=1e-6)


def test_scale_runs_from_random_orders_to_the_best():
    game = game_of(PLANTED)
    scale = scale_of(game, torch.tensor(PLANTED), draws=7, seed=3)
    assert scale.random == areas(game, random_scores(6, draws=7, seed=3))
    assert scale.best.deletion < scale.random.deletion
    assert scale.best.insertion > scale.random.insertion


def test_normalised_is_0_for_random_1_for_the_best_and_none_where_orders_are_equal():
    assert normalised(0.8, 0.8, 0.2) == 0
    assert normalised(0.2, 0.8, 0.2) == 1
    assert normalised(0.9, 0.8, 0.2) < 0
    assert normalised(0.5, 0.5, 0.5) is None


# Checks


def test_top_frame_that_speaks_against_the_target_is_a_violation():
    game = game_of(PLANTED)
    assert not violates(game, torch.tensor(PLANTED))
    assert violates(game, -torch.tensor(PLANTED))


def test_shapley_values_leave_no_completeness_gap():
    game = game_of(PLANTED)
    exact = score_frames(game, "exact").values
    assert completeness_gap(game, exact) < 1e-5
    assert completeness_gap(game, exact + 1) == pytest.approx(6, abs=1e-4)


def test_frames_that_say_nothing_are_not_missed():
    votes = [2.0, 0, 0, 0, 1, 0, 3]
    game = game_of(votes)
    assert missingness_drift(game, torch.tensor(votes)) == 0
    assert missingness_drift(game, -torch.tensor(votes).sub(3).abs()) > 0.01


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.head = nn.Linear(4, 9)


def test_permuted_head_keeps_every_number_and_the_backbone():
    model = Head().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = permuted_head(model, seed=1)
    assert other.backbone is model.backbone
    assert not torch.equal(other.head.weight, model.head.weight)
    assert torch.equal(other.head.weight.flatten().sort().values, model.head.weight.flatten().sort().values)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(permuted_head(model, seed=1).head.weight, other.head.weight)
    assert not torch.equal(permuted_head(model, seed=2).head.weight, other.head.weight)


def test_cross_evaluation_scores_with_one_removal_and_tests_with_every_other():
    games = {removal: game_of(PLANTED, removal=removal) for removal in ("drop", "mean")}
    scores = {"drop": torch.tensor(PLANTED), "mean": -torch.tensor(PLANTED)}
    crossed = cross_evaluation(games, scores)
    assert set(crossed) == {("drop", "drop"), ("drop", "mean"), ("mean", "drop"), ("mean", "mean")}
    assert crossed["mean", "drop"] == areas(games["drop"], scores["mean"])


def test_faithful_scores_stand_at_the_best_end_and_reversed_ones_beyond_random():
    game = game_of(PLANTED)
    good = measure_faithfulness(game, torch.tensor(PLANTED), complete=True)
    assert good.ndel == pytest.approx(1, abs=1e-5)
    assert good.nins == pytest.approx(1, abs=1e-5)
    assert good.reliable
    assert good.comprehensiveness > good.random_comprehensiveness
    assert good.sufficiency < good.random_sufficiency
    bad = measure_faithfulness(game, -torch.tensor(PLANTED))
    assert bad.ndel < 0 > bad.nins
    assert bad.violation


@pytest.mark.parametrize(
    ("options", "doubt"),
    [
        ({"complete": True}, "do not sum"),
        ({"halves": (torch.tensor(PLANTED), -torch.tensor(PLANTED))}, "halves of the budget disagree"),
        ({"random_head": torch.tensor(PLANTED)}, "shuffled head"),
    ],
)
def test_failed_check_is_told(options, doubt):
    found = measure_faithfulness(game_of(PLANTED), 2 * torch.tensor(PLANTED), **options)
    assert not found.reliable
    assert doubt in found.doubts[0]


def test_removal_that_changes_the_class_is_told():
    # Ten frames speak a little, and no small share of them can be taken away.
    game = game_of([-1.0, *[0.3] * 5])
    assert "out of distribution" in " ".join(measure_faithfulness(game, torch.tensor([9.0, *[1.0] * 5])).doubts)


def test_one_frame_is_judged_without_an_error():
    found = measure_faithfulness(game_of([2.0]), torch.tensor([2.0]), complete=True)
    assert found.ndel is None
    assert found.reliable


# Agreement


@pytest.mark.parametrize("levels", [3, 1000])
def test_correlations_agree_with_scipy_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    for _ in range(5):
        a, b = rng.integers(0, levels, (2, 12)).astype(float)
        first, second = torch.from_numpy(a), torch.from_numpy(b)
        assert kendall_tau(first, second) == pytest.approx(stats.kendalltau(a, b).statistic)
        assert spearman_rho(first, second) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_auroc_agrees_with_sklearn_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(5):
        key, scores = rng.permutation([True] * 3 + [False] * 9), rng.integers(0, 4, 12).astype(np.float32)
        assert auroc(torch.from_numpy(scores), torch.from_numpy(key)) == pytest.approx(roc_auc_score(key, scores))


def test_precision_and_relative_error():
    key = torch.tensor([True, False, True, False])
    assert precision_at(torch.tensor([4.0, 3.0, 2.0, 1.0]), key, k=2) == 0.5
    assert relative_l2(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.8)
