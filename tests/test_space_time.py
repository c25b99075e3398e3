"""Attention over the cells of a clip against loops, and what padding and time must and must not change."""

from __future__ import annotations

import pytest
import torch
from allocations import largest_tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from mechanisms import maps, randomise
from torch import Tensor, nn

from temporal_attn.attention import record_attention
from temporal_attn.attention.space_time import FactorisedSpaceTime, JointSpaceTime, SpaceAttention, TimeAttention

CHANNELS, HEADS = 8, 2
OVER_TIME = (JointSpaceTime, TimeAttention, FactorisedSpaceTime)

over_time = pytest.mark.parametrize("kind", OVER_TIME)


def clip(batch: int = 2, frames: int = 4, height: int = 2, width: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A clip whose last frames are padding in all but the first row."""
    x = maps(batch, frames, CHANNELS, height, width).double()
    mask = torch.ones(batch, frames, dtype=torch.bool)
    mask[1:, -1] = False
    pts = torch.rand(batch, frames, generator=torch.Generator().manual_seed(3)).cumsum(1)
    return x, mask, pts


def trained(kind: type[nn.Module]) -> nn.Module:
    return randomise(kind(CHANNELS, HEADS)).double().eval()


def seen_by_loops(core: nn.Module, cells: Tensor, seconds: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention over a list of real cells (L, C) by the formula: what is added (L, C), weights (heads, L, L)."""
    normed = nn.functional.layer_norm(cells, (CHANNELS,), core.norm.weight, core.norm.bias)
    q, k, v = (core.query_key_value.weight @ normed.T + core.query_key_value.bias[:, None]).T.chunk(3, 1)
    width, mixed, weights = CHANNELS // HEADS, [], []
    for head in range(HEADS):
        part = slice(head * width, head * width + width)
        scores = torch.empty(len(cells), len(cells), dtype=cells.dtype)
        for i in range(len(cells)):
            for j in range(len(cells)):
                query, key = q[i, part], k[j, part]
                if seconds is not None:  # rotating both is rotating one by the time between them
                    phase = (seconds[j] - seconds[i]) * core.rotary.frequency
                    first, second = key.chunk(2)
                    key = torch.cat(
                        (first * phase.cos() - second * phase.sin(), first * phase.sin() + second * phase.cos())
                    )
                scores[i, j] = query @ key / width**0.5
        weights.append(scores.softmax(-1))
        mixed.append(weights[-1] @ v[:, part])
    return core.out(torch.cat(mixed, 1)), torch.stack(weights)


def real(mask: Tensor, row: int) -> list[int]:
    return mask[row].nonzero().flatten().tolist()


def test_joint_attention_equals_loops_over_all_real_cells():
    module = trained(JointSpaceTime)
    x, mask, pts = clip()
    y = module(x, mask, pts)
    shown = attention_maps_of(module, x, mask, pts)[""]
    for row in range(2):
        frames = real(mask, row)
        cells = torch.cat([x[row, t].flatten(1).T for t in frames])
        added, weights = seen_by_loops(module.attention, cells, pts[row, frames].double().repeat_interleave(6))
        for number, t in enumerate(frames):
            expected = x[row, t] + added[6 * number : 6 * number + 6].T.view(CHANNELS, 2, 3)
            torch.testing.assert_close(y[row, t], expected, atol=1e-6, rtol=1e-6)
            for other, s in enumerate(frames):
                taken = weights[:, 6 * number : 6 * number + 6, 6 * other : 6 * other + 6].sum(-1).mean(-1)
                torch.testing.assert_close(shown[row, :, t, s], taken, atol=1e-6, rtol=1e-6)


def test_time_attention_equals_loops_over_the_frames_of_each_cell():
    module = trained(TimeAttention)
    x, mask, pts = clip()
    y = module(x, mask, pts)
    shown = attention_maps_of(module, x, mask, pts)[""]
    for row in range(2):
        frames = real(mask, row)
        every = torch.zeros(HEADS, len(frames), len(frames), dtype=x.dtype)
        for i in range(2):
            for j in range(3):
                cells = x[row, frames, :, i, j]
                added, weights = seen_by_loops(module.attention, cells, pts[row, frames].double())
                torch.testing.assert_close(y[row, frames, :, i, j], cells + added, atol=1e-6, rtol=1e-6)
                every += weights / 6
        torch.testing.assert_close(shown[row][:, frames][:, :, frames], every, atol=1e-6, rtol=1e-6)


def test_space_attention_equals_loops_over_the_cells_of_each_frame():
    module = trained(SpaceAttention)
    x, mask, _ = clip()
    y = module(x, mask)
    shown = attention_maps_of(module, x, mask)[""]
    for row in range(2):
        for t in real(mask, row):
            cells = x[row, t].flatten(1).T
            added, weights = seen_by_loops(module.attention, cells, None)
            torch.testing.assert_close(y[row, t], (cells + added).T.view(CHANNELS, 2, 3))
            torch.testing.assert_close(shown[row, t], weights)


def attention_maps_of(module: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    with record_attention(module) as shown:
        module(*inputs)
    return shown


def test_factorised_attention_is_time_then_space():
    module = trained(FactorisedSpaceTime)
    x, mask, pts = clip()
    torch.testing.assert_close(module(x, mask, pts), module.space(module.time(x, mask, pts), mask))
    shown = attention_maps_of(module, x, mask, pts)
    assert {name: tuple(weights.shape) for name, weights in shown.items()} == {
        "time": (2, HEADS, 4, 4),
        "space": (2, 4, HEADS, 6, 6),
    }


@over_time
def test_starts_as_the_identity_padding_included(kind: type[nn.Module]):
    x, mask, pts = clip()
    assert torch.equal(kind(CHANNELS, HEADS).double()(x, mask, pts), x)


@over_time
@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
def test_padding_changes_nothing(kind: type[nn.Module], garbage: float):
    module = trained(kind)
    x, mask, pts = clip()
    dirty, late = x.clone(), pts.clone()
    dirty[~mask], late[~mask] = garbage, garbage
    dirty.requires_grad_()
    y = module(dirty, mask, late)
    assert torch.equal(y[mask], module(x, mask, pts)[mask])
    (gradient,) = torch.autograd.grad(y[mask].sum(), dirty)
    assert gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()
    short = module(x[1:, :-1], mask[1:, :-1], pts[1:, :-1])
    torch.testing.assert_close(y[1:, :-1], short)


@over_time
def test_a_clip_of_padding_alone_passes_as_it_is(kind: type[nn.Module]):
    module = trained(kind)
    x, mask, pts = clip()
    mask[1] = False
    y = module(x, mask, pts)
    assert torch.equal(y[1], x[1])
    assert y.isfinite().all()
    for weights in attention_maps_of(module, x, mask, pts).values():
        assert weights.isfinite().all()
        assert (weights[1] == 0).all()


@over_time
def test_frame_weights_sum_to_one_over_real_frames(kind: type[nn.Module]):
    module = trained(kind)
    x, mask, pts = clip()
    weights = attention_maps_of(module, x, mask, pts)["time" if kind is FactorisedSpaceTime else ""]
    torch.testing.assert_close(weights.sum(-1), mask[:, None].expand(-1, HEADS, -1).double(), atol=1e-5, rtol=0)
    assert (weights[1, :, :, -1] == 0).all()
    assert (weights[1, :, -1] == 0).all()


@over_time
@settings(max_examples=10, deadline=None)
@given(shift=st.floats(-10, 10))
def test_only_the_time_between_frames_counts(kind: type[nn.Module], shift: float):
    module = trained(kind)
    x, mask, pts = clip()
    torch.testing.assert_close(module(x, mask, pts + shift), module(x, mask, pts), atol=1e-3, rtol=1e-3)


@over_time
def test_time_counts(kind: type[nn.Module]):
    module = trained(kind)
    x, mask, pts = clip()
    assert not torch.allclose(module(x, mask, 3 * pts), module(x, mask, pts), atol=1e-3)


@over_time
def test_frames_may_come_in_any_order(kind: type[nn.Module]):
    module = trained(kind)
    x, mask, pts = clip()
    order = torch.tensor([2, 0, 3, 1])
    mixed = module(x[:, order], mask[:, order], pts[:, order])
    torch.testing.assert_close(mixed, module(x, mask, pts)[:, order])


@over_time
def test_gradient_reaches_every_parameter_after_two_steps(kind: type[nn.Module]):
    torch.manual_seed(0)
    module = kind(CHANNELS, HEADS).double()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        module(*clip()).square().sum().backward()
        optimiser.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


@over_time
def test_memory_grows_with_cells(kind: type[nn.Module]):
    def peak(side: int) -> int:
        module = kind(CHANNELS, HEADS)
        x = maps(2, 4, CHANNELS, side, side).requires_grad_()
        mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
        return largest_tensor(module, x, mask, torch.rand(2, 4))

    assert peak(16) <= 4.1 * peak(8)


def test_reading_joint_weights_forms_none_of_a_cell():
    def peak(side: int) -> int:
        module = JointSpaceTime(CHANNELS, HEADS)
        x, mask = maps(1, 4, CHANNELS, side, side).requires_grad_(), torch.ones(1, 4, dtype=torch.bool)
        return largest_tensor(lambda x: module.attention_weights((x, mask, torch.rand(1, 4)), x), x)

    assert peak(16) <= 4.1 * peak(8)


@over_time
def test_compiles_in_one_graph_and_runs_under_autocast(kind: type[nn.Module]):
    module = randomise(kind(CHANNELS, HEADS), scale=0.2).eval()
    x, mask, pts = clip()
    x = x.float()
    expected = module(x, mask, pts)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=False)
    torch.testing.assert_close(compiled(x, mask, pts), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = module(x, mask, pts)
    assert lowered.dtype == x.dtype
    torch.testing.assert_close(lowered, expected, atol=5e-2, rtol=5e-2)


@over_time
def test_wrong_arguments_are_named(kind: type[nn.Module]):
    with pytest.raises(ValueError, match="heads=3 does not divide channels=8"):
        kind(8, heads=3)
    with pytest.raises(ValueError, match="even head width, got 3"):
        kind(12, heads=4)
