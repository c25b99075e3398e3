"""Where frames stand in time: positions, directions and the order in which frames are read, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from temporal_attn.temporal import (
    LearnedPosition,
    RelativeTime,
    RotaryTime,
    SinusoidalTime,
)
from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.temporal.convolution import ConvolutionBlock
from temporal_attn.temporal.directions import visible_frames
from temporal_attn.temporal.recurrent import RecurrentBlock
from temporal_attn.temporal.timeline import count_seconds, time_order, time_rank

DIM = 8
moments = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=7)


def clip_of(frames: list[tuple[int, bool]]) -> tuple[Tensor, Tensor]:
    """Seconds and mask; padding stands at NaN."""
    mask = torch.tensor([[real for _, real in frames]])
    return torch.tensor([[float(at) if real else math.nan for at, real in frames]]), mask


@settings(max_examples=60, deadline=None)
@given(moments)
def test_ranks_count_earlier_moments_and_the_order_is_that_of_time(frames: list[tuple[int, bool]]):
    pts, mask = clip_of(frames)
    real = [at for at, is_real in frames if is_real]
    rank, order = time_rank(pts, mask)[0].tolist(), time_order(pts, mask)[0].tolist()
    for (at, is_real), place in zip(frames, rank, strict=True):
        earlier = len({other for other in real if other < at}) if is_real else len(set(real))
        assert place == earlier or (not is_real and place >= earlier)
    assert sorted(order) == list(range(len(frames)))
    assert [frames[i][0] for i in order[: len(real)]] == sorted(real)


@settings(max_examples=60, deadline=None)
@given(moments, st.sampled_from(["bidirectional", "causal", "split"]), st.sampled_from([None, 1, 2, 3]))
def test_visible_frames_are_those_of_the_definition(frames: list[tuple[int, bool]], direction: str, window: int | None):
    pts, mask = clip_of(frames)
    pts = pts.nan_to_num(0)
    seen = visible_frames(mask, pts, direction, window, heads=2).expand(1, 2, len(frames), len(frames))[0]
    ranks = {at: rank for rank, at in enumerate(sorted({at for at, is_real in frames if is_real}))}
    for head in range(2):
        for t, (query, is_real) in enumerate(frames):
            if not is_real:
                assert seen[head, t].any()  # padding looks somewhere, or its softmax would be over nothing
                continue
            for s, (key, there) in enumerate(frames):
                lag = ranks[query] - ranks[key] if there else 0
                back = direction == "causal" or (direction == "split" and head == 0)
                ahead = direction == "split" and head == 1
                expected = there and not (back and lag < 0) and not (ahead and lag > 0)
                expected &= window is None or abs(lag) < window
                assert bool(seen[head, t, s]) == expected


def test_seconds_begin_with_the_first_real_frame_and_stay_exact():
    pts = torch.tensor([[math.nan, 2.0**30 + 0.5, 2.0**30, 2.0**30 + 1 / 1024]], dtype=torch.float64)
    mask = torch.tensor([[False, True, True, True]])
    assert count_seconds(pts, mask).tolist() == [[0.0, 0.5, 0.0, 1 / 1024]]
    assert count_seconds(torch.tensor([[3, 5]]), torch.ones(1, 2, dtype=torch.bool)).tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize("kind", [RotaryTime, SinusoidalTime])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_does_not_round_the_periods(kind: type[RotaryTime | SinusoidalTime], dtype: torch.dtype):
    cast = nn.Sequential(kind(DIM)).to(dtype)[0]
    assert torch.equal(cast.frequency, kind(DIM).frequency)
    assert cast.to("meta").frequency.is_meta


def test_sinusoidal_is_sines_and_cosines_of_seconds():
    position, pts = SinusoidalTime(DIM, min_period=0.5, max_period=20.0), torch.tensor([[0.0, 0.3, 7.5]])
    periods = [0.5 * 40 ** (i / 3) for i in range(4)]
    expected = [[wave(2 * math.pi * t / p) for wave in (math.sin, math.cos) for p in periods] for t in (0.0, 0.3, 7.5)]
    np.testing.assert_allclose(position(pts)[0], expected, atol=1e-5)


@pytest.mark.parametrize(("frames", "length"), [(3, 5), (5, 5), (9, 5), (1, 5)])
def test_learned_positions_are_rows_and_stretch_over_longer_clips(frames: int, length: int):
    position = LearnedPosition(DIM, length)
    rank = torch.arange(frames)[None]
    got = position(rank, torch.ones(1, frames, dtype=torch.bool))[0].detach().numpy()
    table = position.table.detach().numpy()
    at = np.arange(frames) * min(1.0, (length - 1) / max(1, frames - 1))
    expected = np.stack([np.interp(at, np.arange(length), column) for column in table.T], 1)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_relative_is_a_curve_of_the_time_between_two_frames():
    relative = RelativeTime(heads=2, min_period=0.5, max_period=10.0, knots=3)
    nn.init.normal_(relative.table, generator=torch.Generator().manual_seed(0))
    queries, keys = torch.tensor([[0.0, 0.4, 3.0, 500.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    got = relative(queries, keys).detach().numpy()
    for h in range(2):
        for t, query in enumerate(queries[0].tolist()):
            for s, key in enumerate(keys[0].tolist()):
                u = math.copysign(math.log(1 + abs(query - key) / 0.5), query - key) / math.log(1 + 10 / 0.5) * 3
                expected = np.interp(u, np.arange(-3, 4), relative.table[:, h].detach())
                assert got[0, h, t, s] == pytest.approx(expected, abs=1e-5)
    assert not RelativeTime(2).table.any()  # no bias at the start


@pytest.mark.parametrize("position", ["rotary", "relative", "none", "learned"])
@pytest.mark.parametrize("shift", [5.5, 3600.0, -0.25])
def test_blocks_know_only_the_time_between_frames(position: str, shift: float):
    """Also without the encoder, which counts seconds from the first frame."""
    block = SelfAttentionBlock(DIM, 2, position=position).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.5)
        x, mask = torch.randn(1, 5, DIM), torch.ones(1, 5, dtype=torch.bool)
        pts = torch.tensor([[0.0, 0.125, 0.5, 2.0, 2.25]], dtype=torch.float64)
        torch.testing.assert_close(block(x, mask, pts + shift), block(x, mask, pts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("direction", ["bidirectional", "causal"])
def test_gru_is_torchs_on_the_real_frames(direction: str):
    torch.manual_seed(0)
    block = RecurrentBlock(DIM, direction=direction)
    nn.init.normal_(block.out.weight)
    x, pts = torch.randn(1, 5, DIM), torch.tensor([[4.0, 0.0, 9.0, 1.0, 2.0]])
    mask = torch.tensor([[True, True, False, True, True]])
    order = [1, 3, 4, 0]
    frames = block.norm(x[:, order])
    read = [block.forwards(frames)[0]]
    if block.backwards is not None:
        read.append(block.backwards(frames.flip(1))[0].flip(1))
    torch.testing.assert_close(block(x, mask, pts)[:, order], x[:, order] + block.out(torch.cat(read, -1)))


@pytest.mark.parametrize(("direction", "kernel"), [("bidirectional", 3), ("causal", 3), ("causal", 2)])
def test_tcn_is_a_loop_over_neighbours(direction: str, kernel: int):
    torch.manual_seed(0)
    block = ConvolutionBlock(DIM, kernel, dilation=2, direction=direction)
    nn.init.normal_(block.out.weight)
    x, pts = torch.randn(1, 7, DIM), torch.tensor([[0.0, 1, 2, 3, 4, 5, 6]])
    mask = torch.tensor([[True, True, True, False, True, True, True]])
    real = [0, 1, 2, 4, 5, 6]
    frames = block.norm(x[0, real])
    first = -2 * (kernel - 1) if direction == "causal" else -2
    got = block(x, mask, pts)[0]
    for place, t in enumerate(real):
        seen = block.conv.bias
        for tap in range(kernel):
            at = place + first + 2 * tap
            if 0 <= at < len(real):
                seen = seen + block.conv.weight[:, :, tap] @ frames[at]
        torch.testing.assert_close(got[t], x[0, t] + block.out(nn.functional.gelu(seen)), atol=1e-5, rtol=1e-5)


def test_rotation_is_multiplication_by_a_complex_phase():
    rotary = RotaryTime(8, min_period=0.5, max_period=20.0)
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    pts = torch.tensor([[0.0, 0.3, 1.0, 7.5], [2.0, 2.5, 2.75, 40.0]])
    got = rotary(x, rotary.angles(pts)).numpy()
    periods = [0.5 * (20 / 0.5) ** (i / 3) for i in range(4)]
    for b in range(2):
        for t in range(4):
            for i, period in enumerate(periods):
                phase = np.exp(2j * math.pi * float(pts[b, t]) / period)
                z = (x[b, :, t, i].numpy() + 1j * x[b, :, t, i + 4].numpy()) * phase
                np.testing.assert_allclose(got[b, :, t, i], z.real, atol=2e-4)
                np.testing.assert_allclose(got[b, :, t, i + 4], z.imag, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 30), st.floats(0, 30), st.floats(0, 10))
def test_score_depends_on_the_time_between_two_frames_only(first: float, second: float, shift: float):
    rotary = RotaryTime(8)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(2)).double()
    rotary.frequency = rotary.frequency.double()

    def score(at_q: float, at_k: float) -> float:
        def rotated(x: Tensor, at: float) -> Tensor:
            phase = torch.tensor(at, dtype=torch.float64) * rotary.frequency
            return rotary(x, (phase.cos(), phase.sin()))

        return float((rotated(q, at_q) * rotated(k, at_k)).sum())

    z = torch.complex(q[..., :4], q[..., 4:]) * torch.complex(k[..., :4], k[..., 4:]).conj()
    turn = torch.polar(torch.ones(4, dtype=torch.float64), (first - second) * rotary.frequency)
    assert score(first, second) == pytest.approx(float((z * turn).real.sum()), abs=1e-9)
    assert score(first + shift, second + shift) == pytest.approx(score(first, second), abs=1e-9)
