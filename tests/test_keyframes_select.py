"""Key frames and verdicts: the rule, and every number re-computed by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from temporal_attn.keyframes import (
    Evidence,
    Finding,
    FrameGame,
    score_frames,
    select_keyframes,
    state_verdict,
    weigh_evidence,
)
from temporal_attn.types import ModelOutput, UserError


class Sum:
    """Logits (s, 0, 0), s the sum of what the seen frames say, minus 2."""

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        assert mask is not None
        said = (tokens[..., 0] * mask).sum(1) - 2
        return ModelOutput(torch.stack([said, 0 * said, 0 * said], 1), mask.float())


class Best(Sum):
    """The same with the strongest seen frame instead of the sum: all say it."""

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        assert mask is not None
        said = (tokens[..., 0] * mask).amax(1) - 2
        return ModelOutput(torch.stack([said, 0 * said, 0 * said], 1), mask.float())


def p(said: float) -> float:
    return math.exp(said - 2) / (math.exp(said - 2) + 2)


def game_of(head: Sum, says: list[float]) -> FrameGame:
    return FrameGame(head, torch.tensor(says)[None, :, None], target=0)


def evidence(**changes: float) -> Evidence:
    base = {"frames": 16, "keyframes": 3, "full": 0.99, "only_key": 0.98, "without_key": 0.21, "draws": 20, "seed": 0}
    return Evidence(**{**base, "only_random": 0.4, "without_random": 0.97, **changes})  # type: ignore[arg-type]


def test_the_best_frames_come_first_and_only_those_that_speak_for_the_class():
    scores = torch.tensor([0.5, -3.0, 2.0, 0.0, 2.0, 1.0])
    assert select_keyframes(scores, range(6), topk=3) == [2, 4, 5]
    assert select_keyframes(scores, range(6), topk=9) == [2, 4, 5, 0]
    assert select_keyframes(-scores.abs(), range(6)) == []


def test_a_gap_passes_over_neighbours_of_a_better_frame():
    scores = torch.tensor([1.0, 5.0, 4.0, 3.0])
    assert select_keyframes(scores, [0.0, 1.0, 1.2, 2.0], topk=3, min_gap_s=1.0) == [1, 3, 0]


@given(
    says=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12),
    topk=st.integers(1, 6),
    gap=st.floats(0, 4),
)
def test_key_frames_keep_their_promises(says, topk, gap):
    pts = [0.7 * i for i in range(len(says))]
    chosen = select_keyframes(torch.tensor(says), pts, topk, gap)
    assert len(chosen) == len(set(chosen)) <= topk
    assert all(says[i] > 0 for i in chosen)
    assert [says[i] for i in chosen] == sorted((says[i] for i in chosen), reverse=True)
    assert all(abs(pts[a] - pts[b]) >= gap for a in chosen for b in chosen if a != b)
    if max(says) > 0:
        assert says[chosen[0]] == max(says)


@pytest.mark.parametrize("options", [{"topk": 0}, {"min_gap_s": -1.0}, {"min_gap_s": float("nan")}])
def test_impossible_choices_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        select_keyframes(torch.ones(3), [0.0, 1.0, 2.0], **options)


def test_the_evidence_is_the_models_own_answers():
    says = [0.0, 5.0, 0.0, 2.0, 0.0, -1.0]
    game = game_of(Sum(), says)
    before = game.evaluations
    e = weigh_evidence(game, [1, 3], draws=7)
    assert 2 < game.evaluations - before <= 2 + 2 * 7, "sets that are drawn twice are asked once"
    assert e.full == pytest.approx(p(6.0), abs=1e-6)
    assert e.only_key == pytest.approx(p(7.0), abs=1e-6)
    assert e.without_key == pytest.approx(p(-1.0), abs=1e-6)


def test_random_means_converge_to_the_mean_over_all_sets():
    says = [0.0, 5.0, 0.0, 2.0]
    e = weigh_evidence(game_of(Sum(), says), [1], draws=4000)
    assert e.only_random == pytest.approx(np.mean([p(s) for s in says]), abs=0.02)
    assert e.without_random == pytest.approx(np.mean([p(7.0 - s) for s in says]), abs=0.02)


def test_random_sets_follow_the_seed():
    game = game_of(Sum(), [0.0, 5.0, 0.0, 2.0, 1.0])
    assert weigh_evidence(game, [1], seed=3) == weigh_evidence(game, [1], seed=3)
    assert weigh_evidence(game, [1], seed=3).only_random != weigh_evidence(game, [1], seed=4).only_random


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, Finding.DECISIVE),
        ({"only_random": 0.97}, Finding.DECISIVE),
        ({"only_key": 0.5}, Finding.NEEDED),
        ({"without_random": 0.2}, Finding.DECISIVE),
        ({"without_random": 0.2, "only_key": 0.5}, Finding.NO_SMALL_SET),
        ({"without_random": 0.2, "only_random": 0.97}, Finding.NO_SMALL_SET),
        ({"without_key": 0.95}, Finding.ENOUGH),
        ({"without_key": 0.95, "only_random": 0.97}, Finding.NO_SMALL_SET),
        ({"without_key": 0.95, "only_key": 0.5}, Finding.NO_SMALL_SET),
        ({"frames": 5}, Finding.NO_SMALL_SET),
        ({"frames": 6}, Finding.DECISIVE),
        ({"keyframes": 0}, Finding.NO_KEYFRAME),
        ({"frames": 1, "keyframes": 1}, Finding.ONE_FRAME),
        ({"full": 0.004, "only_key": 0.02, "without_key": 0.0, "only_random": 0.0}, Finding.UNSEEN),
        ({"full": 0.004, "only_key": 0.06, "without_key": 0.0, "only_random": 0.0}, Finding.DECISIVE),
        ({"full": 0.2, "only_key": 0.3, "without_key": 0.0, "only_random": 0.0, "floor": 1 / 3}, Finding.UNSEEN),
        ({"full": 0.004, "only_key": 0.02, "frames": 5}, Finding.UNSEEN),
        ({"full": 0.004, "keyframes": 0}, Finding.NO_KEYFRAME),
    ],
)
def test_the_rule(changes, finding):
    assert evidence(**changes).finding is finding


def judge(head: Sum, says: list[float], **options: int) -> tuple[str, Evidence]:
    game = game_of(head, says)
    pts = [0.5 * i for i in range(len(says))]
    key = select_keyframes(score_frames(game).values, pts, **options)
    e = weigh_evidence(game, key)
    return state_verdict(e, "Archery", [pts[i] for i in key], ("Archery", e.full)), e


def test_planted_frames_decide_and_the_verdict_shows_the_numbers():
    says = [0.0] * 16
    says[4], says[9] = 4.0, 3.5
    text, e = judge(Sum(), says)
    assert e.finding is Finding.DECISIVE
    assert text.startswith("2 of 16 frames (2.0 s, 4.5 s) decide: alone they give p(Archery) = ")
    numbers = [float(n) for n in re.findall(r"0\.\d\d", text)]
    expected = [p(7.5), p(7.5), p(0.0), e.only_random, e.without_random]
    assert numbers == pytest.approx(expected, abs=0.005)


def test_where_every_frame_says_it_no_small_set_decides():
    text, e = judge(Best(), [6.0] * 16)
    assert e.finding is Finding.NO_SMALL_SET
    assert text.startswith("No small set of frames decides this clip")


def test_where_no_frame_says_it_there_is_no_key_frame():
    text, e = judge(Sum(), [-1.0, -2.0, 0.0])
    assert (e.keyframes, e.finding) == (0, Finding.NO_KEYFRAME)
    assert text.startswith("No frame speaks for Archery")


def test_a_class_that_the_model_excludes_is_not_decided():
    says = [-9.0] * 16
    says[4] = 1.0
    text, e = judge(Sum(), says)
    assert (e.finding, e.floor) == (Finding.UNSEEN, pytest.approx(1 / 3))
    assert text.startswith("The model does not see Archery here: p(Archery) = 0.00 with all 16")
    assert "decide" not in text


def test_chance_is_no_floor_between_two_classes():
    game = FrameGame(Sum(), torch.tensor([1.0, 2.0, -1.0])[None, :, None], target=(1, 0))
    assert weigh_evidence(game, [1]).floor == 0.05


@pytest.mark.parametrize("says", [5.0, -5.0])
def test_one_frame_is_one_frame(says):
    text, e = judge(Sum(), [says])
    assert e.finding is Finding.ONE_FRAME
    assert "only one frame" in text
    assert f"{p(says):.2f}" in text


def test_a_target_that_the_model_does_not_see_is_said_first():
    text = state_verdict(evidence(full=0.02, keyframes=1), "Archery", [1.0], ("Bowling", 0.97))
    assert text.startswith("The model sees Bowling here (p = 0.97), not Archery (p = 0.02). ")


@pytest.mark.parametrize("changes", [{}, {"only_key": 0.5}, {"without_key": 0.95}, {"frames": 3}])
def test_one_key_frame_is_singular(changes):
    text = state_verdict(evidence(**{"keyframes": 1, **changes}), "Archery", [1.0], ("Archery", 0.99))
    assert "one random frame" in text
    assert not re.search(r"\b(they|them|decide|are)\b", text)


def test_close_times_are_told_apart():
    text = state_verdict(evidence(), "Archery", [2.14, 0.8, 2.1], ("Archery", 0.99))
    assert "(0.80 s, 2.10 s, 2.14 s)" in text
