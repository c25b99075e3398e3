"""How attention over time knows when a frame was: by seconds, or by its place among the frames.

``rotary`` and ``relative`` let a score depend on the time between two frames, ``sinusoidal`` on the seconds since the
clip began, ``learned`` on the number of earlier frames; ``none`` knows only what frames show.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["POSITIONS", "LearnedPosition", "RelativeTime", "RotaryTime", "SinusoidalTime"]

POSITIONS = ("none", "sinusoidal", "rotary", "learned", "relative")


class _Periods(nn.Module):
    """Angular frequencies of geometric periods; a cast of the net around them moves them and does not round them.

    bfloat16 has eight bits: a minute into a clip the fastest rotation would be off by whole turns.
    """

    frequency: Tensor

    def __init__(self, count: int, min_period: float, max_period: float) -> None:
        super().__init__()
        self.register_buffer("frequency", _frequencies(count, min_period, max_period), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Periods:
        exact = self.frequency
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not exact.is_meta:
            self.frequency = exact.to(self.frequency.device)
        return self


class RotaryTime(_Periods):
    """Rotates queries and keys by angles proportional to their frames' seconds.

    Attention between two frames then depends on the time between them, not on when they were.

    Paper: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
        https://arxiv.org/abs/2104.09864
    Equation: q_t → R(ω t) q_t, k_s → R(ω s) k_s, so that ⟨q_t, k_s⟩ depends on t − s only; here t is in seconds.

    Args:
        head_dim: Width of one head, even.
        min_period: Shortest period of a rotation, in seconds.
        max_period: Longest period, in seconds; events further apart than this are hard to tell from nearer ones.

    Shape:
        x (B, heads, T, head_dim), pts (B, T) in seconds; output as x.

    Raises:
        ValueError: head_dim is odd, or the periods are not 0 < min < max.
    """

    def __init__(self, head_dim: int, min_period: float = 0.2, max_period: float = 100.0) -> None:
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, got {head_dim}")
        super().__init__(head_dim // 2, min_period, max_period)

    def angles(self, pts: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each (B, 1, T, head_dim / 2), of frames at ``pts`` (B, T) seconds."""
        phase = _phases(pts, self.frequency)[:, None]
        return phase.cos(), phase.sin()

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Rotate x (B, heads, T, head_dim) by `angles`."""
        cos, sin = (part.to(x.dtype) for part in angles)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class SinusoidalTime(_Periods):
    """Sines and cosines of the seconds since the clip began, at geometric frequencies.

    Paper: Vaswani et al., "Attention Is All You Need", NIPS 2017. https://arxiv.org/abs/1706.03762
    Equation: p(t)_i = sin(2πt / P_i) for the first half of the channels and cos(2πt / P_i) for the second, with periods
        P_i from min_period to max_period; here t is in seconds.

    Args:
        dim: D of the tokens, even.
        min_period: Shortest period, in seconds.
        max_period: Longest period, in seconds.

    Shape:
        pts (B, T) in seconds; output (B, T, D) in [−1, 1].

    Raises:
        ValueError: dim is odd, or the periods are not 0 < min < max.
    """

    def __init__(self, dim: int, min_period: float = 0.2, max_period: float = 100.0) -> None:
        if dim % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {dim}")
        super().__init__(dim // 2, min_period, max_period)

    def forward(self, pts: Tensor) -> Tensor:
        """Positions of frames at ``pts``."""
        phase = _phases(pts, self.frequency)
        return torch.cat((phase.sin(), phase.cos()), -1)


class LearnedPosition(nn.Module):
    """A learned vector for the first frame, the second, and so on.

    Paper: Gehring et al., "Convolutional Sequence to Sequence Learning", ICML 2017. https://arxiv.org/abs/1705.03122;
        stretched over clips that are longer than the table as Dosovitskiy et al., ICLR 2021, stretch theirs over larger
        images. https://arxiv.org/abs/2010.11929
    Equation: p_i = E_i for a clip of up to N moments; for n > N of them p_i = E at i (N − 1) / (n − 1), between its two
        neighbours.

    The vectors count frames and know nothing of seconds: a clip sampled twice as densely is another one to them.

    Args:
        dim: D of the tokens.
        length: N, moments that have a vector of their own.

    Shape:
        rank (B, T) int64, how many earlier moments the clip shows, and mask (B, T) bool; output (B, T, D).

    Raises:
        ValueError: length is less than 2.
    """

    def __init__(self, dim: int, length: int = 64) -> None:
        super().__init__()
        if length < 2:
            raise ValueError(f"learned positions need a table of at least 2 frames, got {length}")
        self.table = nn.Parameter(torch.empty(length, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, rank: Tensor, mask: Tensor) -> Tensor:
        """Positions of frames by their rank."""
        last = len(self.table) - 1
        latest = rank.masked_fill(~mask, 0).amax(1, keepdim=True).clamp(min=1)
        return _between(self.table, rank.masked_fill(~mask, 0) * (last / latest).clamp(max=1))


class RelativeTime(nn.Module):
    """A learned bias of the scores by the seconds from key to query, one curve a head.

    Paper: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (T5), JMLR
        2020. https://arxiv.org/abs/1910.10683 (a bias by logarithmic distance; theirs jumps from bucket to bucket)
    Equation: e_hts → e_hts + b_h(u), u = sign(t − s) log(1 + |t − s| / min_period), with b_h linear between learned
        knots, which are zero at the start.

    Args:
        heads: Number of heads, each with its own curve.
        min_period: Seconds up to which distances are told apart linearly.
        max_period: Seconds beyond which all distances count alike.
        knots: Learned points on each side of 0.

    Shape:
        queries (B, T) and keys (B, S) in seconds; output (B, heads, T, S).

    Raises:
        ValueError: There is no knot, or the periods are not 0 < min < max.
    """

    def __init__(self, heads: int, min_period: float = 0.2, max_period: float = 100.0, knots: int = 16) -> None:
        super().__init__()
        if knots < 1:
            raise ValueError(f"relative positions need knots, got {knots}")
        _check_periods(min_period, max_period)
        self.min_period = min_period
        self.scale = knots / math.log1p(max_period / min_period)
        self.knots = knots
        self.table = nn.Parameter(torch.zeros(2 * knots + 1, heads))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Bias of every pair of frames."""
        between = queries[:, :, None] - keys[:, None, :]
        place = between.sign() * (between.abs() / self.min_period).log1p() * self.scale
        return _between(self.table, place.clamp(-self.knots, self.knots) + self.knots).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """Show the curve's resolution when the net is printed."""
        return f"knots={self.knots}"


def _check_periods(min_period: float, max_period: float) -> None:
    if not 0 < min_period < max_period:
        raise ValueError(f"periods must be 0 < min < max, got {min_period} and {max_period} s")


def _frequencies(count: int, min_period: float, max_period: float) -> Tensor:
    """Angular frequencies (count,) float32 of geometric periods, the shortest first."""
    _check_periods(min_period, max_period)
    periods = torch.logspace(math.log10(min_period), math.log10(max_period), count, dtype=torch.float64)
    return (2 * math.pi / periods).float()


def _phases(pts: Tensor, frequency: Tensor) -> Tensor:
    """Phases (B, T, F) of frames at ``pts`` (B, T), in float64 where there is one: an hour is 10⁵ radians."""
    wide = torch.float32 if pts.device.type == "mps" else torch.float64
    return pts.to(wide)[..., None] * frequency.to(wide)


def _between(table: Tensor, place: Tensor) -> Tensor:
    """Rows of a table (N, D) at places (…) in [0, N − 1], linear between two of them: (…, D)."""
    lower = place.floor().clamp(max=len(table) - 2).long()
    share = (place - lower).to(table.dtype)[..., None]
    return torch.lerp(table[lower], table[lower + 1], share)
