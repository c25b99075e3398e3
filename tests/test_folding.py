"""Folded batch norms: the same maps as before but for rounding, and afterwards the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from temporal_attn.backbones import FrameBackbone
from temporal_attn.folding import folded
from temporal_attn.two_stream import TwoStreamBackbone


def with_statistics(net: nn.Module) -> Any:
    """Batch norms that do something; those of a new net nearly do nothing."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    return net.eval()


def pictures(channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (2, channels, 64, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def make(name: str, freeze: str, **options: Any) -> Any:
    return with_statistics(FrameBackbone(name, freeze=freeze, **{"attention": None, **options}))


@pytest.mark.parametrize(
    ("name", "freeze", "count"),
    [
        ("tf_efficientnet_lite0", "all", 49),
        ("tf_efficientnet_lite0", "blocks.0", 3),
        ("resnet18", "layer3", 15),
        ("mobilenetv3_small_050", "all", 34),
        ("regnety_002", "all", 44),
        ("densenet121", "all", 59),  # batch norms before convolutions stay
        ("convnext_atto", "all", 0),
        ("test_efficientnet+mobilenetv2_035", "all", 0),  # not known as a chain
    ],
)
def test_maps_are_those_of_before(name: str, freeze: str, count: int):
    backbone = make(name, freeze)
    expected = backbone.below_cut(pictures())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with backbone.folded_below_cut() as found:
        assert found == count
        got = backbone.below_cut(pictures())
    torch.testing.assert_close(got, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    assert torch.equal(got, expected) == (count == 0)  # otherwise nothing was folded
    after = backbone.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(backbone.below_cut(pictures()), expected)


def test_two_streams():
    backbone = with_statistics(TwoStreamBackbone("tf_efficientnet_lite0", attention=None, freeze="blocks.1"))
    expected = backbone.below_cut(pictures(6))
    with backbone.folded_below_cut() as count:
        assert count == 9
        torch.testing.assert_close(backbone.below_cut(pictures(6)), expected, atol=1e-4, rtol=1e-4)


def test_attention_behind_a_folded_norm_still_sees_its_maps():
    options = {"attention": "se", "attention_at": "norm", "attention_gate": "sigmoid", "attention_stages": [1]}
    backbone = make("resnet18", "layer2", **options)
    expected = backbone.below_cut(pictures())
    with backbone.folded_below_cut() as count:
        assert count == 10
        torch.testing.assert_close(backbone.below_cut(pictures()), expected, atol=1e-4, rtol=1e-4)


def test_only_what_the_pass_meets_is_folded():
    """Above the cut things train: their batch norms look at the batch, and their weights change."""
    backbone = make("resnet18", "layer1").train()
    before = dict(backbone.net.named_parameters())
    with backbone.folded_below_cut() as count:
        assert count == 5
        changed = {name for name, parameter in backbone.net.named_parameters() if parameter is not before.get(name)}
    below = {f"layer1.{block}.conv{n}.{kind}" for block in (0, 1) for n in (1, 2) for kind in ("weight", "bias")}
    assert changed == {"conv1.weight", "conv1.bias"} | below


def test_an_error_inside_leaves_the_net_as_it_was():
    backbone = make("resnet18", "layer2")
    expected = backbone.below_cut(pictures())
    with pytest.raises(KeyboardInterrupt), backbone.folded_below_cut():
        raise KeyboardInterrupt
    assert torch.equal(backbone.below_cut(pictures()), expected)
    assert not any("forward" in vars(module) for module in backbone.modules())


class Small(nn.Module):
    def __init__(self, conv: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class Twice(Small):
    """What the convolution makes goes another way too."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y  # type: ignore[no-any-return]


class Shared(Small):
    """One convolution, called with and without the norm."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.norm(self.conv(x)), self.conv(x)))


class Parted(Small):
    """Something lies in between."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu())  # type: ignore[no-any-return]


class Activated(nn.BatchNorm2d):
    """Does more than a batch norm does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


@pytest.mark.parametrize(
    ("net", "count"),
    [
        pytest.param(Small(), 1, id="plain"),
        pytest.param(Small(nn.Conv2d(3, 4, 3, bias=False)), 1, id="no bias"),
        pytest.param(Small(norm=nn.BatchNorm2d(4, affine=False)), 1, id="not affine"),
        pytest.param(Small(norm=nn.BatchNorm2d(4, track_running_stats=False)), 0, id="statistics of the batch"),
        pytest.param(Small(norm=Activated(4)), 0, id="class of its own"),
        pytest.param(Small(norm=nn.GroupNorm(2, 4)), 0, id="group norm"),
        pytest.param(Small(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), 0, id="weight norm"),
        pytest.param(Twice(), 0, id="used twice"),
        pytest.param(Shared(), 0, id="shared"),
        pytest.param(Parted(), 0, id="parted"),
    ],
)
def test_what_can_be_folded(net: nn.Module, count: int):
    with_statistics(net)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = net(x)
        with folded(net, lambda: net(x)) as found:
            assert found == count
            torch.testing.assert_close(net(x), expected)
        assert torch.equal(net(x), expected)


def test_a_norm_in_training_is_not_folded():
    net = Small().train()
    x = torch.randn(2, 3, 8, 8)
    with folded(net, lambda: net(x)) as count:
        assert count == 0
