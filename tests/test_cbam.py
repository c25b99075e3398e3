"""CBAM and its gates against timm, a loop in numpy and the formulas, and what holds from the first step on."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mechanisms import maps, randomise
from torch import Tensor, nn

from temporal_attn.attention import CBAM, Gate, attention_maps
from temporal_attn.attention.cbam import ORDERS
from temporal_attn.attention.channel import ChannelLogits
from temporal_attn.attention.gates import GATES
from temporal_attn.attention.spatial import SpatialLogits

CASES = list(itertools.product(ORDERS, GATES))


def gated(logits: Tensor, gate: str) -> Tensor:
    return {"sigmoid": lambda w: w, "residual": lambda w: 1 + w, "identity": lambda w: 2 * w}[gate](
        1 / (1 + torch.exp(-logits))
    )


def channel_logits(module: CBAM, x: Tensor) -> Tensor:
    """The formula as the paper writes it: the MLP on each descriptor, then the sum."""
    assert module.channel is not None
    down, up = module.channel.down, module.channel.up

    def mlp(pooled: Tensor) -> Tensor:
        hidden = nn.functional.linear(pooled, down.weight[:, :, 0, 0], down.bias).clamp(min=0)
        return nn.functional.linear(hidden, up.weight[:, :, 0, 0], up.bias)

    flat = x.flatten(2)
    return (mlp(flat.mean(2)) + mlp(flat.max(2).values))[:, :, None, None]


def spatial_logits(module: CBAM, x: Tensor) -> Tensor:
    assert module.spatial is not None
    conv, norm = module.spatial.conv, module.spatial.norm
    pooled = torch.stack((x.mean(1), x.max(1).values), dim=1)
    z = nn.functional.conv2d(pooled, conv.weight, padding=conv.padding)
    return (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias


def formula(module: CBAM, x: Tensor, order: str, gate: str) -> Tensor:
    if order == "parallel":
        return gated(channel_logits(module, x) + spatial_logits(module, x), gate) * x
    for kind in order:
        x = gated((channel_logits if kind == "c" else spatial_logits)(module, x), gate) * x
    return x


def test_equals_timm_with_copied_weights():
    cbam = pytest.importorskip("timm.layers.cbam")
    theirs = cbam.CbamModule(32, rd_ratio=1 / 16, mlp_bias=True).eval()
    randomise(theirs)
    ours = CBAM(32).eval()
    pairs = {
        "channel.down": theirs.channel.fc1,
        "channel.up": theirs.channel.fc2,
        "spatial.conv": theirs.spatial.conv.conv,
        "spatial.norm": theirs.spatial.conv.bn,
    }
    for name, module in pairs.items():
        ours.get_submodule(name).load_state_dict(module.state_dict())
    x = maps(3, 32, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_equals_a_literal_loop():
    channels, height, width, side = 8, 5, 6, 3
    module = randomise(CBAM(channels, reduction=4, kernel_size=side)).double().eval()
    assert isinstance(module, CBAM)
    assert module.channel is not None
    assert module.spatial is not None
    x = maps(2, channels, height, width).double()
    weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}

    def mlp(pooled: np.ndarray) -> np.ndarray:
        down, up = weights["channel.down.weight"][:, :, 0, 0], weights["channel.up.weight"][:, :, 0, 0]
        hidden = np.maximum(down @ pooled + weights["channel.down.bias"], 0)
        return up @ hidden + weights["channel.up.bias"]

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    expected = np.empty((2, channels, height, width))
    for n, image in enumerate(x.numpy()):
        average = np.array([image[c].mean() for c in range(channels)])
        maximum = np.array([image[c].max() for c in range(channels)])
        refined = image * sigmoid(mlp(average) + mlp(maximum))[:, None, None]
        pooled = np.stack([refined.mean(0), refined.max(0)])
        padded = np.pad(pooled, ((0, 0), (side // 2, side // 2), (side // 2, side // 2)))
        for i in range(height):
            for j in range(width):
                z = (padded[:, i : i + side, j : j + side] * weights["spatial.conv.weight"][0]).sum()
                z = (z - weights["spatial.norm.running_mean"]) / np.sqrt(
                    weights["spatial.norm.running_var"] + module.spatial.norm.eps
                )
                z = z * weights["spatial.norm.weight"] + weights["spatial.norm.bias"]
                expected[n, :, i, j] = refined[:, i, j] * sigmoid(z)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("order", "gate"), CASES)
def test_every_order_is_its_formula(order: str, gate: str):
    module = randomise(CBAM(16, reduction=4, order=order, gate=gate)).eval()
    x = maps(2, 16, 8, 6)
    torch.testing.assert_close(module(x), formula(module, x, order, gate), atol=1e-5, rtol=1e-5)


def test_orders_differ():
    x = maps(2, 16, 8, 6)
    outputs = [randomise(CBAM(16, reduction=4, order=order)).eval()(x) for order in ("cs", "sc", "parallel")]
    for one, other in itertools.combinations(outputs, 2):
        assert (one - other).abs().max() > 1e-2


def test_without_bias_the_mlp_is_the_same_with_zero_bias():
    plain, biased = ChannelLogits(8, 2, bias=False), ChannelLogits(8, 2)
    biased.load_state_dict(plain.state_dict(), strict=False)
    x = maps(2, 8, 4, 4)
    torch.testing.assert_close(plain(x), biased(x))


def test_narrow_maps_keep_one_hidden_unit():
    assert ChannelLogits(8, 16).down.out_channels == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_identity_gate_starts_as_the_identity(order: str, training: bool):
    module = CBAM(16, order=order, gate="identity").train(training)
    x = maps(4, 16, 8, 8) * 100
    assert torch.equal(module(x), x)


def test_sigmoid_gate_starts_at_a_half_in_space_as_the_authors_code():
    weights = attention_maps(CBAM(16, order="s"), maps(2, 16, 8, 8))
    assert torch.equal(weights["spatial_gate"], torch.full((2, 1, 8, 8), 0.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20), st.sampled_from(GATES))
def test_gate_stays_in_its_range(logits: list[float], kind: str):
    low, high = {"sigmoid": (0, 1), "residual": (1, 2), "identity": (0, 2)}[kind]
    weight = Gate(kind)(torch.tensor(logits))
    assert weight.min() >= low
    assert weight.max() <= high
    # more logit never means less weight
    order = torch.tensor(logits).argsort()
    assert (weight[order].diff() >= 0).all()


@pytest.mark.parametrize(("order", "gate"), CASES)
def test_gradient_reaches_every_parameter_after_one_step(order: str, gate: str):
    torch.manual_seed(0)
    module = CBAM(16, reduction=4, order=order, gate=gate)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):  # zeroed last layers let the ones below wait for one step
        optimiser.zero_grad()
        (module(maps(4, 16, 8, 8)) * maps(4, 16, 8, 8, seed=2)).sum().backward()
        optimiser.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("order", ORDERS)
def test_gradient_is_that_of_finite_differences(order: str):
    module = randomise(CBAM(4, reduction=2, kernel_size=3, order=order, gate="identity")).double()
    x = maps(2, 4, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


@pytest.mark.parametrize("order", ORDERS)
def test_maps_are_the_weights_that_were_used(order: str):
    module = randomise(CBAM(8, reduction=2, order=order, gate="residual")).eval()
    x = maps(3, 8, 5, 4)
    weights = attention_maps(module, x)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    channel, spatial = {"channel_gate": (3, 8, 1, 1)}, {"spatial_gate": (3, 1, 5, 4)}
    joint = {"channel_gate": (3, 8, 5, 4)}
    assert shapes == {"c": channel, "s": spatial, "parallel": joint}.get(order, channel | spatial)
    product = x
    for weight in weights.values():
        product = product * weight
    torch.testing.assert_close(product, module(x))
    assert all(weight.requires_grad for weight in weights.values())  # a loss may ask for them


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": 0}, "positive"),
        ({"channels": 8, "reduction": 0}, "positive"),
        ({"channels": 8, "order": "ss"}, "choose one of"),
        ({"channels": 8, "gate": "tanh"}, "choose one of"),
        ({"channels": 8, "kernel_size": 4}, "odd and positive, got 4"),
        ({"channels": 8, "kernel_size": -1}, "odd and positive, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, int | str], words: str):
    with pytest.raises(ValueError, match=words) as caught:
        CBAM(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_spatial_convolution_starts_normal_by_its_fan_out():
    torch.manual_seed(0)
    weight = SpatialLogits(31).conv.weight.detach().flatten()
    std = (2 / 31**2) ** 0.5  # one channel comes out, so the fan-out is the kernel's area
    assert weight.std().item() == pytest.approx(std, rel=0.1)
    assert weight.abs().max() > 2.5 * std  # a uniform distribution ends at √3


def test_spatial_logits_start_at_zero():
    assert torch.equal(SpatialLogits()(maps(2, 4, 5, 5)), torch.zeros(2, 1, 5, 5))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
@pytest.mark.parametrize("gradients", [True, False])
def test_compiled_by_inductor_equals_eager(gradients: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()  # what other tests compiled of this code decides which sizes count as varying
    module = CBAM(16, gate="residual").eval()
    torch.nn.init.ones_(module.get_submodule("spatial.norm").weight)  # zero at the start: the gate would be constant
    compiled = torch.compile(module, fullgraph=True)
    with torch.set_grad_enabled(gradients):
        for shape in (
            (2, 16, 8, 8),
            (3, 16, 7, 9),
            (1, 16, 5, 4),
        ):  # the second makes sizes variables, the third is one
            x = torch.randn(shape)
            torch.testing.assert_close(compiled(x), module(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("order", ORDERS)
def test_without_gradients_it_computes_the_same_and_leaves_its_input_alone(order: str, layout: torch.memory_format):
    module = randomise(CBAM(16, reduction=4, order=order)).eval()
    x = maps(2, 16, 8, 6).contiguous(memory_format=layout)
    kept = x.clone()
    with torch.no_grad():
        out = module(x)
    assert torch.equal(x, kept)
    torch.testing.assert_close(out, module(x.requires_grad_()).detach())
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 6)])  # also maps that are smaller than the kernel
def test_rows_of_the_kernel_make_its_convolution(kernel_size: int, size: tuple[int, int]):
    module = randomise(SpatialLogits(kernel_size)).eval()
    assert isinstance(module, SpatialLogits)
    x = maps(3, 8, *size)
    pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
    torch.testing.assert_close(module(x), module.norm(module.conv(pooled)), atol=1e-5, rtol=1e-5)
