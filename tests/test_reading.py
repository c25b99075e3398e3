"""Weights of attention as they were used: for pictures, for losses, and in nets that are compiled."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from temporal_attn.attention import CBAM, attention_maps, insert_attention, record_attention


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).mean((2, 3))


def attended(gate: str = "sigmoid") -> nn.Module:
    torch.manual_seed(0)
    return insert_attention(Net(), "cbam", ["first", "second"], gate=gate)


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


NAMES = [
    f"frame_attention.{place}.attention.{kind}_gate" for place in ("first", "second") for kind in ("channel", "spatial")
]
SHAPES = [(2, 8, 1, 1), (2, 1, 8, 8), (2, 4, 1, 1), (2, 1, 4, 4)]


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def test_names_and_shapes():
    maps = attention_maps(attended(), images())
    assert list(maps) == NAMES
    assert [tuple(weight.shape) for weight in maps.values()] == SHAPES


@pytest.mark.parametrize("way", ["torch.compile(net)", "net.compile()", "part of a model"])
def test_compiled_nets_show_the_same_and_stay_compiled(way: str):
    net = attended().eval()
    expected = attention_maps(copy.deepcopy(net), images())
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> torch.fx.GraphModule:
        calls.append(len(graph.graph.nodes))
        return graph

    outer: nn.Module
    if way == "torch.compile(net)":
        outer = torch.compile(net, backend=backend)
    elif way == "net.compile()":
        net.compile(backend=backend)
        outer = net
    else:
        outer = nn.Sequential(torch.compile(net, backend=backend), nn.Identity())
    with torch.no_grad():
        before = outer(images())
        compiled = len(calls)
        assert compiled > 0
        maps = attention_maps(outer, images())
        assert torch.equal(outer(images()), before)
    assert len(calls) == compiled  # neither in between nor afterwards
    prefix = "0." if way == "part of a model" else ""
    assert list(maps) == [prefix + name for name in NAMES]
    for weight, other in zip(maps.values(), expected.values(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loss_on_the_weights_trains_the_gate(compiled: bool):
    net = attended("identity").train()
    runs = torch.compile(net, backend="eager") if compiled else net
    runs(images())
    gates = [p for name, p in net.named_parameters() if name.startswith("frame_attention.")]
    optimiser = torch.optim.SGD(gates, lr=0.5)
    means = []
    for _ in range(5):
        with record_attention(runs) as maps:
            answer = runs(images())
            loss = sum(weight.mean() for weight in maps.values())
        optimiser.zero_grad()
        (loss + 0 * answer.sum()).backward()
        optimiser.step()
        means.append(loss.item())
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0] - 0.1
    with torch.no_grad():  # what the compiled net computes from then on is what was learned
        torch.testing.assert_close(runs(images()), net(images()))


def test_nothing_is_left_behind_even_when_the_pass_fails():
    net = attended()
    before = hooks(net)
    with pytest.raises(RuntimeError, match="channels"):
        attention_maps(net, torch.randn(1, 7, 8, 8))
    attention_maps(net, images())
    assert hooks(net) == before


def test_the_last_pass_counts():
    net = attended().eval()
    with record_attention(net) as maps:
        net(images())
        net(images()[:1])
    assert {weight.shape[0] for weight in maps.values()} == {1}
    for name, weight in attention_maps(net, images()[:1]).items():
        assert torch.equal(maps[name], weight)


class OfAnotherPackage(nn.Module):
    """Shows weights that its forward pass never forms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x

    def attention_weights(self, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return (output / inputs[0]).mean((1, 2, 3))


def test_modules_of_other_packages_join_by_having_the_method():
    net = insert_attention(Net(), "test_reading.OfAnotherPackage", ["first"], gate=None)
    maps = attention_maps(net, images())
    assert list(maps) == ["frame_attention.first.attention"]
    torch.testing.assert_close(maps["frame_attention.first.attention"], torch.full((2,), 3.0))


class Masked(nn.Module):
    """Takes more than a map, and can be called by name."""

    def forward(self, x: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> Tensor:
        return x * scale if mask is None else x * scale * mask

    def attention_weights(self, inputs: tuple[Tensor, float, Tensor], _output: Tensor) -> Tensor:
        _, scale, mask = inputs
        return scale * mask


def test_arguments_given_by_name_are_read_as_well():
    module, x, mask = Masked(), images(), torch.rand(2, 3, 8, 8)
    for call in (
        lambda: module(x, 2.0, mask),
        lambda: module(x, mask=mask, scale=2.0),
        lambda: module(x, mask=mask),
        lambda: module(mask=mask, x=x),
    ):
        with record_attention(module) as maps:
            call()
        assert torch.equal(maps[""], 2 * mask)


def test_a_mechanism_alone_and_a_net_without_any():
    assert list(attention_maps(CBAM(8), torch.randn(2, 8, 4, 4))) == ["channel_gate", "spatial_gate"]
    assert attention_maps(Net(), images()) == {}


def test_recomputed_activations_give_the_same_gradients():
    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = attended()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint(self.net, x, use_reentrant=False)
            return out

    gradients = []
    for net in (attended(), Recomputed()):
        with record_attention(net) as maps:
            (net(images()).sum() + sum(weight.square().sum() for weight in maps.values())).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other)
