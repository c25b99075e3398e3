"""SE, ECA and the channel gate against torchvision, timm and their equations in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mechanisms import maps, randomise
from torch import nn

from temporal_attn.attention import CBAM, ECA, SE, ChannelGate
from temporal_attn.attention.channel import SOURCES, ChannelConvLogits, bottleneck_width


def copy_mlp(ours: nn.Module, down: nn.Conv2d, up: nn.Conv2d) -> None:
    """Weights of 1×1 convolutions into the linear layers of ours."""
    pairs = {"down": down, "up": up}
    state = {f"{name}.weight": conv.weight.flatten(1) for name, conv in pairs.items()}
    ours.load_state_dict(state | {f"{name}.bias": conv.bias for name, conv in pairs.items()})


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def test_se_equals_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    theirs = randomise(ops.SqueezeExcitation(32, 2))
    ours = SE(32)
    copy_mlp(ours.logits.mlp, theirs.fc1, theirs.fc2)
    x = maps(3, 32, 7, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_se_equals_timm():
    layers = pytest.importorskip("timm.layers")
    theirs = randomise(layers.SEModule(64, rd_channels=64 // 16))  # its default would round the width to 8
    ours = SE(64)
    copy_mlp(ours.logits.mlp, theirs.fc1, theirs.fc2)
    x = maps(3, 64, 7, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_se_has_the_papers_number_of_parameters_in_a_resnet50():
    blocks = {256: 3, 512: 4, 1024: 6, 2048: 3}
    total = sum(count * sum(p.numel() for p in SE(width).parameters()) for width, count in blocks.items())
    assert total == 2_530_992


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_eca_equals_timm(kernel_size: int):
    layers = pytest.importorskip("timm.layers")
    theirs = randomise(layers.EcaModule(channels=None, kernel_size=kernel_size))
    ours = ECA(24, kernel_size=kernel_size)
    ours.logits.conv.load_state_dict(theirs.conv.state_dict())
    x = maps(3, 24, 7, 5)
    torch.testing.assert_close(ours(x), theirs(x))


def test_eca_equals_a_loop_over_channels():
    module = randomise(ECA(10, kernel_size=5)).double()
    x = maps(2, 10, 3, 4).double()
    (kernel,) = module.logits.conv.weight.detach().numpy()[0]
    expected = np.empty(x.shape)
    for n, image in enumerate(x.numpy()):
        averages = [channel.mean() for channel in image]
        for c in range(10):
            z = sum(kernel[j] * averages[c + j - 2] for j in range(5) if 0 <= c + j - 2 < 10)
            expected[n, c] = sigmoid(z) * image[c]
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-12)


def test_eca_kernels_of_a_resnet50():
    assert [ChannelConvLogits(c).conv.kernel_size[0] for c in (256, 512, 1024, 2048)] == [5, 5, 5, 7]


@pytest.mark.parametrize("channels", [1, 2, 7, 16, 63, 64, 65, 100, 511, 512, 4096])
def test_eca_kernel_is_the_papers_formula(channels: int):
    cut = int(abs(math.log2(channels) / 2 + 1 / 2))
    assert ChannelConvLogits(channels).conv.kernel_size == ((cut if cut % 2 else cut + 1),)


@pytest.mark.parametrize(("source", "pools"), [("average", ("mean",)), ("max", ("max",)), ("both", ("mean", "max"))])
def test_channel_gate_is_the_sum_over_its_sources(source: str, pools: tuple[str, ...]):
    module = randomise(ChannelGate(12, source=source, reduction=3)).double()
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in module.parameters())
    w1, w2 = w1.reshape(4, 12), w2.reshape(12, 4)
    x = maps(2, 12, 4, 5).double()
    for image, out in zip(x.numpy(), module(x).detach().numpy(), strict=True):
        pooled = [np.array([getattr(channel, pool)() for channel in image]) for pool in pools]
        z = sum(w2 @ np.maximum(w1 @ p + b1, 0) + b2 for p in pooled)
        np.testing.assert_allclose(out, sigmoid(z)[:, None, None] * image, atol=1e-12)


@pytest.mark.parametrize(
    ("source", "other"), [("average", SE(16)), ("conv1d", ECA(16)), ("both", CBAM(16, order="c"))], ids=str
)
def test_channel_gate_holds_the_named_mechanisms(source: str, other: nn.Module):
    gate = ChannelGate(16, source=source)
    gate.load_state_dict(dict(zip(gate.state_dict(), randomise(other).state_dict().values(), strict=True)))
    x = maps(2, 16, 4, 5)
    torch.testing.assert_close(gate(x), other(x))


def test_sources_differ():
    x = maps(2, 16, 6, 6)
    outputs = [randomise(ChannelGate(16, source=source, reduction=2))(x) for source in SOURCES]
    for i, one in enumerate(outputs):
        assert all((one - other).abs().max() > 1e-3 for other in outputs[:i])


def test_a_narrow_map_keeps_a_bottleneck():
    assert bottleneck_width(8, 16) == 1
    assert bottleneck_width(8, 16, least=4) == 4
    assert SE(64, reduction=16).logits.mlp.down.out_features == 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SE(8, reduction=0), "reduction must be positive"),
        (lambda: ECA(8, kernel_size=4), "odd and positive, got 4"),
        (lambda: ECA(8, kernel_size=-1), "odd and positive, got -1"),
        (lambda: ECA(2, kernel_size=5), "kernel_size=5 .* too long for 2 channels; choose 3 at most"),
        (lambda: ChannelGate(8, source="median"), "choose one of: average, max, both, conv1d"),
    ],
)
def test_bad_arguments_are_named(make, words: str):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("source", SOURCES)
def test_channel_gate_checks_also_what_its_source_does_not_use(source: str):
    for options, words in (
        ({"reduction": 0}, "reduction must be positive"),
        ({"kernel_size": 4}, "odd and positive, got 4"),
        ({"kernel_size": 17}, "choose 15 at most"),
    ):
        with pytest.raises(ValueError, match=words):
            ChannelGate(8, source=source, **options)


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_every_weight_of_the_longest_eca_kernel_meets_a_channel(channels: int):
    module = ECA(channels, kernel_size=2 * channels - 1)
    module(torch.rand(1, channels, 2, 2) + 1).sum().backward()
    assert module.logits.conv.weight.grad.abs().min() > 0
