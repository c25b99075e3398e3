"""What a frame score has to beat: scores that have not asked the model, or have looked at what they are judged by."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["blind_scores", "centre_prior", "motion_energy", "spread_evenly"]


def motion_energy(video: Tensor) -> Tensor:
    """Mean absolute difference of each frame to its neighbours: (T, C, H, W) -> (T,), grey levels."""
    steps = (video[1:].float() - video[:-1].float()).abs().mean((1, 2, 3))
    if not len(steps):
        return torch.zeros(1)
    both = torch.stack([torch.cat([steps[:1], steps]), torch.cat([steps, steps[-1:]])])
    return both.mean(0)


def centre_prior(players: int) -> Tensor:
    """Frames in the middle of the clip first: (P,)."""
    places = torch.arange(players) - (players - 1) / 2
    return -places.abs()


def spread_evenly(players: int) -> Tensor:
    """An order whose first k frames are spread evenly, for every k: (P,).

    Source: van der Corput, "Verteilungsfunktionen", 1935: indices by their mirrored binary digits.
    """
    digits = max(1, (players - 1).bit_length())
    mirrored = [int(f"{index:0{digits}b}"[::-1], 2) for index in range(players)]
    return -torch.tensor(mirrored, dtype=torch.float32)


def blind_scores(video: Tensor) -> dict[str, Tensor]:
    """Every baseline that does not ask the model, by name: (T, C, H, W) -> (T,) each."""
    return {
        "uniform": spread_evenly(len(video)),
        "motion_energy": motion_energy(video),
        "centre_prior": centre_prior(len(video)),
    }
