"""Pooling over time: what each pool does when frames are permuted, repeated or absent, each against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from temporal_attn.temporal import (
    AttentionPool,
    ClassTokenPool,
    FrameGate,
    GatedPool,
    MaxPool,
    MeanPool,
    PowerMeanPool,
    SqueezeExcitation,
)
from temporal_attn.temporal.encoder import POOLS, Size

DIM, HEADS = 8, 2


def make(name: str) -> nn.Module:
    pool = POOLS[name](Size(DIM, HEADS))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return pool.eval()


def clip(frames: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(3, frames, DIM, generator=torch.Generator().manual_seed(1)), torch.tensor(
        [[True] * frames, [True, False] * (frames // 2), [False] * frames]
    )


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.sampled_from(list(POOLS)))
def test_the_feature_does_not_know_the_order_and_weights_go_with_their_frames(order: list[int], name: str):
    pool, (x, mask) = make(name), clip()
    feature, weights = pool(x, mask)
    permuted, moved = pool(x[:, order], mask[:, order])
    torch.testing.assert_close(permuted, feature, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved, weights[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", POOLS)
def test_weights_sum_to_one_over_real_frames_and_padding_changes_nothing(name: str):
    pool, (x, mask) = make(name), clip()
    feature, weights = pool(x, mask)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    assert (weights[~mask] == 0).all()
    other, _ = pool(torch.where(mask[..., None], x, 1e4), mask)
    torch.testing.assert_close(other, feature, atol=1e-5, rtol=1e-5)
    alone, own = pool(x[1:2, mask[1]], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(feature[1:2], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights[1:2, mask[1]], own, atol=1e-5, rtol=1e-5)
    assert feature.isfinite().all()


@pytest.mark.parametrize("name", POOLS)
def test_a_clip_shown_twice_is_the_same_clip(name: str):
    """But for the class token, which attends to itself as well and so hears twice as much of the frames."""
    pool, (x, mask) = make(name), clip()
    once, weights = pool(x, mask)
    twice, halves = pool(torch.cat((x, x), 1), torch.cat((mask, mask), 1))
    torch.testing.assert_close(halves.unflatten(1, (2, -1)).sum(1), weights, atol=1e-5, rtol=1e-5)
    assert torch.allclose(once, twice, atol=1e-5) == (name != "cls")


@pytest.mark.parametrize("name", [name for name in POOLS if name not in ("max", "cls", "power_mean")])
def test_the_feature_is_affine_in_what_the_weights_weigh(name: str):
    """Weights are weights of logits: the feature is the weighted sum of what single frames give."""
    pool, (x, _) = make(name), clip()
    every = torch.ones(3, 6, dtype=torch.bool)
    feature, _ = pool(x, every)
    by_head = pool.head_weights(x, every)
    assert torch.allclose(pool.combine((by_head[..., None] * pool.values(x)).sum(2)), feature, atol=1e-5)


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-z))


def numpy_of(module: nn.Module) -> dict[str, NDArray[np.float64]]:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def test_gated_is_the_papers_equation():
    pool, (x, mask) = make("gated"), clip()
    assert isinstance(pool, GatedPool)
    w = numpy_of(pool)
    feature, weights = pool(x, mask)
    for row in range(2):
        f = x[row, mask[row]].double().numpy()
        hidden = np.tanh(f @ w["content.weight"].T + w["content.bias"])
        hidden = hidden * sigmoid(f @ w["gate.weight"].T + w["gate.bias"])
        share = np.exp(hidden @ w["score"])
        share /= share.sum()
        np.testing.assert_allclose(weights[row, mask[row]].detach(), share, atol=1e-5)
        np.testing.assert_allclose(feature[row].detach(), share @ f, atol=1e-5)


def test_frame_gate_is_the_mean_of_what_gates_let_through():
    pool, (x, mask) = make("frame_gate"), clip()
    assert isinstance(pool, FrameGate)
    w = numpy_of(pool)
    feature, _ = pool(x, mask)
    for row in range(2):
        f = x[row, mask[row]].double().numpy()
        gate = sigmoid(f @ w["score.weight"][0] + w["score.bias"])
        np.testing.assert_allclose(feature[row].detach(), gate @ f / gate.sum(), atol=1e-5)


def test_power_mean_is_the_standardised_power_of_the_mean():
    pool, (x, mask) = PowerMeanPool(DIM, power=0.5).train(), clip()
    x, mask = x[:2], mask[:2]
    feature, weights = pool(x, mask)
    means = np.stack([row[real].double().numpy().mean(0) for row, real in zip(x, mask, strict=True)])
    powers = np.sign(means) * (np.sqrt(np.abs(means) + 1e-4) - 1e-2)
    expected = (powers - powers.mean(0)) / np.sqrt(powers.var(0) + 1e-5)
    np.testing.assert_allclose(feature, expected, atol=1e-4)
    torch.testing.assert_close(weights, MeanPool()(x, mask)[1])
    # in evaluation by what training saw, and a single clip, which has no variance, by the same
    by_training = (powers - pool.norm.running_mean.numpy()) / np.sqrt(pool.norm.running_var.numpy() + 1e-5)
    np.testing.assert_allclose(pool.eval()(x, mask)[0], by_training, atol=1e-4)
    np.testing.assert_allclose(pool.train()(x[:1], mask[:1])[0], by_training[:1], atol=1e-4)


def test_power_mean_has_a_finite_slope_at_zero_and_a_power_of_one_is_none():
    x = torch.zeros(2, 3, 4, requires_grad=True)
    mask = torch.ones(2, 3, dtype=torch.bool)
    PowerMeanPool(4).eval()(x, mask)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    tokens = torch.randn(2, 3, 4)
    torch.testing.assert_close(PowerMeanPool(4, power=1).eval()(tokens, mask)[0], tokens.mean(1), atol=1e-4, rtol=1e-4)
    for power in (0, -0.5, 1.5):
        with pytest.raises(ValueError, match=r"power=.* give one in \(0, 1\]"):
            PowerMeanPool(4, power)


def test_max_weighs_frames_by_the_channels_they_win():
    x = torch.tensor([[[3.0, 1, 5, 0], [2, 4, 5, 0], [9, 9, 9, 9]]])
    feature, weights = MaxPool()(x, torch.tensor([[True, True, False]]))
    assert feature.tolist() == [[3.0, 4.0, 5.0, 0.0]]
    assert weights.tolist() == [[0.5, 0.5, 0.0]]  # one channel each, and two that they share


def test_class_token_is_a_loop_over_heads():
    pool, (x, mask) = make("cls"), clip()
    assert isinstance(pool, ClassTokenPool)
    feature, weights = pool(x, mask)
    for row in range(2):
        f = x[row, mask[row]]
        token = pool.token + f.mean(0)
        seen = pool.norm1(torch.cat((token[None], f)))
        q, k, v = pool.query(seen[:1])[0], pool.key(seen), pool.value(seen)
        mixed, shares = [], []
        for part in torch.arange(DIM).chunk(HEADS):
            attention = (k[:, part] @ q[part] / (DIM // HEADS) ** 0.5).softmax(0)
            mixed.append(attention @ v[:, part])
            shares.append(attention[1:] / attention[1:].sum())
        token = token + pool.out(torch.cat(mixed))
        torch.testing.assert_close(feature[row], token + pool.mlp(pool.norm2(token)), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weights[row, mask[row]], torch.stack(shares).mean(0), atol=1e-5, rtol=1e-5)


def test_squeeze_excitation_weighs_channels_by_the_mean_of_real_frames():
    x, mask = clip()
    gate = SqueezeExcitation(DIM, reduction=2)
    assert torch.equal(gate(x, mask, mask.float()), x)  # it starts as the identity
    nn.init.normal_(gate.up.weight, generator=torch.Generator().manual_seed(2))
    w = numpy_of(gate)
    got = gate(x, mask, mask.float())
    for row in range(2):
        mean = x[row, mask[row]].double().numpy().mean(0)
        hidden = np.maximum(mean @ w["down.weight"].T + w["down.bias"], 0)
        weight = 2 * sigmoid(hidden @ w["up.weight"].T + w["up.bias"])
        np.testing.assert_allclose(got[row].detach(), x[row].numpy() * weight, atol=1e-5)


def test_pool_weights_are_single_precision_and_double_where_asked():
    x, mask = clip()
    for name in POOLS:
        assert make(name)(x, mask)[1].dtype == torch.float32
    assert MeanPool()(x.bfloat16(), mask)[1].dtype == torch.float32
    assert MeanPool()(x.double(), mask)[1].dtype == torch.float64


def test_pool_weights_keep_single_precision_under_autocast():
    """Close scores far from zero: rounded to bfloat16 they would all be one."""
    pool = AttentionPool(4, 1)
    with torch.no_grad():
        pool.query.fill_(8.0)
        nn.init.eye_(pool.key.weight)
        nn.init.zeros_(pool.key.bias)
    x = torch.zeros(1, 3, 4)
    x[0, :, 0] = 60.0
    x[0, :, 1] = torch.tensor([0.0, 0.0625, 0.125])  # all of it exact in bfloat16
    mask = torch.ones(1, 3, dtype=torch.bool)
    expected = pool.head_weights(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(pool.head_weights(x, mask), expected)
