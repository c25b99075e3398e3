"""From frame scores to key frames, and a verdict with numbers that a reader can check.

Key frames are a claim, so they are tested: what does the model say when it sees only them, what when it sees all but
them, and what do as many random frames do? (ERASER's sufficiency and comprehensiveness: DeYoung et al., ACL 2020,
https://arxiv.org/abs/1911.03429, beside a random baseline.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from temporal_attn.keyframes.scores import FrameGame
from temporal_attn.types import UserError

__all__ = ["ENOUGH", "FLOOR", "NEEDED", "Evidence", "Finding", "select_keyframes", "state_verdict", "weigh_evidence"]

ENOUGH = 0.9
"""Key frames are enough when they alone keep this share of the clip's probability."""
NEEDED = 0.5
"""Key frames are needed when without them at most this share of the clip's probability is left."""
FLOOR = 0.05
"""Least probability of which shares are taken: below it the class is excluded, with the key frames or without them."""


class Finding(str, Enum):
    """What the evidence says of the key frames; the rules are those of `Evidence.finding`."""

    DECISIVE = "decisive"
    NEEDED = "needed"
    ENOUGH = "enough"
    UNSEEN = "unseen"
    NO_SMALL_SET = "no_small_set"
    NO_KEYFRAME = "no_keyframe"
    ONE_FRAME = "one_frame"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Probability of the target under five ways to show the clip.

    Args:
        frames: P, distinct frames of the clip.
        keyframes: k, how many of them are key frames.
        full: p with all frames.
        only_key: p with only the key frames.
        without_key: p with all but the key frames.
        only_random: Mean p with only k random frames.
        without_random: Mean p with all but k random frames.
        draws: Random sets behind the two means.
        seed: Their seed.
        floor: Probability that is as good as none, see `weigh_evidence`.
    """

    frames: int
    keyframes: int
    full: float
    only_key: float
    without_key: float
    only_random: float
    without_random: float
    draws: int
    seed: int
    floor: float = FLOOR

    @property
    def finding(self) -> Finding:
        """Apply the rule.

        Frames are *enough* when they alone keep p ≥ 0.9 · full, and *needed* when without them p ≤ 0.5 · full. Key
        frames that are both are decisive, unless as many random frames are both too; key frames that are one of the
        two count where random frames are not. A set of more than half of the frames is not small. Where neither all
        frames nor the key frames alone lift p to the floor, the class is unseen, and shares of nothing say nothing.
        """
        if self.frames == 1:
            return Finding.ONE_FRAME
        if self.keyframes == 0:
            return Finding.NO_KEYFRAME
        if max(self.full, self.only_key) < self.floor:
            return Finding.UNSEEN
        if 2 * self.keyframes > self.frames:
            return Finding.NO_SMALL_SET
        enough, random_enough = (p >= ENOUGH * self.full for p in (self.only_key, self.only_random))
        needed, random_needed = (p <= NEEDED * self.full for p in (self.without_key, self.without_random))
        if enough and needed:
            return Finding.NO_SMALL_SET if random_enough and random_needed else Finding.DECISIVE
        if needed and not random_needed:
            return Finding.NEEDED
        if enough and not random_enough:
            return Finding.ENOUGH
        return Finding.NO_SMALL_SET


def select_keyframes(scores: Tensor, pts: Sequence[float], topk: int = 3, min_gap_s: float = 0.0) -> list[int]:
    """The frames with the highest scores that speak for the class and do not crowd.

    Args:
        scores: (P,) signed scores.
        pts: P seconds.
        topk: At most so many.
        min_gap_s: Two key frames are at least so many seconds apart; the higher score wins.

    Returns:
        Positions in ``scores``, best first. Only positive scores; ties go to the earlier frame.

    Raises:
        UserError: topk below 1 or a negative gap.
    """
    if topk < 1:
        raise UserError(f"topk: {topk} key frames cannot be chosen; give 1 or more")
    if not min_gap_s >= 0:
        raise UserError(f"min_gap_s: {min_gap_s} is not a distance; give 0 or more seconds")
    chosen: list[int] = []
    for position in scores.argsort(descending=True, stable=True).tolist():
        if len(chosen) == topk or not scores[position] > 0:
            break
        if all(abs(pts[position] - pts[other]) >= min_gap_s for other in chosen):
            chosen.append(position)
    return chosen


def weigh_evidence(game: FrameGame, keyframes: Sequence[int], seed: int = 0, draws: int = 20) -> Evidence:
    """Test key frames against as many random ones: at most 2 + 2 · draws evaluations, in one go.

    The floor of the evidence is `FLOOR`, or, of a class against all others, chance (1 / K) where that is more: a class
    below it is never what the model predicts.

    Args:
        game: The clip and the class.
        keyframes: Players that are key frames.
        seed: Source of the random sets.
        draws: Number of random sets.
    """
    players = len(game)
    key = torch.zeros(players, dtype=torch.bool)
    key[list(keyframes)] = True
    random_rank = torch.rand(draws, players, generator=torch.Generator().manual_seed(seed)).argsort(1)
    random_sets = random_rank < len(keyframes)
    p = game.probability(torch.cat([key[None], ~key[None], random_sets, ~random_sets])).double()
    return Evidence(
        frames=players,
        keyframes=len(keyframes),
        full=float(game.question.probability(game.full.logits.double())[0]),
        only_key=float(p[0]),
        without_key=float(p[1]),
        only_random=float(p[2 : 2 + draws].mean()),
        without_random=float(p[2 + draws :].mean()),
        draws=draws,
        seed=seed,
        floor=max(FLOOR, game.question.chance),
    )


def state_verdict(
    evidence: Evidence, name: str, times: Sequence[float], predicted: tuple[str, float], against: str | None = None
) -> str:
    """The finding as one or two sentences with its numbers.

    Args:
        evidence: Result of `weigh_evidence`.
        name: Name of the target class.
        times: Seconds of the key frames.
        predicted: Name and probability of the class that the model gives to the clip; of several, the target where it
            is among them.
        against: Name of the other class of a contrast.
    """
    if against is None:
        question = _Question(name, f"p({name})", "this clip")
        elsewhere = f", not {name} (p = {evidence.full:.2f})"
    else:
        question = _Question(
            f"{name} rather than {against}", f"p({name} of the two)", f"between {name} and {against} in this clip"
        )
        elsewhere = f", not {name}" if predicted[0] == against else f", neither {name} nor {against}"
    text = _describe(evidence, question, _seconds(times))
    if predicted[0] == name:
        return text
    return f"The model sees {predicted[0]} here (p = {predicted[1]:.2f}){elsewhere}. {text}"


class _Question(NamedTuple):
    """What was asked, in words: what frames speak for, its probability, and what they decide."""

    side: str
    p: str
    matter: str


def _describe(e: Evidence, question: _Question, times: str) -> str:
    p = question.p
    random = f"{_count(e.keyframes)} random {_plural(e.keyframes)}"
    some = f"{e.keyframes} of {e.frames} frames ({times})"
    are, give, them = ("is", "gives", "it") if e.keyframes == 1 else ("are", "give", "them")
    they = "it" if e.keyframes == 1 else "they"
    falls = f"without {them} it falls from {e.full:.2f} to {e.without_key:.2f}"
    match e.finding:
        case Finding.ONE_FRAME:
            return f"There is only one frame, so it alone decides: {p} = {e.full:.2f}."
        case Finding.NO_KEYFRAME:
            return f"No frame speaks for {question.side}: {p} = {e.full:.2f} with all {e.frames} frames."
        case Finding.UNSEEN:
            return (
                f"The model does not see {question.side} here: {p} = {e.full:.2f} with all "
                f"{e.frames} frames, {e.only_key:.2f} with only the best {e.keyframes} ({times})."
            )
        case Finding.DECISIVE:
            verb = "decides" if e.keyframes == 1 else "decide"
            between = "" if question.matter == "this clip" else f" {question.matter}"
            return (
                f"{some} {verb}{between}: alone {they} {give} {p} = {e.only_key:.2f}, {falls}; {random}: "
                f"{e.only_random:.2f} alone, {e.without_random:.2f} without."
            )
        case Finding.NEEDED:
            return (
                f"{some} {are} needed, but not enough: with all frames {p} = {e.full:.2f}, without {them} "
                f"{e.without_key:.2f}, with {them} alone {e.only_key:.2f}; {random}: {e.only_random:.2f} alone, "
                f"{e.without_random:.2f} without."
            )
        case Finding.ENOUGH:
            return (
                f"{some} {are} enough: alone {they} {give} {p} = {e.only_key:.2f}, where {random} {give} "
                f"{e.only_random:.2f}; but the other frames say it too: {e.without_key:.2f} without {them}, "
                f"{e.full:.2f} with all."
            )
        case Finding.NO_SMALL_SET:
            return (
                f"No small set of frames decides {question.matter}: {p} = {e.full:.2f} with all {e.frames} frames, "
                f"{e.only_key:.2f} with only the best {e.keyframes} ({times}), {e.without_key:.2f} without {them}; "
                f"{random}: {e.only_random:.2f} alone, {e.without_random:.2f} without."
            )


def _seconds(times: Sequence[float]) -> str:
    """Seconds in the order of time, with as few digits as keep them apart."""
    ordered = sorted(times)
    for digits in (1, 2, 3):
        texts = [f"{time:.{digits}f} s" for time in ordered]
        if len(set(texts)) == len(texts):
            break
    return ", ".join(texts)


def _count(number: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return words[number] if number < len(words) else str(number)


def _plural(number: int) -> str:
    return "frame" if number == 1 else "frames"
