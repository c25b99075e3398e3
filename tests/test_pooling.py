"""Both poolings over space, and over channels, against numpy, in every form that they take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mechanisms import maps
from torch import Tensor

from temporal_attn.attention.pooling import maximum, mean, mean_and_max, mean_and_max_of_channels

LAYOUTS = [torch.contiguous_format, torch.channels_last]
# 11 · 11 and 3 · 13 do not divide into 8 runs; 40 · 40 leaves so many that there is a second step.
SIZES = [(1, 1), (1, 5), (7, 5), (8, 8), (11, 11), (14, 14), (3, 13), (40, 40)]

BOTH = [mean_and_max, mean_and_max_of_channels]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_is_what_numpy_says(size: tuple[int, int], layout: torch.memory_format, compiled: bool, gradient: bool):
    x = (maps(3, 20, *size) - 4).contiguous(memory_format=layout)  # all below zero: a maximum that starts at 0 shows
    call = torch.compile(mean_and_max, backend="eager", fullgraph=True, dynamic=False) if compiled else mean_and_max
    flat = x.numpy().reshape(3, 20, -1)
    out = call(x.requires_grad_(gradient)).detach()
    np.testing.assert_allclose(out, np.stack((flat.mean(2), flat.max(2)), 1), rtol=1e-5, atol=1e-6)
    torch.compiler.reset()


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize(("one", "which"), [(mean, 0), (maximum, 1)])
def test_one_alone_is_that_of_both(
    one: Callable[[Tensor], Tensor],
    which: int,
    size: tuple[int, int],
    layout: torch.memory_format,
    compiled: bool,
    gradient: bool,
):
    x = (maps(3, 20, *size) - 4).contiguous(memory_format=layout).requires_grad_(gradient)
    call = torch.compile(one, backend="eager", fullgraph=True, dynamic=False) if compiled else one
    torch.testing.assert_close(call(x), mean_and_max(x)[:, which])
    torch.compiler.reset()


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_are_what_numpy_says(layout: torch.memory_format, gradient: bool):
    x = (maps(3, 20, 7, 5) - 4).contiguous(memory_format=layout)
    out = mean_and_max_of_channels(x.clone().requires_grad_(gradient)).detach()
    np.testing.assert_allclose(out, np.stack((x.numpy().mean(1), x.numpy().max(1)), 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("pool", BOTH)
def test_gradient_is_that_of_finite_differences(
    pool: Callable[[Tensor], Tensor], layout: torch.memory_format, compiled: bool
):
    x = maps(2, 3, 4, 5).double().contiguous(memory_format=layout).requires_grad_()
    call = torch.compile(pool, backend="eager", fullgraph=True, dynamic=False) if compiled else pool
    assert torch.autograd.gradcheck(call, (x,))
    if not compiled:
        assert torch.autograd.gradgradcheck(call, (x,))
    torch.compiler.reset()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("pool", "dims"), [(mean_and_max, (2, 3)), (mean_and_max_of_channels, 1)])
def test_ties_share_one_gradient(
    pool: Callable[[Tensor], Tensor], dims: tuple[int, ...] | int, layout: torch.memory_format
):
    x = torch.zeros(2, 3, 4, 4).contiguous(memory_format=layout).requires_grad_()
    pool(x)[:, 1].sum().backward()
    assert x.grad is not None
    total = x.grad.sum(dims)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert x.grad.unique().numel() == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", [mean, maximum, *BOTH])
def test_the_gradient_lies_in_memory_as_the_map_does(pool: Callable[[Tensor], Tensor], layout: torch.memory_format):
    x = maps(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    grad = torch.autograd.grad(pool(x * 2).square().sum(), x)[0]
    assert grad.stride() == x.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept_and_sums_are_wide(dtype: torch.dtype, layout: torch.memory_format):
    x = (maps(2, 8, 32, 32).to(dtype) + 16).contiguous(memory_format=layout)  # 1024 numbers of 16: too many for bf16
    out = mean_and_max(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out[:, 0].double(), x.double().mean((2, 3)), rtol=5e-3, atol=0)


@pytest.mark.parametrize("pool", [mean, maximum, *BOTH])
def test_many_maps_at_once_under_vmap(pool: Callable[[Tensor], Tensor]):
    x = maps(6, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    together = torch.func.vmap(pool)(x.unflatten(0, (3, 2)))
    torch.testing.assert_close(together.flatten(0, 1), pool(x))


@pytest.mark.parametrize("pool", [mean, maximum, *BOTH])
def test_the_gradient_of_each_map_alone_under_vmap(pool: Callable[[Tensor], Tensor]):
    x = maps(6, 8, 5, 7)
    alone = torch.func.vmap(torch.func.grad(lambda one: pool(one[None]).square().sum()))(x)
    torch.testing.assert_close(alone, torch.autograd.grad(pool(x.requires_grad_()).square().sum(), x)[0])
