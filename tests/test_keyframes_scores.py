"""Frame scores against closed forms on heads whose every contribution is planted."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.scores import METHODS, OPTIONAL, names, resolve_method, score_frames
from temporal_attn.types import UserError
from tests.white_box import Additive, Either, InTime, Together, WhiteBox, WhiteBoxTruth, centred, tokens_of

ASKING = ["auto", "shapley", "exact", "loo+loi", "loo", "loi"]
"""Methods that need nothing but answers."""


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize(("seed", "target"), [(0, 0), (1, 2)])
def test_every_method_gives_the_exact_answer_of_the_white_box(method, seed, target):
    tokens = tokens_of(6, 4, seed)
    game = FrameGame(WhiteBox(), tokens, target=target)
    expected = WhiteBoxTruth(tokens, target).scores(method)
    assert score_frames(game, method).values.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("method", ["auto", "shapley", "exact", "logit"])
def test_shares_sum_to_what_the_clip_adds_to_nothing(method):
    tokens = tokens_of(6, 4, seed=3)
    game = FrameGame(WhiteBox(), tokens, target=1)
    total = WhiteBoxTruth(tokens, 1).value(range(6))
    assert score_frames(game, method).values.sum().item() == pytest.approx(total, abs=1e-5)
    assert game.v_full - game.v_empty == pytest.approx(total, abs=1e-5)


def test_attention_is_rolled_out_through_a_planted_block():
    tokens = tokens_of(5, 4)
    weights = WhiteBoxTruth(tokens).weights
    scores = score_frames(FrameGame(WhiteBox(uniform_block=True), tokens), "rollout_pool").values
    assert scores.tolist() == pytest.approx([w / 2 + 1 / 10 for w in weights], abs=1e-6)


@pytest.mark.parametrize("method", ["logit", "grad_pool", "chefer", "rollout_pool"])
def test_a_method_that_reads_the_model_refuses_one_it_cannot_read(method):
    game = FrameGame(Additive([0.0, 0.0, 0.0]), tokens_of())
    with pytest.raises(UserError, match=r"pool .*Additive.*shapley"):
        score_frames(game, method)


def test_a_curved_head_has_no_decomposition():
    model = WhiteBox()
    model.head = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3)).eval()
    with pytest.raises(UserError, match=r"linear head.*GELU"):
        score_frames(FrameGame(model, tokens_of(5, 4)), "logit")


def test_integrated_gradients_say_where_there_are_none():
    class Detached(Additive):
        def evidence(self, tokens, mask, pts):
            return super().evidence(tokens.detach(), mask, pts)

    with pytest.raises(UserError, match="gradients"):
        score_frames(FrameGame(Detached([0.0, 0.0, 0.0]), tokens_of()), "ig")


def test_inference_mode_around_it_changes_nothing():
    tokens, model = tokens_of(6, 4), WhiteBox()
    for method in names():
        outside = score_frames(FrameGame(model, tokens), method).values
        with torch.inference_mode():
            inside = score_frames(FrameGame(model, tokens.clone()), method).values
        torch.testing.assert_close(inside, outside)


def test_reading_leaves_no_trace_on_the_model():
    model = WhiteBox(uniform_block=True)
    for method in ("chefer", "grad_pool", "ig", "logit"):
        score_frames(FrameGame(model, tokens_of(5, 4)), method)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_only_sampled_scores_have_intervals():
    game = FrameGame(WhiteBox(), tokens_of(12, 4))
    for method in names():
        ci = score_frames(game, method, budget=200).ci
        assert (ci is not None) == (method in ("auto", "shapley", "exact"))
        if ci is not None:
            assert ((ci[:, 1] - ci[:, 0]) > 0).all().item() == (method != "exact")


def test_previews_are_labelled():
    assert {name for name, method in METHODS.items() if not method.faithful} == {
        "attn_pool", "rollout_pool", "chefer", "grad_pool"
    }  # fmt: skip
    assert all("not faithful" in METHODS[name].summary for name in ("attn_pool", "rollout_pool"))


@pytest.mark.parametrize("method", ["loo", "loi", "loo+loi"])
def test_an_additive_head_gives_back_each_frames_contribution(method):
    tokens = tokens_of()
    game = FrameGame(Additive([0.3, -2.0, 1.0]), tokens, target=1)
    assert score_frames(game, method).values.tolist() == pytest.approx(centred(tokens, 1), abs=1e-5)


def test_redundant_frames_are_missed_by_leave_one_out_and_found_by_leave_one_in():
    tokens = torch.zeros(1, 5, 2)
    tokens[0, [1, 4], 0] = 4.0
    scores = {name: score_frames(FrameGame(Either([0.0, 0.0]), tokens, target=0), name).values for name in ASKING}
    assert scores["loo"].tolist() == [0, 0, 0, 0, 0]
    assert scores["loi"].tolist() == [0, 4, 0, 0, 4]
    assert scores["loo+loi"].tolist() == [0, 2, 0, 0, 2]


def test_a_conjunction_is_missed_by_leave_one_in_and_found_by_leave_one_out():
    game = FrameGame(Together([0.0, 0.0, 0.0]), tokens_of(5), target=0)
    assert score_frames(game, "loi").values.tolist() == [0, 0, 0, 0, 0]
    assert score_frames(game, "loo").values.tolist() == [0, 6, 0, 6, 0]
    assert score_frames(game, "loo+loi").values.tolist() == [0, 3, 0, 3, 0]


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), method=st.sampled_from(ASKING))
def test_an_order_free_head_scores_frames_wherever_they_stand(order, method):
    tokens = tokens_of(6, seed=5)
    head = Either([0.0, 0.5, 0.0])
    plain = score_frames(FrameGame(head, tokens, target=1), method).values
    moved = score_frames(FrameGame(head, tokens[:, order], target=1), method).values
    torch.testing.assert_close(moved, plain[list(order)])


def test_seconds_travel_with_their_frames():
    tokens, pts = tokens_of(4), torch.tensor([[0.5, 1.0, 4.0, 9.0]])
    game = FrameGame(InTime([0.0, 0.0, 0.0]), tokens, pts=pts, target=0)
    expected = [c * t for c, t in zip(centred(tokens, 0), pts[0].tolist(), strict=True)]
    assert score_frames(game).values.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("method", names())
@pytest.mark.parametrize("nonsense", [1e6, float("nan")])
def test_padding_is_no_player_and_changes_nothing(method, nonsense):
    tokens = tokens_of(6, 4)
    tokens[0, 4:] = nonsense
    mask = torch.tensor([[True, True, True, True, False, False]])
    padded = FrameGame(WhiteBox(uniform_block=True), tokens, mask, target=1)
    alone = FrameGame(WhiteBox(uniform_block=True), tokens[:, :4], target=1)
    assert padded.players.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(score_frames(padded, method).values, score_frames(alone, method).values)


def test_copies_of_a_frame_are_one_player():
    tokens = tokens_of(3)[:, [0, 0, 1, 2, 2, 2]]
    game = FrameGame(Additive([0.0, 0.0, 0.0]), tokens, frame_index=torch.tensor([[7, 7, 8, 11, 11, 11]]), target=0)
    contributions = centred(tokens, 0)
    assert game.players.tolist() == [0, 2, 3]
    expected = [2 * contributions[0], contributions[2], 3 * contributions[3]]
    assert score_frames(game).values.tolist() == pytest.approx(expected, abs=1e-5)
    assert score_frames(game, "attn_pool").values.tolist() == pytest.approx([2 / 6, 1 / 6, 3 / 6])


@pytest.mark.parametrize("method", ["logit", "attn_pool", "rollout_pool"])
def test_copies_share_what_is_read_from_the_model(method):
    distinct = tokens_of(3, 4)
    index = torch.tensor([[0, 0, 1, 2, 2, 2]])
    doubled = FrameGame(WhiteBox(), distinct[:, index[0]], frame_index=index, target=0)
    by_position = FrameGame(WhiteBox(), distinct[:, index[0]], target=0)
    expected = torch.zeros(3).index_add_(0, index[0], score_frames(by_position, method).values)
    torch.testing.assert_close(score_frames(doubled, method).values, expected)


@pytest.mark.parametrize("length", [1, 4, 16])
def test_two_evaluations_a_frame_and_two_more(length):
    head = Additive([0.0, 0.0])
    game = FrameGame(head, tokens_of(length, 2))
    score_frames(game, "loo+loi")
    # of a single frame there are but two coalitions, and neither is asked twice
    assert sum(head.calls) == game.evaluations == (2 * length + 2 if length > 1 else 2)
    assert len(head.calls) == (3 if length > 1 else 1)


@pytest.mark.parametrize("method", ["auto", "shapley"])
@pytest.mark.parametrize("budget", [100, 544, 1088])
def test_a_budget_is_kept(method, budget):
    game = FrameGame(Additive([0.0, 0.0]), tokens_of(16, 2))
    score_frames(game, method, budget=budget)
    assert 0.9 * budget < game.evaluations <= budget


@pytest.mark.parametrize("method", ["auto", "shapley", "exact"])
def test_rounding_does_not_speak_for_a_class(method):
    tokens = torch.zeros(1, 16, 3)
    tokens[0, [4, 9], 0] = torch.tensor([4.0, 3.5])
    scores = score_frames(FrameGame(Additive([0.3, -0.2, 0.1]), tokens, target=0), method).values
    assert scores.nonzero().flatten().tolist() == [4, 9]


@pytest.mark.parametrize("method", names())
def test_one_frame_has_it_all(method):
    tokens = tokens_of(1, 4)
    [score] = score_frames(FrameGame(WhiteBox(), tokens, target=0), method).values.tolist()
    said = WhiteBoxTruth(tokens).said[0]
    everything = {"attn_pool": 1.0, "rollout_pool": 1.0, "chefer": max(said, 0.0), "grad_pool": 0.0, "ig": 0.0}
    assert score == pytest.approx(everything.get(method, said), abs=1e-5)


@pytest.mark.parametrize("method", ["rollout", "captum"])
def test_an_unknown_method_names_what_there_is(method):
    with pytest.raises(UserError, match=r"auto, shapley.*captum_shapley"):
        score_frames(FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2)), method)


def test_methods_of_other_libraries_are_known_by_name_but_not_among_the_defaults():
    assert not set(OPTIONAL) & set(names())
    assert all(resolve_method(name) is method for name, method in OPTIONAL.items())


def test_scoring_needs_no_decoder_and_no_renderer():
    code = "import sys, temporal_attn.keyframes.scores; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"av", "decord", "jinja2", "datamodules", "PIL", "captum", "matplotlib"} & set(ran.stdout.split())
