"""Curves of deletion and insertion: what is left of an answer as frames are taken away, or come, in order of a score.

f(S) is the probability of the target when the model sees only the frames S of N, and the top k are those with the
highest scores. Alone, the area under a curve says little, and a score that explains nothing can win it. So it stands
between that of random orders and that of the best order which a greedy search finds on the same clip.

Curves take one score vector (P,) or several (M, P), and are returned likewise, with P + 1 points.

Papers: Petsiuk et al., "RISE", BMVC 2018, https://arxiv.org/abs/1806.07421 (deletion and insertion);
DeYoung et al., "ERASER", ACL 2020, https://arxiv.org/abs/1911.03429 (comprehensiveness, sufficiency, AOPC).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameGame

__all__ = [
    "Areas",
    "Scale",
    "area",
    "areas",
    "comprehensiveness",
    "deletion_curve",
    "greedy_scores",
    "insertion_curve",
    "normalised",
    "random_scores",
    "scale_of",
    "sufficiency",
]

FLAT = 1e-3
"""Least difference of areas between the best and a random order on a clip where orders can be told apart."""


def ranks(scores: Tensor) -> Tensor:
    """Place of each frame from the highest score on, 0 … P−1; ties go to the earlier frame."""
    return scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def _top(scores: Tensor) -> Tensor:
    """(…, P + 1, P) bool: the top k frames, for k = 0 … P."""
    sizes = torch.arange(scores.shape[-1] + 1)
    return ranks(scores)[..., None, :] < sizes[:, None]


def _probabilities(game: FrameGame, coalitions: Tensor) -> Tensor:
    return game.probability(coalitions.flatten(0, -2)).double().view(coalitions.shape[:-1])


def deletion_curve(game: FrameGame, scores: Tensor) -> Tensor:
    """f(N without the top k) for k = 0 … P; falls early where scores are faithful. P + 1 evaluations."""
    return _probabilities(game, ~_top(scores))


def insertion_curve(game: FrameGame, scores: Tensor) -> Tensor:
    """f(the top k) for k = 0 … P; rises early where scores are faithful. P + 1 evaluations."""
    return _probabilities(game, _top(scores))


def area(curve: Tensor) -> Tensor:
    """Trapezoid mean of curves (…, P + 1) over the share of frames: (…), in [0, 1] for probabilities."""
    return torch.trapezoid(curve, dim=-1) / (curve.shape[-1] - 1)


def aopc(curve: Tensor) -> Tensor:
    """Mean fall of curves (…, P + 1) from their complete clip, at 1, 2, 4 and 8 of 16 frames: (…).

    Of a deletion curve this is ERASER's comprehensiveness, f(N) − f(N without the top k), high where the top frames
    are needed. Of an insertion curve, whose complete clip is its last point, it is the sufficiency f(N) − f(the top k),
    low where they are enough. Clips of another length take the same shares of their frames, and at least one.
    """
    players = curve.shape[-1] - 1
    sizes = [max(1, round(players * share)) for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2)]
    return curve[..., sizes].mean(-1)


def comprehensiveness(deletion: Tensor) -> Tensor:
    """ERASER's comprehensiveness as AOPC: mean of f(N) − f(N without the top k), from deletion curves (…, P + 1)."""
    return deletion[..., 0] - aopc(deletion)


def sufficiency(insertion: Tensor) -> Tensor:
    """ERASER's sufficiency as AOPC: mean of f(N) − f(the top k), from insertion curves (…, P + 1)."""
    return insertion[..., -1] - aopc(insertion)


def random_scores(players: int, draws: int = 5, seed: int = 0) -> Tensor:
    """Scores (draws, P) of frames in random order: what a score has to beat."""
    return torch.rand(draws, players, generator=torch.Generator().manual_seed(seed))


def greedy_scores(game: FrameGame, *, insertion: bool = False) -> Tensor:
    """The order in which a greedy search takes frames away, as scores (P,) from P down to 1.

    Each step takes the frame without which the probability is lowest, or adds the one with which it is highest: close
    to the best that any order can reach on this curve. It looks at what it is judged by, so it explains nothing.
    P (P + 1) / 2 evaluations.

    Args:
        game: The clip and the question.
        insertion: Search for the best insertion curve, not for the best deletion curve.
    """
    left = list(range(len(game)))
    scores = torch.zeros(len(game))
    taken = torch.zeros(len(game), dtype=torch.bool)
    while left:
        tried = taken.repeat(len(left), 1)
        tried[torch.arange(len(left)), left] = True
        p = game.probability(tried if insertion else ~tried)
        best = left[int(p.argmax() if insertion else p.argmin())]
        scores[best] = len(left)
        taken[best] = True
        left.remove(best)
    return scores


class Areas(NamedTuple):
    """The two areas of a score vector.

    Args:
        deletion: Under the deletion curve; low is good.
        insertion: Under the insertion curve; high is good.
    """

    deletion: float
    insertion: float


def areas(game: FrameGame, scores: Tensor) -> Areas:
    """Areas under both curves of scores (P,), or their means over several (M, P)."""
    curves = deletion_curve(game, scores), insertion_curve(game, scores)
    return Areas(*(float(area(curve).mean()) for curve in curves))


class Scale(NamedTuple):
    """What the areas of a clip are measured on.

    Args:
        random: Areas of random orders, the mean over draws.
        best: Best areas that a search found, each by itself.
    """

    random: Areas
    best: Areas


def scale_of(game: FrameGame, *others: Tensor, draws: int = 5, seed: int = 0) -> Scale:
    """The two ends of a clip's scale: random orders, and the best of a greedy search and of other score vectors.

    Args:
        game: The clip and the question.
        others: Scores (P,) that may be better than the search, such as exact Shapley values.
        draws: Random orders.
        seed: Of the random orders.
    """
    found = [areas(game, scores) for scores in (greedy_scores(game), greedy_scores(game, insertion=True), *others)]
    best = Areas(min(a.deletion for a in found), max(a.insertion for a in found))
    return Scale(areas(game, random_scores(len(game), draws, seed)), best)


def normalised(own: float, random: float, best: float) -> float | None:
    """Where an area lies between random (0) and the best order (1): (random − own) / (random − best).

    None where random orders are as good as the best one: the clip cannot tell orders apart.
    """
    return (random - own) / (random - best) if abs(random - best) > FLAT else None
