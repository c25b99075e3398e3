"""Stretches first, frames inside second: Owen values against their definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.long_video import clip_of_long_video, divide, owen_values, shots, windows
from temporal_attn.types import UserError
from tests.white_box import Additive, centred, shapley_by_orders, tokens_of


class Sets:
    """A game given by a function of sets."""

    def __init__(self, players: int, worth: Callable[[frozenset[int]], float]) -> None:
        self._players, self._worth = players, worth
        self.evaluations = 0
        self.v_full, self.v_empty = worth(frozenset(range(players))), worth(frozenset())

    def __len__(self) -> int:
        return self._players

    def value(self, coalitions: Tensor) -> Tensor:
        self.evaluations += len(coalitions)
        return torch.tensor([self._worth(frozenset(row.nonzero().flatten().tolist())) for row in coalitions])


def owen_by_orders(stretches: list[list[int]], worth: Callable[[frozenset[int]], float]) -> list[float]:
    """The definition: orders in which the members of a stretch follow each other."""
    players = sum(map(len, stretches))
    totals, orders = [0.0] * players, 0
    for outer in itertools.permutations(stretches):
        for inner in itertools.product(*(itertools.permutations(stretch) for stretch in outer)):
            seen: frozenset[int] = frozenset()
            for player in itertools.chain(*inner):
                totals[player] += worth(seen | {player}) - worth(seen)
                seen |= {player}
            orders += 1
    return [total / orders for total in totals]


def curved(seen: frozenset[int]) -> float:
    """Every order of interaction, and nothing symmetric."""
    return float(sum(player + 1 for player in seen) ** 0.5 + 2 * ({1, 4} <= seen) - ({0, 3, 5} <= seen))


@pytest.mark.parametrize("stretches", [[[0, 1, 2], [3, 4, 5]], [[0, 1], [2, 3], [4, 5]], [[0], [1, 2, 3], [4, 5]]])
def test_owen_values_by_their_definition(stretches):
    found = owen_values(Sets(6, curved), stretches, winners=len(stretches))
    assert found.scores.tolist() == pytest.approx(owen_by_orders(stretches, curved), abs=1e-5)
    assert found.looked_into.all()
    assert found.share_looked_into == 1


def test_stretches_of_one_frame_are_the_shapley_values():
    found = owen_values(Sets(5, curved), [[player] for player in range(5)], winners=5)
    expected = shapley_by_orders(5, curved)
    assert found.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.stretch_scores.tolist() == pytest.approx(expected, abs=1e-5)


def test_frames_share_what_their_stretch_is_worth_and_all_sum_to_the_clip():
    stretches = [[0, 1], [2, 3], [4, 5]]
    found = owen_values(Sets(6, curved), stretches, winners=1)
    for stretch, score in zip(stretches, found.stretch_scores.tolist(), strict=True):
        assert found.scores[stretch].sum().item() == pytest.approx(score, abs=1e-5)
    assert found.scores.sum().item() == pytest.approx(curved(frozenset(range(6))), abs=1e-5)
    best = int(found.stretch_scores.abs().argmax())
    assert found.looked_into.nonzero().flatten().tolist() == stretches[best]
    assert found.share_looked_into == pytest.approx(1 / 3)
    rest = [stretch for number, stretch in enumerate(stretches) if number != best]
    assert all(found.scores[a] == found.scores[b] for a, b in rest), "not looked into: equal shares"


def test_a_long_additive_video_gives_back_each_frame_of_the_winners():
    tokens = 0.01 * tokens_of(120)
    tokens[0, [47, 48, 90], 0] += 5
    game = FrameGame(Additive([0.0, 0.0, 0.0]), tokens, target=0)
    found = owen_values(game, windows(120, 10), winners=2, seed=1)
    expected = torch.tensor(centred(tokens, 0))
    assert found.looked_into.nonzero().flatten().tolist() == [*range(40, 50), *range(90, 100)]
    torch.testing.assert_close(found.scores[found.looked_into], expected[found.looked_into], atol=1e-3, rtol=1e-3)
    assert set(found.scores.argsort(descending=True)[:3].tolist()) == {47, 48, 90}
    assert found.share_looked_into == pytest.approx(1 / 6)


def test_more_contexts_come_closer_where_they_are_sampled():
    stretches = [[2 * i, 2 * i + 1] for i in range(7)]

    def worth(seen: frozenset[int]) -> float:
        return float(sum(player + 1 for player in seen) ** 0.5 + 3 * (0 in seen and len(seen) > 6))

    exact = owen_values(Sets(14, worth), stretches, winners=1, contexts=64).scores
    errors = []
    for contexts in (2, 16):
        runs = [owen_values(Sets(14, worth), stretches, winners=1, contexts=contexts, seed=s).scores for s in range(6)]
        errors.append(float(torch.stack([(run - exact).norm() for run in runs]).mean()))
    assert errors[1] < 0.7 * errors[0]


def test_windows_divide_all_frames():
    assert windows(7, 3) == [[0, 1, 2], [3, 4], [5, 6]]
    assert windows(3, 5) == [[0, 1, 2]]
    with pytest.raises(UserError, match="size"):
        windows(7, 0)


def test_long_shots_are_divided_evenly():
    looks = torch.eye(2)[torch.tensor([0] * 21 + [1] * 11)]
    stretches = divide(looks)
    assert list(itertools.chain(*stretches)) == list(range(32))
    assert [len(stretch) for stretch in stretches] == [4, 4, 4, 3, 3, 3, 4, 4, 3], "the cut is kept"


@pytest.mark.parametrize(
    ("length", "seconds", "step", "frames"),
    [
        (250, 10.0, 1.0, 8),  # a frame a second would be no more than 16
        (500, 20.0, 1.0, 20),
        (500, 20.0, 2.0, 8),
        (90_000, 3600.0, 1.0, 64),
        (20, 3600.0, 1.0, 20),
        (90_000, 3600.0, float("inf"), 8),
    ],
)
def test_long_is_what_a_clip_would_look_away_from(length, seconds, step, frames):
    clip = {"num_frames": 8, "sampling": "dense", "stride": 2, "resize": 32, "crop": 32, "repeat_short": True}
    found = clip_of_long_video(clip, length, seconds, step)
    assert found["num_frames"] == frames
    assert (found is clip) == (frames == 8)
    assert found["sampling"] == ("dense" if frames == 8 else "uniform")


def test_shots_are_cut_where_the_picture_changes():
    generator = torch.Generator().manual_seed(0)
    looks = torch.randn(3, 16, generator=generator)
    tokens = looks[torch.tensor([0] * 5 + [1] * 7 + [2] * 4)] + 0.1 * torch.randn(16, 16, generator=generator)
    assert shots(tokens) == [list(range(5)), list(range(5, 12)), list(range(12, 16))]
    assert shots(tokens[:5]) in ([[0, 1, 2, 3, 4]], [[0, 1], [2, 3, 4]], [[0, 1, 2], [3, 4]])
    assert shots(tokens[:1]) == [[0]]
    assert shots(looks[:1].expand(6, -1)) == [list(range(6))]


def test_short_shots_are_passed_over():
    looks = torch.eye(3)[torch.tensor([0, 0, 0, 1, 2, 2, 2])]
    assert all(len(shot) >= 2 for shot in shots(looks, threshold=0.5))
    assert sorted(itertools.chain(*shots(looks, threshold=0.5))) == list(range(7))


@pytest.mark.parametrize("stretches", [[[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], [3]]])
def test_stretches_divide_the_frames(stretches):
    with pytest.raises(UserError, match="exactly one"):
        owen_values(Sets(3, curved), stretches)
