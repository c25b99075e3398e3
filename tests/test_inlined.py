"""What is written out for the compiler gives what the library gives, and is written out only where it pays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from mechanisms import maps, randomise
from torch import Tensor, nn

from temporal_attn.attention import CBAM
from temporal_attn.attention.inlined import correlate, linear, written_down


def calls(module: nn.Module, x: Tensor, within: AbstractContextManager[object]) -> tuple[Tensor, str]:
    """What the compiled module answers, and the code that the compiler was given."""
    code: list[str] = []

    def capture(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        code.append(graph.code)
        return graph.forward

    torch.compiler.reset()
    with within:
        out = torch.compile(module, backend=capture, fullgraph=True, dynamic=False)(x)
    assert len(code) == 1
    return out, code[0]


def written_out(code: str) -> bool:
    """Whether nothing of the library is called; either all is written out or nothing is."""
    called = [name in code for name in ("linear", "conv2d")]
    assert called[0] == called[1], code
    return not called[0]


@pytest.mark.parametrize("side", [1, 3, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 6)])  # also maps that are smaller than the kernel
def test_correlation_is_the_convolution(side: int, size: tuple[int, int]):
    x, kernel = maps(3, 2, *size), maps(1, 2, side, side, seed=1)
    expected = nn.functional.conv2d(x, kernel, padding=side // 2).squeeze(1)
    torch.testing.assert_close(correlate(list(x.unbind(1)), kernel[0]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_written_out_is_the_librarys(rows: int, bias: bool):
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, 5, bias=bias)

        def forward(self, x: Tensor) -> Tensor:
            return linear(x, self.layer.weight, self.layer.bias)

    module, x = Product(), torch.randn(3, rows, 12)
    out, code = calls(module, x, torch.no_grad())
    assert "linear" not in code
    torch.testing.assert_close(out, module.layer(x))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_what_is_written_down_is_the_same(width: int):
    class Down(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return written_down(x.relu())

    x = torch.randn(3, 1, width)
    out, code = calls(Down(), x, torch.no_grad())
    assert "cat" in code
    assert out.equal(x.relu())
    assert "cat" not in calls(Down(), x, torch.enable_grad())[1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("order", ["cs", "sc", "parallel"])
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (40, 40)])  # 40 × 40: pooled in two steps
def test_compiled_without_gradients_everything_is_written_out(
    order: str, size: tuple[int, int], layout: torch.memory_format
):
    module = randomise(CBAM(16, reduction=4, order=order)).eval()
    x = maps(2, 16, *size).contiguous(memory_format=layout)
    out, code = calls(module, x, torch.no_grad())
    assert written_out(code)
    assert "unbind" not in code  # modules side by side would be run in turns
    torch.testing.assert_close(out, module(x), atol=1e-5, rtol=1e-5)
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("within", [nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16)])
def test_with_gradients_or_autocast_the_library_is_called(within: AbstractContextManager[object]):
    module, x = CBAM(16).eval(), maps(2, 16, 8, 6)
    with torch.set_grad_enabled(isinstance(within, nullcontext)):
        assert not written_out(calls(module, x, within)[1])


def test_exported_programs_call_the_library():
    with torch.no_grad():
        program = torch.export.export(CBAM(16).eval(), (maps(2, 16, 8, 6),))
    assert not written_out(program.graph_module.code)
