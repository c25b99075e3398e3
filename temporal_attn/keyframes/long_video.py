"""Long videos: shots or windows as players first, the frames inside the winners second.

A thousand frames are too many players for any budget, and neighbours hardly differ. So the stretches of a video play
first, and only those that decide are looked into. A frame's share is its Owen value: what it adds, on average over all
orders in which the frames of a stretch come one after the other, undivided by others. The frames of a stretch share
exactly what the stretch as a player is worth.

Paper: Owen, "Values of games with a priori unions", 1977, https://doi.org/10.1007/978-3-642-45494-3_7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from temporal_attn.keyframes.game import Game
from temporal_attn.keyframes.kernel_shap import kernel_shap
from temporal_attn.keyframes.shapley import BUDGET, EXACT_FRAMES
from temporal_attn.types import ClipSpec, UserError

__all__ = ["MAX_STEP_S", "LongVideoScores", "clip_of_long_video", "divide", "owen_values", "shots", "windows"]

MAX_STEP_S = 2.0
"""Seconds between the frames of a clip above which a video is long."""
MOST_FRAMES = 64
"""Frames that a long video is seen in at most; the cost of a question grows with them."""


@dataclass(frozen=True)
class LongVideoScores:
    """What stretches of a video contribute, and what the frames of the best of them.

    Args:
        stretches: G lists of players, in the order of time.
        stretch_scores: (G,) Shapley values of the stretches, which sum to v(N) − v(∅).
        scores: (P,) Owen values of the players; in stretches that were not looked into, the stretch's in equal shares.
        looked_into: (P,) bool, whether a player was asked about by itself.
        stretch_ci: (G, 2) intervals of 95 % of the stretches; of width 0 where every coalition of them was asked.
    """

    stretches: Sequence[Sequence[int]]
    stretch_scores: Tensor
    scores: Tensor
    looked_into: Tensor
    stretch_ci: Tensor | None = None

    @property
    def share_looked_into(self) -> float:
        """Share of the players that were asked about by themselves."""
        return float(self.looked_into.float().mean())

    def tell_best(self, seconds: Sequence[float]) -> str:
        """Where most is said, in words.

        Args:
            seconds: P seconds of the players.
        """
        best = int(self.stretch_scores.argmax())
        first, last = (seconds[self.stretches[best][end]] for end in (0, -1))
        score, total = float(self.stretch_scores[best]), float(self.stretch_scores.sum())
        return (
            f"Of {len(self.stretches)} stretches, the one from {first:.1f} s to {last:.1f} s adds most: {score:.1f} of "
            f"{total:.1f} in all."
        )


def clip_of_long_video(clip: ClipSpec, length: int, seconds: float, max_step_s: float = MAX_STEP_S) -> ClipSpec:
    """How a video is cut: as the clip says, or, where that would look away for too long, in more frames of all of it.

    Args:
        clip: How the model's clips are cut.
        length: Frames of the video.
        seconds: Between its first and its last frame.
        max_step_s: The video is long where this many seconds are less than one frame's share of it. It is then seen in
            a frame for each of these steps, up to `MOST_FRAMES`.

    Returns:
        ``clip`` itself for a video that is not long, or short enough for all its frames to play at once.
    """
    wanted = min(length, MOST_FRAMES, math.ceil(seconds / max_step_s))
    if wanted <= max(clip["num_frames"], EXACT_FRAMES):
        return clip
    return {**clip, "num_frames": wanted, "sampling": "uniform"}


def divide(tokens: Tensor) -> list[list[int]]:
    """Stretches of a long video: its shots, those that are longer than an eighth of it in even windows.

    Args:
        tokens: (P, C') tokens of the players, in the order of time.
    """
    longest = math.ceil(len(tokens) / 8)
    return [[shot[player] for player in window] for shot in shots(tokens) for window in windows(len(shot), longest)]


def windows(players: int, size: int) -> list[list[int]]:
    """Stretches of at most ``size`` players one after the other, as even as can be; longer ones come first.

    Raises:
        UserError: A size below 1.
    """
    if size < 1:
        raise UserError(f"size: a window of {size} frames cannot be; give 1 or more")
    return [window.tolist() for window in torch.arange(players).tensor_split(math.ceil(players / size))]


def shots(tokens: Tensor, threshold: float = 1.0, shortest: int = 2) -> list[list[int]]:
    """Stretches between cuts: where a frame's token turns away from that of the frame before.

    Args:
        tokens: (P, C') tokens of the players, in the order of time.
        threshold: Cosine distance in [0, 2] of two neighbours, seen from the mean token; above it, and above three
            times the median of all neighbours, there is a cut.
        shortest: Frames of the shortest stretch; a cut that would make a shorter one is passed over.
    """
    if len(tokens) < 2:
        return [list(range(len(tokens)))]
    centred = tokens.float() - tokens.float().mean(0)
    turn = 1 - cosine_similarity(centred[1:], centred[:-1], dim=-1)
    limit = max(threshold, 3 * float(turn.median()))
    starts = [0]
    for start in ((turn > limit).nonzero().flatten() + 1).tolist():
        if min(start - starts[-1], len(tokens) - start) >= shortest:
            starts.append(start)
    return [list(range(start, end)) for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)]


def owen_values(
    game: Game,
    stretches: Sequence[Sequence[int]],
    *,
    winners: int = 3,
    budget: int = BUDGET,
    contexts: int = 8,
    seed: int = 0,
) -> LongVideoScores:
    """Shapley values of stretches, and Owen values of the frames in the winners.

    Args:
        game: The video and the question.
        stretches: Every player in exactly one of them.
        winners: Stretches that are looked into, those with the largest scores of either sign.
        budget: Evaluations for the stretches, and again for the frames of each winner.
        contexts: Which other stretches are there when frames of a winner come is drawn so many times, each draw with
            its complement; where there are no more contexts than these, all of them are asked.
        seed: Source of all samples.

    Raises:
        UserError: The stretches do not divide the players, or the budget is too small.
    """
    players = len(game)
    if sorted(player for stretch in stretches for player in stretch) != list(range(players)):
        raise UserError(f"stretches: each of the {players} frames must be in exactly one of them")
    members = torch.zeros(len(stretches), players, dtype=torch.bool)
    for row, stretch in zip(members, stretches, strict=True):
        row[list(stretch)] = True
    between, stretch_ci = kernel_shap(_Stretches(game, members), budget, seed)
    scores = between @ (members / members.sum(1, keepdim=True))
    looked_into = torch.zeros(players, dtype=torch.bool)
    for winner in between.abs().argsort(descending=True, stable=True)[:winners].tolist():
        around = _contexts(len(stretches), winner, contexts, torch.Generator().manual_seed(seed))
        inside = _Inside(game, members, winner, around)
        values = kernel_shap(inside, max(budget // len(around.sets), 4 * len(inside)), seed).values
        # The contexts are a sample; what the stretch itself was found to be worth is what its frames share.
        scores[members[winner]] = values + (between[winner] - values.sum()) / len(values)
        looked_into |= members[winner]
    return LongVideoScores(stretches, between, scores, looked_into, stretch_ci)


class _Stretches:
    """The game of whole stretches."""

    def __init__(self, game: Game, members: Tensor) -> None:
        self._game, self._members = game, members
        self.v_full, self.v_empty = game.v_full, game.v_empty

    def __len__(self) -> int:
        return len(self._members)

    def value(self, coalitions: Tensor) -> Tensor:
        return self._game.value((coalitions.float() @ self._members.float()).bool())


@dataclass(frozen=True)
class _Contexts:
    """Coalitions of the other stretches, (Q, G) bool, and their probabilities (Q,)."""

    sets: Tensor
    shares: Tensor


def _contexts(groups: int, winner: int, draws: int, generator: torch.Generator) -> _Contexts:
    """Who comes before a stretch in a random order: a size, and then a set of that size."""
    others = [group for group in range(groups) if group != winner]
    if 2 ** len(others) <= 2 * draws:
        bits = 1 << torch.arange(len(others))
        chosen = (torch.arange(2 ** len(others))[:, None] & bits) > 0
        ways = torch.tensor([math.comb(len(others), int(size)) for size in chosen.sum(1)], dtype=torch.float64)
        shares = 1 / (ways * (len(others) + 1))
    else:
        # Sizes at even distances and complements with them cover the range better than independent draws.
        place = (torch.arange(draws) + torch.rand(draws, generator=generator)) / draws
        size = (place * (len(others) + 1)).long()
        rank = torch.rand(draws, len(others), generator=generator).argsort(1).argsort(1)
        chosen = rank < size[:, None]
        chosen = torch.cat([chosen, ~chosen])
        shares = torch.full((2 * draws,), 1 / (2 * draws), dtype=torch.float64)
    sets = torch.zeros(len(chosen), groups, dtype=torch.bool)
    sets[:, others] = chosen
    return _Contexts(sets, shares)


class _Inside:
    """The game of the frames of one stretch: their worth on average over who of the other stretches is there."""

    def __init__(self, game: Game, members: Tensor, winner: int, contexts: _Contexts) -> None:
        self._game, self._own, self._shares = game, members[winner], contexts.shares
        self._around = (contexts.sets.float() @ members.float()).bool()  # (Q, P)
        size = len(self)
        ends = self.value(torch.tensor([[True] * size, [False] * size]))
        self.v_full, self.v_empty = ends.tolist()

    def __len__(self) -> int:
        return int(self._own.sum())

    def value(self, coalitions: Tensor) -> Tensor:
        frames = torch.zeros(len(coalitions), len(self._own), dtype=torch.bool)
        frames[:, self._own] = coalitions
        worth = self._game.value((frames[:, None] | self._around).flatten(0, 1)).double()
        return worth.view(len(coalitions), -1) @ self._shares
