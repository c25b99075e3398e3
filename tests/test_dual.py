"""Dual attention against the paper's equations in numpy, and the authors' way of computing them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from allocations import largest_tensor
from mechanisms import maps, randomise
from torch import Tensor, nn

from temporal_attn.attention import (
    DualAttention,
    DualChannelAttention,
    DualPositionAttention,
    attention_maps,
)
from temporal_attn.attention.dual import PositionMixing


def softmax(row: np.ndarray) -> np.ndarray:
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def position_by_loops(mixing: PositionMixing, image: np.ndarray) -> np.ndarray:
    """Σ_j softmax_j(q_iᵀ k_j) v_j, one place at a time."""
    weight = mixing.query_key_value.weight.detach().numpy()[:, :, 0, 0]
    bias = mixing.query_key_value.bias.detach().numpy()
    channels, height, width = image.shape
    narrow = (len(weight) - channels) // 2
    places = [image[:, i, j] for i in range(height) for j in range(width)]
    queries, keys, values = np.split(
        np.stack([weight @ place + bias for place in places]), [narrow, 2 * narrow], axis=1
    )
    mixed = [softmax(np.array([query @ key for key in keys])) @ values for query in queries]
    return np.stack(mixed, 1).reshape(channels, height, width)


def channels_by_loops(image: np.ndarray) -> np.ndarray:
    """softmax(max e − e) X for e = X Xᵀ, one channel at a time."""
    flat = image.reshape(len(image), -1)
    mixed = []
    for row in flat:
        energy = np.array([row @ other for other in flat])
        mixed.append(softmax(energy.max() - energy) @ flat)
    return np.stack(mixed).reshape(image.shape)


def expected_of(x: Tensor, branch) -> Tensor:
    return torch.from_numpy(np.stack([branch(image) for image in x.numpy()]))


def test_position_attention_equals_a_literal_loop():
    module = randomise(DualPositionAttention(6, reduction=3)).double()
    x = maps(2, 6, 3, 4).double()
    expected = x + module.gamma * expected_of(x, lambda image: position_by_loops(module.mixing, image))
    torch.testing.assert_close(module(x), expected)


def test_channel_attention_equals_a_literal_loop():
    module = randomise(DualChannelAttention(6)).double()
    x = maps(2, 6, 3, 4).double()
    torch.testing.assert_close(module(x), x + module.gamma * expected_of(x, channels_by_loops))


def test_danet_is_the_map_and_both_branches():
    module = randomise(DualAttention(6, reduction=2)).double()
    x = maps(2, 6, 3, 4).double()
    expected = (
        x
        + module.alpha * expected_of(x, lambda image: position_by_loops(module.position, image))
        + module.beta * expected_of(x, channels_by_loops)
    )
    torch.testing.assert_close(module(x), expected)


class AuthorsPosition(nn.Module):
    """The module of the authors' net, written from its description: three convolutions and two batched products."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q, self.k = nn.Conv2d(channels, channels // 8, 1), nn.Conv2d(channels, channels // 8, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (conv(x).flatten(2) for conv in (self.q, self.k, self.v))
        attention = torch.bmm(q.transpose(1, 2), k).softmax(-1)
        return self.gamma * torch.bmm(v, attention.transpose(1, 2)).view(x.shape) + x


@pytest.mark.parametrize("side", [4, 17])  # weights smaller than the map, and several blocks of queries
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"])
def test_weights_of_the_authors_layout_load_and_train_alike(side: int, layout: torch.memory_format):
    theirs, ours = randomise(AuthorsPosition(32), scale=0.2), DualPositionAttention(32)
    with torch.no_grad():
        for name in ("weight", "bias"):
            stacked = torch.cat([getattr(conv, name) for conv in (theirs.q, theirs.k, theirs.v)])
            getattr(ours.mixing.query_key_value, name).copy_(stacked)
        ours.gamma.copy_(theirs.gamma.squeeze())
    x = maps(2, 32, side, side).to(memory_format=layout)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    upstream = maps(*x.shape, seed=3)
    y, expected = ours(one), theirs(other)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    (y * upstream).sum().backward()
    (expected * upstream).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.gamma.grad, theirs.gamma.grad.squeeze(), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(
        ours.mixing.query_key_value.weight.grad,
        torch.cat([conv.weight.grad for conv in (theirs.q, theirs.k, theirs.v)]),
        atol=1e-3,
        rtol=1e-3,
    )


def test_the_paper_starts_as_the_identity():
    for module in (DualPositionAttention(16), DualChannelAttention(16), DualAttention(16)):
        x = maps(2, 16, 5, 5)
        assert torch.equal(module(x), x)


def test_few_channels_keep_one_query():
    assert PositionMixing(4, reduction=8).widths == [1, 1, 4]


@pytest.mark.parametrize("kind", [DualPositionAttention, DualChannelAttention], ids=["position", "channel"])
def test_shown_weights_are_those_that_were_used(kind: type[nn.Module]):
    module = randomise(kind(8)).double()
    x = maps(2, 8, 3, 5).double()
    (weights,) = attention_maps(module, x).values()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    if kind is DualPositionAttention:
        values = module.mixing.project(x)[2]
        mixed = (weights @ values)[:, 0].mT.reshape(x.shape)
    else:
        mixed = (weights[:, 0] @ x.flatten(2)).view(x.shape)
    torch.testing.assert_close(x + module.gamma * mixed, module(x))


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16"])
def test_shown_weights_over_places_are_those_that_half_precision_used(autocast: bool):
    mixing = randomise(PositionMixing(16)).eval()
    x = maps(2, 16, 6, 6)
    if not autocast:
        mixing, x = mixing.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        shown, mixed = attention_maps(mixing, x)[""], mixing(x)
        v = mixing.project(x)[2]
    assert shown.dtype == torch.float32
    expected = (shown @ v.float())[:, 0].mT.reshape(x.shape)
    torch.testing.assert_close(mixed.float(), expected, atol=1e-2, rtol=1e-2)


def test_channels_attend_to_those_unlike_themselves():
    x = maps(1, 3, 4, 4)
    x[:, 1] = x[:, 0]
    weights = attention_maps(DualChannelAttention(3), x)["mixing"][0, 0]
    assert weights[0, 2] > weights[0, 0]
    torch.testing.assert_close(weights[0, 0], weights[0, 1])


def test_channel_energies_keep_full_precision_under_autocast():
    module = DualChannelAttention(8, gate="residual")
    x = 0.3 * maps(2, 8, 16, 16)  # sums over 256 places: half precision would move the softmax by several percent
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(module(x), DualChannelAttention(8, gate="residual")(x))
        lowered = attention_maps(module, x)["mixing"]
    assert lowered.dtype == torch.float32
    assert torch.equal(lowered, attention_maps(module, x)["mixing"])


@pytest.mark.parametrize("kind", [DualPositionAttention, DualChannelAttention, DualAttention])
def test_memory_grows_with_places(kind: type[nn.Module]):
    def peak(side: int) -> int:
        return largest_tensor(kind(16), maps(2, 16, side, side).requires_grad_())

    assert peak(32) <= 4.1 * peak(16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DualPositionAttention(0), "positive, got 0 and 8"),
        (lambda: DualAttention(8, reduction=0), "positive, got 8 and 0"),
        (lambda: DualChannelAttention(0), "positive, got 0"),
        (lambda: DualChannelAttention(8, gate="soft"), "choose one of: sigmoid, residual, identity"),
    ],
)
def test_wrong_arguments_are_named(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
