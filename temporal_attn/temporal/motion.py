"""Motion cues on the maps of neighbouring frames: cheap, and they mix time in the backbone.

With one of them a frame's token depends on the frames beside it. A frame that is left out of the clip then has to be
left out before the backbone's upper parts see it, so that every question about frames costs a pass of them.

All of them start as the identity. A frame's neighbour is the real frame beside it in its tensor, padding left out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["MOTION", "TemporalDifference", "TemporalShift", "build_motion"]


class TemporalShift(nn.Module):
    """Some channels come from the frame after, some from the frame before.

    Paper: Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019.
        https://arxiv.org/abs/1811.08383
    Equation: y_t = x_t + γ ⊙ (s_t − x_t), where s_t has its first C / 8 channels from t + 1, the next C / 8 from t − 1,
        zeros where there is no such frame, and the others from t; γ (C) is zero at the start, and the paper's shift is
        γ = 1.

    Args:
        channels: C of the maps.
        share: Channels that are shifted along each direction, as a share of C.

    Shape:
        x (B, T, C, h, w), mask (B, T) bool; output as x.

    Raises:
        ValueError: The share leaves no channel to shift, or shifts more than there are.
    """

    def __init__(self, channels: int, share: float = 0.125) -> None:
        super().__init__()
        self.moved = int(channels * share)
        if not 0 < 2 * self.moved <= channels:
            raise ValueError(f"share={share} of {channels} channels is {self.moved} along each of two directions")
        self.gamma = nn.Parameter(torch.zeros(2 * self.moved, 1, 1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Clips with motion in their shifted channels."""
        before, after = _neighbours(x[:, :, : 2 * self.moved], mask)
        shifted = torch.cat((after[:, :, : self.moved], before[:, :, self.moved :]), 2)
        here, rest = x[:, :, : 2 * self.moved], x[:, :, 2 * self.moved :]
        return torch.cat((here + self.gamma * (shifted - here), rest), 2)


class TemporalDifference(nn.Module):
    """What changed since the frame before is added to what a frame shows.

    Papers: Li et al., "TEA: Temporal Excitation and Aggregation", CVPR 2020. https://arxiv.org/abs/2004.01398 (the
        difference of a bottleneck's maps, one of them through a 3×3 that forgives small shifts); Wang et al., "TDN:
        Temporal Difference Networks", CVPR 2021. https://arxiv.org/abs/2012.10071 (differences added to appearance).
    Equation: y_t = x_t + W_2 δ(K * W_1 x_t − W_1 x_{t−1}), with a 3×3 depthwise K and W_2 = 0 at the start; the first
        frame of a clip has no difference.

    Args:
        channels: C of the maps.
        reduction: The bottleneck is C // reduction wide.

    Shape:
        x (B, T, C, h, w), mask (B, T) bool; output as x.

    Raises:
        ValueError: The reduction leaves no channel.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        if not 0 < reduction <= channels:
            raise ValueError(f"reduction={reduction} leaves nothing of {channels} channels")
        hidden = channels // reduction
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.align = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        nn.init.dirac_(self.align.weight, groups=hidden)  # at the start the plain difference
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)
        nn.init.zeros_(self.expand.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Clips with what changed added to them."""
        x = torch.where(mask[..., None, None, None], x, 0)
        reduced = self.reduce(x.flatten(0, 1))
        before, _ = _neighbours(reduced.unflatten(0, mask.shape), mask)
        change = self.align(reduced) - before.flatten(0, 1)
        first = (mask.cumsum(1) == 1).flatten()[:, None, None, None]
        out: Tensor = x + self.expand(change.masked_fill(first, 0).relu()).unflatten(0, mask.shape)
        return out


MOTION: dict[str, Callable[[int], nn.Module]] = {"difference": TemporalDifference, "shift": TemporalShift}
"""Motion cues by name, made from the channels of the maps."""


def build_motion(name: str, channels: int) -> nn.Module:
    """Make a motion cue by name.

    Args:
        name: One of `MOTION`.
        channels: C of the maps.

    Raises:
        ValueError: The name is not known.
    """
    if name not in MOTION:
        raise ValueError(f"motion {name!r} is not known; choose one of: {', '.join(MOTION)}")
    return MOTION[name](channels)


def _neighbours(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each frame's real frame before and after it, (B, T, …) each; zeros where there is none."""
    frames = mask.shape[1]
    place = torch.arange(frames, device=x.device).expand_as(mask)
    edge = torch.full_like(place[:, :1], -1)
    before = torch.cat((edge, place.masked_fill(~mask, -1).cummax(1).values[:, :-1]), 1)
    latest = place.flip(1).masked_fill(~mask.flip(1), frames).cummin(1).values.flip(1)
    after = torch.cat((latest[:, 1:], edge + frames + 1), 1)
    return _at(x, before), _at(x, after)


def _at(x: Tensor, place: Tensor) -> Tensor:
    """Frames of clips (B, T, …) at places (B, T); zeros where a place is outside."""
    there = (place >= 0) & (place < x.shape[1])
    clip = torch.arange(len(x), device=x.device)[:, None]
    found = x[clip, place.clamp(0, x.shape[1] - 1)]
    return torch.where(there.view(*there.shape, *[1] * (x.ndim - 2)), found, 0)
