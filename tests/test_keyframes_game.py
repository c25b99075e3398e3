"""Frames as players: coalitions, removals and questions against loops in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from temporal_attn import temporal as temporal_models
from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.removal import REMOVALS
from temporal_attn.keyframes.scores import score_frames
from temporal_attn.keyframes.targets import resolve_target
from temporal_attn.model import VideoClassifier
from temporal_attn.types import ModelOutput, UserError
from tests.white_box import Additive, Either, Head, InTime, WhiteBox, centred, tokens_of


class Recorder(Head):
    """Keeps what it is shown."""

    def evidence(self, tokens, mask, pts):
        self.shown = tokens * mask[..., None]
        return self.shown.sum(1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999), length=st.integers(1, 9), chunk=st.integers(1, 7), removal=st.sampled_from([*REMOVALS])
)
def test_chunks_and_single_coalitions_agree(seed, length, chunk, removal):
    tokens = tokens_of(length, seed=seed)
    coalitions = torch.rand(11, length, generator=torch.Generator().manual_seed(seed)) < 0.5
    at_once = FrameGame(Either([0.1, 0.2, 0.3]), tokens, target=2, removal=removal)
    chunked = FrameGame(Either([0.1, 0.2, 0.3]), tokens, target=2, removal=removal, chunk=chunk)
    alone = (FrameGame(Either([0.1, 0.2, 0.3]), tokens, target=2, removal=removal) for _ in coalitions)
    one_by_one = torch.cat([game.value(row[None]) for game, row in zip(alone, coalitions, strict=True)])
    torch.testing.assert_close(at_once.value(coalitions), one_by_one)
    torch.testing.assert_close(chunked.value(coalitions), one_by_one)
    assert max(chunked.model.calls) <= chunk


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_stands_in_the_place_of_a_removed_frame(removal):
    tokens = tokens_of(5)
    pts = torch.tensor([[0.0, 1.0, 3.0, 4.0, 9.0]])
    head = Recorder([0.0, 0.0, 0.0])
    game = FrameGame(head, tokens, pts=pts, target=0, removal=removal)
    game.value(torch.tensor([[True, False, False, True, False]]))
    mean, nothing = tokens[0].mean(0), torch.zeros(3)
    a, b = tokens[0, 0], tokens[0, 3]
    expected = {
        "drop": [a, nothing, nothing, b, nothing],
        "nearest": [a, a, b, b, b],  # 1 s is 1 s from 0 s and 3 s from 4 s, and so on
        "mean": [a, mean, mean, b, mean],
    }[removal]
    torch.testing.assert_close(head.shown[0], torch.stack(expected))


@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("temporal", temporal_models.names())
def test_frames_that_are_left_out_need_not_be_shown(temporal, removal):
    """Reference: the whole clip with a mask, one coalition after the other."""
    torch.manual_seed(0)
    model = VideoClassifier(3, backbone="test_resnet", dim=16, heads=2, temporal=temporal).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    tokens, pts = torch.randn(1, 7, model.backbone.width), torch.rand(1, 7).cumsum(1)
    mask = torch.tensor([[True] * 6 + [False]])
    game = FrameGame(model, tokens, mask, pts, removal=removal, target=0)
    coalitions = torch.tensor([[bool(number >> player & 1) for player in range(6)] for number in range(64)])
    seen = torch.cat([coalitions, torch.zeros(64, 1, dtype=torch.bool)], 1)
    rows, shown = REMOVALS[removal](seen, mask[0], pts[0])
    bank = torch.cat([tokens[0], game.mean_frame()[None]])
    with torch.no_grad():
        expected = [model.classify(bank[rows[i : i + 1]], shown[i : i + 1], pts) for i in range(64)]
    found = game.play(coalitions)
    torch.testing.assert_close(found.logits, torch.cat([one.logits for one in expected]), atol=1e-4, rtol=1e-4)
    weights = torch.cat([one.frame_weights for one in expected])
    torch.testing.assert_close(found.frame_weights, weights, atol=1e-5, rtol=1e-4)


def test_nearest_prefers_the_earlier_of_two_and_has_nothing_to_show_for_nothing():
    head = Recorder([0.0, 0.0, 0.0])
    tokens = tokens_of(3)
    game = FrameGame(head, tokens, target=0, removal="nearest")
    assert not head.shown[1].any(), "the empty coalition, asked when the game begins"
    game.value(torch.tensor([[True, False, True]]))
    torch.testing.assert_close(head.shown[0], tokens[0, [0, 0, 2]])


def test_no_coalition_is_asked_twice_whatever_the_question():
    head = Recorder([0.1, 0.2, 0.3])
    tokens = tokens_of(4)
    game = FrameGame(head, tokens, target=0)
    coalitions = torch.tensor([[True, False, False, True], [True] * 4, [False] * 4, [True, False, False, True]])
    first = game.value(coalitions)
    assert game.evaluations == 3
    other = game.about((2, 1))
    again = other.value(coalitions)
    assert (other.target, other.against, other.evaluations) == (2, 1, 0)
    fresh = FrameGame(Recorder([0.1, 0.2, 0.3]), tokens, target=(2, 1))
    torch.testing.assert_close(again, fresh.value(coalitions))
    assert (other.v_full, other.v_empty) == (fresh.v_full, fresh.v_empty)
    torch.testing.assert_close(game.value(coalitions), first)  # the first game keeps its question


@pytest.mark.parametrize("removal", REMOVALS)
def test_removal_leaves_padding_alone(removal):
    tokens = tokens_of(6)
    padded = tokens.clone()
    padded[0, 4:] = float("nan")
    mask = torch.tensor([[True] * 4 + [False] * 2])
    coalitions = torch.rand(9, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    alone = FrameGame(WhiteBox(), torch.nn.functional.pad(tokens[:, :4], (0, 1)), target=0, removal=removal)
    game = FrameGame(WhiteBox(), torch.nn.functional.pad(padded, (0, 1)), mask, target=0, removal=removal)
    torch.testing.assert_close(game.value(coalitions), alone.value(coalitions))


def test_the_same_clip_under_another_removal():
    tokens = tokens_of(4)
    game = FrameGame(Additive([0.0, 0.0, 0.0]), tokens, pts=torch.arange(4.0)[None], target=(2, 0))
    other = game.under("mean")
    assert (other.target, other.against, other.removal) == (2, 0, "mean")
    alone = other.value(torch.eye(4, dtype=torch.bool)) - other.v_empty
    centred_tokens = tokens[0] - tokens[0].mean(0)
    torch.testing.assert_close(alone, centred_tokens[:, 2] - centred_tokens[:, 0])


def test_the_projection_is_computed_once_and_changes_nothing():
    torch.manual_seed(0)
    model = VideoClassifier(3, "test_resnet", attention=None, dim=8, heads=2).eval()
    for parameter in model.temporal.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens, pts = torch.randn(1, 6, model.backbone.width), torch.rand(1, 6).cumsum(1)
    calls = []
    model.project.register_forward_hook(lambda *_: calls.append(1))
    game = FrameGame(model, tokens, pts=pts, target=1, chunk=2)
    coalitions = torch.rand(7, 6) < 0.5
    answers = game.play(coalitions).logits
    assert len(calls) == 1
    with torch.no_grad():
        expected = torch.cat([model.classify(tokens, row[None], pts).logits for row in coalitions])
    torch.testing.assert_close(answers, expected, atol=1e-5, rtol=1e-5)


def test_the_predicted_class_is_the_default_target():
    tokens = torch.zeros(1, 2, 3)
    assert FrameGame(Additive([0.0, 0.0, 5.0]), tokens).target == 2
    assert FrameGame(Additive([0.0, 0.0, 5.0]), tokens, target=0).target == 0


def test_worth_and_probability_are_of_the_target():
    game = FrameGame(Additive([1.0, 2.0, 4.0]), torch.zeros(1, 2, 3), target=1)
    everyone = game.everyone()[None]
    assert game.value(everyone).tolist() == pytest.approx([2 - (1 + 4) / 2])
    assert game.v_full == pytest.approx(2 - (1 + 4) / 2)
    assert game.probability(everyone).item() == pytest.approx(math.exp(2) / sum(map(math.exp, (1, 2, 4))))


def test_a_contrast_is_between_two_classes():
    tokens = tokens_of(5)
    game = FrameGame(Additive([1.0, 2.0, 4.0]), tokens, target=(0, 2))
    assert (game.target, game.against) == (0, 2)
    scores = score_frames(game).values
    torch.testing.assert_close(scores, tokens[0, :, 0] - tokens[0, :, 2], atol=1e-5, rtol=1e-5)
    z = game.full.logits[0].tolist()
    assert game.v_full == pytest.approx(z[0] - z[2], abs=1e-5)
    assert game.probability(game.everyone()[None]).item() == pytest.approx(1 / (1 + math.exp(z[2] - z[0])), abs=1e-6)
    turned = score_frames(FrameGame(Additive([1.0, 2.0, 4.0]), tokens, target=(2, 0))).values
    torch.testing.assert_close(turned, -scores, atol=1e-5, rtol=1e-5)


def test_of_two_classes_the_contrast_is_the_class():
    tokens = tokens_of(4, 2)
    one = score_frames(FrameGame(Additive([0.0, 0.5]), tokens, target=1)).values
    contrast = score_frames(FrameGame(Additive([0.0, 0.5]), tokens, target=(1, 0))).values
    torch.testing.assert_close(one, contrast)
    assert one.tolist() == pytest.approx(centred(tokens, 1), abs=1e-5)


def test_gradients_flow_through_an_answer_and_nowhere_else():
    tokens, pts = tokens_of(4), torch.tensor([[0.5, 1.0, 4.0, 9.0]])
    game = FrameGame(InTime([0.0, 0.0, 0.0]), tokens, pts=pts, target=0)
    given = tokens.clone().requires_grad_()
    game.answer(given).sum().backward()
    torch.testing.assert_close(given.grad[0, :, 0], pts[0])
    torch.testing.assert_close(given.grad[0, :, 1], -pts[0] / 2)
    assert not game.value(game.everyone()[None]).requires_grad


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FrameGame(Additive([0.0]), torch.zeros(1, 3, 1)), "one class"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(2, 3, 2)), "one clip"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2), torch.zeros(1, 3).bool()), "no real frame"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2), target=2), "choose 0 to 1"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2), target=(0, 2)), "choose 0 to 1"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2), target=(1, 1)), "against itself"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2), removal="black"), "drop, nearest, mean"),
        (lambda: FrameGame(Additive([0.0, 0.0]).train(), torch.zeros(1, 3, 2)), r"model\.eval\(\)"),
        (lambda: FrameGame(Additive([0.0, float("nan")]), torch.zeros(1, 3, 2)), "not finite"),
    ],
)
def test_wrong_use_is_one_line_with_the_remedy(build, words):
    with pytest.raises(UserError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_weights_of_frames_come_with_the_logits():
    out = FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2)).play(torch.tensor([[True, False, True]]))
    assert isinstance(out, ModelOutput)
    assert out.frame_weights.tolist() == [[0.5, 0, 0.5]]


def test_a_target_is_a_name_an_index_a_contrast_or_the_prediction():
    classes = ["Archery", "Bowling", "0"]
    assert resolve_target("pred", classes) is None
    assert resolve_target("Bowling", classes) == 1
    assert resolve_target(2, classes) == 2
    assert resolve_target("1", classes) == 1
    assert resolve_target("0", classes) == 2, "a class of that very name comes first"
    assert resolve_target(("Bowling", 0), classes) == (1, 0)
    assert resolve_target("Bowling-Archery", classes) == (1, 0)
    assert resolve_target("1 - Archery", classes) == (1, 0)


def test_hyphens_in_names_are_no_contrast_unless_they_can_be():
    classes = ["pull", "ups", "pull-ups", "push-ups"]
    assert resolve_target("pull-ups", classes) == 2
    assert resolve_target("pull-ups-push-ups", classes) == (2, 3)
    assert resolve_target("push-ups-ups", classes) == (3, 1)
    with pytest.raises(UserError, match="2 ways"):
        resolve_target("a-b-c", ["a", "b-c", "a-b", "c"])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("Archary", "Archery"),
        (3, "0 to 1"),
        ("-1", "0 to 1"),
        ("Archery-Bowlng", "Archery"),
        (("Archery", "Bowlng"), "Bowling"),
    ],
)
def test_an_unknown_target_names_what_there_is(target, words):
    with pytest.raises(UserError, match=words):
        resolve_target(target, ["Archery", "Bowling"])


def test_a_temperature_changes_probabilities_and_no_score():
    model, tokens = Either([0.1, 0.2, 0.3]), tokens_of(5)
    plain, soft = FrameGame(model, tokens), FrameGame(model, tokens, temperature=2.5)
    coalitions = torch.rand(6, 5, generator=torch.Generator().manual_seed(4)) > 0.4
    assert torch.equal(soft.value(coalitions), plain.value(coalitions))
    expected = (plain.play(coalitions).logits / 2.5).softmax(-1)[:, plain.target]
    assert torch.allclose(soft.probability(coalitions), expected)
    contrast = soft.about((0, 1)).probability(coalitions)
    logits = plain.play(coalitions).logits
    assert torch.allclose(contrast, torch.sigmoid((logits[:, 0] - logits[:, 1]) / 2.5))
    assert soft.under("mean").temperature == 2.5
