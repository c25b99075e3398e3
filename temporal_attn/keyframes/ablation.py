"""Scores from one frame taken away, or shown alone: the two ends of the Shapley sum.

Paper: Covert et al., "Explaining by Removing", JMLR 2021, https://arxiv.org/abs/2011.14878.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_attn.keyframes.game import Game

__all__ = ["leave_one_in", "leave_one_out", "leave_one_out_and_in"]


def leave_one_out(game: Game) -> Tensor:
    """What is lost without the frame: v(N) − v(N − t). P evaluations.

    Blind to redundancy: of two frames that show the same evidence, neither is missed.
    """
    return game.v_full - game.value(~torch.eye(len(game), dtype=torch.bool))


def leave_one_in(game: Game) -> Tensor:
    """What the frame says alone: v({t}) − v(∅). P evaluations.

    Blind to synergy: two frames that say something only together, say nothing alone.
    """
    return game.value(torch.eye(len(game), dtype=torch.bool)) - game.v_empty


def leave_one_out_and_in(game: Game) -> Tensor:
    """Mean of leave-one-out and leave-one-in. 2 P evaluations.

    Each end sees what the other is blind to, and where frames act alone or in pairs the mean is the Shapley value.
    """
    return (leave_one_out(game) + leave_one_in(game)) / 2
