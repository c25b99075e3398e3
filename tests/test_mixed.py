"""BAM and scSE against their equations in loops."""

from __future__ import annotations

import numpy as np
import pytest
from mechanisms import maps, randomise

from temporal_attn.attention import BAM, SCSE, attention_maps


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def dilated(image: np.ndarray, kernel: np.ndarray, dilation: int) -> np.ndarray:
    """Convolution by hand: (C, H, W) with (C', C, 3, 3), zeros outside."""
    _, height, width = image.shape
    out = np.zeros((len(kernel), height, width))
    for i in range(height):
        for j in range(width):
            for a in range(3):
                for b in range(3):
                    y, x = i + (a - 1) * dilation, j + (b - 1) * dilation
                    if 0 <= y < height and 0 <= x < width:
                        out[:, i, j] += kernel[:, :, a, b] @ image[:, y, x]
    return out


def test_bam_equals_a_literal_loop():
    module = randomise(BAM(8, reduction=2, dilation=2)).double().eval()
    weight = {name.removeprefix("logits."): value.detach().numpy() for name, value in module.state_dict().items()}

    def normalised(z: np.ndarray, name: str) -> np.ndarray:
        mean, var = weight[f"{name}.running_mean"], weight[f"{name}.running_var"]
        scale = weight[f"{name}.weight"] / np.sqrt(var + 1e-5)
        shape = (-1,) + (1,) * (z.ndim - 1)
        return (z - mean.reshape(shape)) * scale.reshape(shape) + weight[f"{name}.bias"].reshape(shape)

    def mixed(z: np.ndarray, name: str) -> np.ndarray:
        return np.tensordot(weight[f"{name}.weight"][:, :, 0, 0], z, axes=1)

    x = maps(2, 8, 6, 5).double()
    for image, out in zip(x.numpy(), module(x).detach().numpy(), strict=True):
        hidden = np.maximum(mixed(image.mean((1, 2)), "channel.1") + weight["channel.1.bias"], 0)
        by_channel = normalised(mixed(hidden, "channel.3"), "channel.4")
        z = np.maximum(normalised(mixed(image, "spatial.0"), "spatial.1"), 0)
        for conv, norm in (("spatial.3", "spatial.4"), ("spatial.6", "spatial.7")):
            z = np.maximum(normalised(dilated(z, weight[f"{conv}.weight"], 2), norm), 0)
        by_place = normalised(mixed(z, "spatial.9"), "spatial.10")
        expected = image + sigmoid(by_channel[:, None, None] + by_place) * image
        np.testing.assert_allclose(out, expected, atol=1e-12)


def test_bam_shows_one_weight_for_each_element():
    (weights,) = attention_maps(randomise(BAM(8, reduction=2)), maps(2, 8, 6, 5)).values()
    assert weights.shape == (2, 8, 6, 5)
    assert weights.min() >= 1  # the residual's
    assert weights.max() <= 2


@pytest.mark.parametrize("gate", ["sigmoid", "residual", "identity"])
def test_scse_equals_its_equation(gate: str):
    module = randomise(SCSE(8, gate=gate)).double()
    weight = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    x = maps(2, 8, 4, 5).double()
    for image, out in zip(x.numpy(), module(x).detach().numpy(), strict=True):
        down = weight["channel.mlp.down.weight"] @ image.mean((1, 2)) + weight["channel.mlp.down.bias"]
        z_channel = weight["channel.mlp.up.weight"] @ np.maximum(down, 0) + weight["channel.mlp.up.bias"]
        z_place = np.tensordot(weight["spatial.weight"].ravel(), image, axes=1) + weight["spatial.bias"]
        expected = sigmoid(z_channel)[:, None, None] * image + sigmoid(z_place) * image
        np.testing.assert_allclose(out, expected + image if gate == "residual" else expected, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"), [({"reduction": 0}, "reduction must be positive"), ({"dilation": 0}, "dilation must be")]
)
def test_bad_arguments_are_named(arguments: dict[str, int], words: str):
    with pytest.raises(ValueError, match=words):
        BAM(8, **arguments)
