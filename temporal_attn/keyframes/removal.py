"""What a removed frame becomes: nothing, its nearest kept neighbour, or the mean frame.

A removal does not touch tokens. It says which row of a bank each position of the clip shows, so that a bank that was
computed once answers every coalition. Scores of one removal and tests with another show what depends on the choice:
Covert et al., "Explaining by Removing", JMLR 2021, https://arxiv.org/abs/2011.14878.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from temporal_attn.types import UserError

__all__ = ["REMOVALS", "Removal", "resolve_removal"]

Removal = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(seen (S, T) bool, real (T,) bool, seconds (T,)) -> rows (S, T) of the bank, mask (S, T) bool.

The bank holds the T tokens of the clip and, as row T, the mean frame.
"""


def drop(seen: Tensor, real: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
    """A removed frame is masked: the model sees a shorter clip. In distribution after training with frame dropout."""
    return torch.arange(seen.shape[1], device=seen.device).expand(seen.shape), seen


def nearest(seen: Tensor, real: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
    """A removed frame shows the features of the kept frame nearest in time, the earlier of two; the clip keeps its T.

    Without any kept frame there is nothing to show, and the clip is empty as under `drop`. In slow video the neighbours
    stand in for each other, so that no single frame matters.
    """
    apart = (seconds[:, None] - seconds[None, :]).abs()
    rows = apart.masked_fill(~seen[:, None, :], torch.inf).argmin(-1)
    return rows, real & seen.any(1, keepdim=True)


def mean(seen: Tensor, real: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
    """A removed frame shows the mean of the clip's frames, which is no frame; the clip keeps its T."""
    positions = torch.arange(seen.shape[1], device=seen.device)
    return torch.where(seen, positions, seen.shape[1]), real.expand(seen.shape)


REMOVALS: dict[str, Removal] = {"drop": drop, "nearest": nearest, "mean": mean}


def resolve_removal(name: str) -> Removal:
    """The removal of this name.

    Raises:
        UserError: There is none.
    """
    if name not in REMOVALS:
        raise UserError(f"removal: there is no {name!r}; choose one of {', '.join(REMOVALS)}")
    return REMOVALS[name]
