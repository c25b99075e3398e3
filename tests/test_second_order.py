"""Second-order attention against eigenvalues, the paper's recurrence, and a loop over the batch in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mechanisms import maps, randomise
from torch import Tensor

from temporal_attn.attention import SOCA
from temporal_attn.attention.second_order import channel_covariance, matrix_square_root


def covariances(batch: int, channels: int, places: int = 64) -> Tensor:
    return channel_covariance(maps(batch, channels, places, 1).double())


def by_eigenvalues(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag_embed(values.clamp(min=0).sqrt()) @ vectors.transpose(1, 2)


def by_the_papers_recurrence(matrix: np.ndarray, iterations: int, eps: float = 1e-6) -> np.ndarray:
    trace = np.trace(matrix) + eps
    eye = np.eye(len(matrix))
    y, z = matrix / trace, eye
    for _ in range(iterations):
        y, z = 0.5 * y @ (3 * eye - z @ y), 0.5 * (3 * eye - z @ y) @ z
    return np.sqrt(trace) * y


def test_covariance_is_numpys():
    x = maps(3, 6, 4, 5).double() + 1000  # a large mean must cost no digits
    expected = np.stack([np.cov(image.reshape(6, -1), bias=True) for image in x.numpy()])
    np.testing.assert_allclose(channel_covariance(x).numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_root_converges_to_that_of_eigenvalues(channels: int):
    matrix = covariances(4, channels)
    expected = by_eigenvalues(matrix)
    error = [
        ((matrix_square_root(matrix, iterations, eps=0) - expected).norm() / expected.norm()).item()
        for iterations in (3, 5, 20)
    ]
    assert error[0] >= error[1] >= error[2]
    assert error[1] < 0.05
    assert error[2] < 1e-6


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_root_is_the_papers_recurrence(iterations: int):
    matrix = covariances(3, 7)
    expected = np.stack([by_the_papers_recurrence(one, iterations) for one in matrix.numpy()])
    np.testing.assert_allclose(matrix_square_root(matrix, iterations).numpy(), expected, atol=1e-12)


def test_root_scales_with_the_root():
    matrix = covariances(2, 5)
    torch.testing.assert_close(matrix_square_root(9 * matrix, eps=0), 3 * matrix_square_root(matrix, eps=0))


def test_root_of_nothing_is_nothing_and_has_a_gradient():
    matrix = torch.zeros(2, 4, 4, requires_grad=True)
    root = matrix_square_root(matrix)
    root.sum().backward()
    assert torch.equal(root, torch.zeros_like(root))
    assert matrix.grad is not None
    assert matrix.grad.isfinite().all()


def test_gradient_of_the_root_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(matrix_square_root, (covariances(2, 4).requires_grad_(),))


@pytest.mark.parametrize("covariance_channels", [12, 5])
def test_equals_a_loop_in_numpy(covariance_channels: int):
    module = randomise(SOCA(12, reduction=3, covariance_channels=covariance_channels)).double()
    weight = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    x = maps(3, 12, 6, 5).double()
    for image, out in zip(x.numpy(), module(x).detach().numpy(), strict=True):
        flat = image.reshape(12, -1)
        if covariance_channels < 12:
            flat = weight["logits.reduce.weight"][:, :, 0, 0] @ flat
        places = flat.shape[1]
        centre = np.eye(places) / places - np.ones((places, places)) / places**2
        z = by_the_papers_recurrence(flat @ centre @ flat.T, 5).mean(0)
        hidden = np.maximum(weight["logits.mlp.down.weight"] @ z + weight["logits.mlp.down.bias"], 0)
        logits = weight["logits.mlp.up.weight"] @ hidden + weight["logits.mlp.up.bias"]
        np.testing.assert_allclose(out, image / (1 + np.exp(-logits))[:, None, None], atol=1e-10)


def test_wide_maps_are_reduced_and_narrow_ones_are_not():
    assert SOCA(256).logits.reduce.out_channels == 128
    assert not list(SOCA(128).logits.reduce.parameters())


def test_root_is_computed_in_full_precision_under_autocast():
    module = SOCA(16, reduction=4)
    seen: list[Tensor] = []
    module.logits.mlp.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    x = maps(2, 16, 6, 6) * 300  # squared and summed, beyond what float16 can hold
    module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x)
    assert torch.equal(*seen)


@pytest.mark.parametrize("argument", ["reduction", "covariance_channels", "iterations"])
def test_bad_arguments_are_named(argument: str):
    with pytest.raises(ValueError, match=f"{argument}.* must be positive"):
        SOCA(8, **{argument: 0})
