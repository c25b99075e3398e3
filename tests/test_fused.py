"""Attention that forms no large weights, against the same in two plain products."""

from __future__ import annotations

import pytest
import torch
from allocations import largest_tensor
from torch import Tensor

from temporal_attn.attention.fused import QUERY_BLOCK, attend, from_tokens, to_tokens, weights_of

# name → queries, keys, width of queries and keys, width of values: what each way of computing is chosen by
SHAPES = {
    "small weights": (5, 7, 3, 11),
    "fused kernel": (50, 60, 4, 4),
    "blocks, the last one short": (2 * QUERY_BLOCK + 9, 40, 3, 5),
    "one block": (QUERY_BLOCK, 30, 6, 2),
}

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def tokens(shape: tuple[int, int, int, int], channels_first: bool = False) -> list[Tensor]:
    queries, keys, width, values = shape
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.randn(2, 3, length, size, generator=generator, dtype=torch.float64)
        for length, size in ((queries, width), (keys, width), (keys, values))
    ]
    return [(part.mT.contiguous().mT if channels_first else part).requires_grad_() for part in made]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


@shapes
@pytest.mark.parametrize("channels_first", [False, True])
def test_equals_the_plain_form_with_gradients(shape: tuple[int, int, int, int], channels_first: bool):
    inputs = tokens(shape, channels_first)
    ours, expected = attend(*inputs), plain(*inputs)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    for one, other in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


@shapes
def test_half_precision_keeps_its_dtype_and_scores_in_float32(shape: tuple[int, int, int, int]):
    half = [part.detach().to(torch.bfloat16).requires_grad_() for part in tokens(shape)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = attend(*half)
        ours.sum().backward()  # inside: the backward pass must not be lowered either
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), plain(*(part.float() for part in half)), atol=2e-2, rtol=2e-2)
    assert all(part.grad is not None and part.grad.dtype == torch.bfloat16 for part in half)


@shapes
def test_weights_are_those_that_mix_in_half_precision(shape: tuple[int, int, int, int]):
    q, k, v = (4 * part.detach().to(torch.bfloat16) for part in tokens(shape))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights, mixed = weights_of(q, k), attend(q, k, v)
    torch.testing.assert_close(weights, (q.double() @ k.double().mT).softmax(-1).float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed.float(), weights @ v.float(), atol=5e-2, rtol=1e-2)


@pytest.mark.parametrize(("name", "exist"), [("small weights", True), ("one block", False), ("fused kernel", False)])
def test_second_derivatives_exist_only_where_the_weights_stand_in_memory(name: str, exist: bool):
    inputs = tokens(SHAPES[name])
    first = torch.autograd.grad(attend(*inputs).square().sum(), inputs[0], create_graph=True)[0]
    if exist:
        ours = torch.autograd.grad(first.square().sum(), inputs)
        slope = torch.autograd.grad(plain(*inputs).square().sum(), inputs[0], create_graph=True)[0]
        for one, other in zip(ours, torch.autograd.grad(slope.square().sum(), inputs), strict=True):
            torch.testing.assert_close(one, other)
    else:
        with pytest.raises(RuntimeError, match=r"once_differentiable|is not implemented"):
            first.square().sum().backward()


@shapes
def test_no_way_overflows(shape: tuple[int, int, int, int]):
    q, k, v = (part.detach().float() for part in tokens(shape))
    assert attend(100 * q, 100 * k, v).isfinite().all()


@pytest.mark.parametrize("shape", [SHAPES["fused kernel"], SHAPES["blocks, the last one short"]], ids=str)
def test_compiles_and_exports(shape: tuple[int, int, int, int]):
    class Module(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attend(q, k, v)

    inputs = tokens(shape)
    expected = plain(*inputs)
    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(
        torch.autograd.grad(compiled.sum(), inputs[0]), torch.autograd.grad(expected.sum(), inputs[0])
    )
    exported = torch.export.export(Module(), tuple(inputs)).module()
    torch.testing.assert_close(exported(*inputs), expected)


@shapes
def test_other_devices_give_the_same_shape(shape: tuple[int, int, int, int]):
    inputs = [part.detach().to("meta") for part in tokens(shape)]
    assert attend(*inputs).shape == plain(*inputs).shape


@pytest.mark.parametrize(("width", "values"), [(8, 8), (4, 8), (9, 8)])
def test_memory_grows_with_tokens(width: int, values: int):
    def peak(length: int) -> int:
        return largest_tensor(attend, *tokens((length, length, width, values)))

    assert peak(1024) <= 2.1 * peak(512)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"])
def test_maps_become_tokens_and_maps_again(layout: torch.memory_format):
    x = torch.randn(2, 6, 3, 5).to(memory_format=layout)
    tokens = to_tokens(x)
    assert tokens.shape == (2, 15, 6)
    assert torch.equal(tokens[1, 7], x[1, :, 1, 2])
    for order in (tokens.contiguous(), tokens.mT.contiguous().mT):
        back = from_tokens(order, x)
        assert torch.equal(back, x)
        assert back.is_contiguous(memory_format=layout)
