"""Frame scores against closed forms on heads whose every contribution is planted."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from temporal_attn.keyframes import FrameGame, names, resolve_target, score_frames
from temporal_attn.types import ModelOutput, UserError


class Head(nn.Module):
    """A head with planted logits; a token is what its frame says for each class, (B, T, K)."""

    def __init__(self, bias: list[float]) -> None:
        super().__init__()
        self.bias = torch.tensor(bias)
        self.calls: list[int] = []
        self.eval()

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        batch, length, _ = tokens.shape
        mask = torch.ones(batch, length, dtype=torch.bool) if mask is None else mask
        assert mask.shape == (batch, length)
        assert pts is None or pts.shape == (batch, length)
        self.calls.append(batch)
        weights = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
        return ModelOutput(self.bias + self.evidence(tokens, mask, pts), weights)

    def evidence(self, tokens: Tensor, mask: Tensor, pts: Tensor | None) -> Tensor:
        raise NotImplementedError


class Additive(Head):
    """Every frame adds its own."""

    def evidence(self, tokens, mask, pts):
        return (tokens * mask[..., None]).sum(1)


class Either(Head):
    """One frame that shows it is enough: an OR."""

    def evidence(self, tokens, mask, pts):
        return (tokens * mask[..., None]).amax(1)


class Together(Head):
    """Class 0 gains 6 when frames 1 and 3 are both seen: an AND."""

    def evidence(self, tokens, mask, pts):
        both = (mask[:, 1] & mask[:, 3]).float()
        return torch.stack([6 * both] + [torch.zeros_like(both)] * (len(self.bias) - 1), 1)


class InTime(Head):
    """What a frame says is scaled by its second."""

    def evidence(self, tokens, mask, pts):
        return (tokens * (mask * pts)[..., None]).sum(1)


def tokens_of(length: int = 6, classes: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(1, length, classes, generator=torch.Generator().manual_seed(seed))


def centred(tokens: Tensor, target: int) -> list[float]:
    """Centred contribution of each frame, by a loop in plain Python."""
    rows = tokens[0].tolist()
    return [row[target] - sum(z for c, z in enumerate(row) if c != target) / (len(row) - 1) for row in rows]


@pytest.mark.parametrize("method", ["loo", "loi", "loo+loi"])
def test_an_additive_head_gives_back_each_frames_contribution(method):
    tokens = tokens_of()
    game = FrameGame(Additive([0.3, -2.0, 1.0]), tokens, target=1)
    assert score_frames(game, method).tolist() == pytest.approx(centred(tokens, 1), abs=1e-5)


def test_redundant_frames_are_missed_by_leave_one_out_and_found_by_leave_one_in():
    tokens = torch.zeros(1, 5, 2)
    tokens[0, [1, 4], 0] = 4.0
    scores = {name: score_frames(FrameGame(Either([0.0, 0.0]), tokens, target=0), name) for name in names()}
    assert scores["loo"].tolist() == [0, 0, 0, 0, 0]
    assert scores["loi"].tolist() == [0, 4, 0, 0, 4]
    assert scores["loo+loi"].tolist() == [0, 2, 0, 0, 2]


def test_a_conjunction_is_missed_by_leave_one_in_and_found_by_leave_one_out():
    game = FrameGame(Together([0.0, 0.0, 0.0]), tokens_of(5), target=0)
    assert score_frames(game, "loi").tolist() == [0, 0, 0, 0, 0]
    assert score_frames(game, "loo").tolist() == [0, 6, 0, 6, 0]
    assert score_frames(game, "loo+loi").tolist() == [0, 3, 0, 3, 0]


def exact_shapley(game: FrameGame) -> list[float]:
    """Shapley values by their definition: a loop over every coalition."""
    players = range(len(game))
    subsets = [s for size in range(len(game) + 1) for s in itertools.combinations(players, size)]
    masks = torch.tensor([[p in s for p in players] for s in subsets])
    worth = {frozenset(s): v for s, v in zip(subsets, game.value(masks).tolist(), strict=True)}
    n = len(game)
    return [
        sum(
            math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n) * (worth[s | {p}] - worth[s])
            for s in worth
            if p not in s
        )
        for p in players
    ]


@pytest.mark.parametrize("head", [Additive([0.0, 0.0, 0.0]), Together([0.0, 0.0, 0.0])])
def test_the_default_is_the_shapley_value_of_sums_and_of_pairs(head):
    game = FrameGame(head, tokens_of(5, seed=3), target=0)
    assert score_frames(game).tolist() == pytest.approx(exact_shapley(game), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), length=st.integers(1, 9), chunk=st.integers(1, 7))
def test_chunks_and_single_coalitions_agree(seed, length, chunk):
    tokens = tokens_of(length, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    coalitions = torch.rand(11, length, generator=generator) < 0.5
    at_once = FrameGame(Either([0.1, 0.2, 0.3]), tokens, target=2)
    chunked = FrameGame(Either([0.1, 0.2, 0.3]), tokens, target=2, chunk=chunk)
    one_by_one = torch.cat([at_once.value(row[None]) for row in coalitions])
    torch.testing.assert_close(at_once.value(coalitions), one_by_one)
    torch.testing.assert_close(chunked.value(coalitions), one_by_one)
    assert max(chunked._model.calls) <= chunk


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), method=st.sampled_from(names()))
def test_an_order_free_head_scores_frames_wherever_they_stand(order, method):
    tokens = tokens_of(6, seed=5)
    head = Either([0.0, 0.5, 0.0])
    plain = score_frames(FrameGame(head, tokens, target=1), method)
    torch.testing.assert_close(score_frames(FrameGame(head, tokens[:, order], target=1), method), plain[list(order)])


def test_seconds_travel_with_their_frames():
    tokens, pts = tokens_of(4), torch.tensor([[0.5, 1.0, 4.0, 9.0]])
    game = FrameGame(InTime([0.0, 0.0, 0.0]), tokens, pts=pts, target=0)
    expected = [c * t for c, t in zip(centred(tokens, 0), pts[0].tolist(), strict=True)]
    assert score_frames(game).tolist() == pytest.approx(expected, abs=1e-4)


def test_padding_is_no_player_and_changes_nothing():
    tokens = tokens_of(6)
    tokens[0, 4:] = 1e6
    mask = torch.tensor([[True, True, True, True, False, False]])
    game = FrameGame(Additive([0.0, 0.0, 0.0]), tokens, mask, target=1)
    assert game.players.tolist() == [0, 1, 2, 3]
    for method in names():
        alone = FrameGame(Additive([0.0, 0.0, 0.0]), tokens[:, :4], target=1)
        torch.testing.assert_close(score_frames(game, method), score_frames(alone, method))


def test_copies_of_a_frame_are_one_player():
    tokens = tokens_of(3)[:, [0, 0, 1, 2, 2, 2]]
    game = FrameGame(Additive([0.0, 0.0, 0.0]), tokens, frame_index=torch.tensor([[7, 7, 8, 11, 11, 11]]), target=0)
    contributions = centred(tokens, 0)
    assert game.players.tolist() == [0, 2, 3]
    expected = [2 * contributions[0], contributions[2], 3 * contributions[3]]
    assert score_frames(game).tolist() == pytest.approx(expected, abs=1e-5)
    assert score_frames(game, "attn_pool").tolist() == pytest.approx([2 / 6, 1 / 6, 3 / 6])


@pytest.mark.parametrize("length", [1, 4, 16])
def test_two_evaluations_a_frame_and_two_more(length):
    head = Additive([0.0, 0.0])
    game = FrameGame(head, tokens_of(length, 2))
    score_frames(game, "loo+loi")
    assert sum(head.calls) == game.evaluations == 2 * length + 2
    assert len(head.calls) == 3


def test_the_predicted_class_is_the_default_target():
    tokens = torch.zeros(1, 2, 3)
    assert FrameGame(Additive([0.0, 0.0, 5.0]), tokens).target == 2
    assert FrameGame(Additive([0.0, 0.0, 5.0]), tokens, target=0).target == 0


def test_worth_and_probability_are_of_the_target():
    game = FrameGame(Additive([1.0, 2.0, 4.0]), torch.zeros(1, 2, 3), target=1)
    everyone = game.everyone()[None]
    assert game.value(everyone).tolist() == pytest.approx([2 - (1 + 4) / 2])
    assert game.probability(everyone).item() == pytest.approx(math.exp(2) / sum(map(math.exp, (1, 2, 4))))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FrameGame(Additive([0.0]), torch.zeros(1, 3, 1)), "one class"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(2, 3, 2)), "one clip"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2), torch.zeros(1, 3).bool()), "no real frame"),
        (lambda: FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2), target=2), "choose 0 to 1"),
        (lambda: FrameGame(Additive([0.0, 0.0]).train(), torch.zeros(1, 3, 2)), r"model\.eval\(\)"),
        (lambda: FrameGame(Additive([0.0, float("nan")]), torch.zeros(1, 3, 2)), "not finite"),
        (lambda: score_frames(FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2)), "rollout"), "loo"),
    ],
)
def test_wrong_use_is_one_line_with_the_remedy(build, words):
    with pytest.raises(UserError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_scoring_needs_no_decoder_and_no_renderer():
    code = "import sys, temporal_attn.keyframes; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"av", "decord", "jinja2", "datamodules", "PIL"} & set(ran.stdout.split())


def test_a_target_is_a_name_an_index_or_the_prediction():
    classes = ["Archery", "Bowling", "0"]
    assert resolve_target("pred", classes) is None
    assert resolve_target("Bowling", classes) == 1
    assert resolve_target(2, classes) == 2
    assert resolve_target("1", classes) == 1
    assert resolve_target("0", classes) == 2, "a class of that very name comes first"


@pytest.mark.parametrize(("target", "words"), [("Archary", "Archery"), (3, "0 to 1"), ("-1", "0 to 1")])
def test_an_unknown_target_names_what_there_is(target, words):
    with pytest.raises(UserError, match=words):
        resolve_target(target, ["Archery", "Bowling"])
