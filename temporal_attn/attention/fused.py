"""Attention whose memory grows with the number of tokens and not with its square, and the way from maps to tokens.

`attend` is softmax(q kᵀ) v in one fused kernel where there is one, and over blocks of queries where there is none;
`weights_of` forms what it multiplies the values by, for who wants to see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

__all__ = ["QUERY_BLOCK", "attend", "from_tokens", "scores_of", "side_by_side", "to_tokens", "weights_of"]

QUERY_BLOCK = 128
"""Queries whose weights stand in memory at a time, where no fused kernel does the work."""

KERNEL_WIDTH = 8
"""Widths that the kernels for accelerators take are multiples of this."""


def to_tokens(maps: Tensor) -> Tensor:
    """Tokens (B, H·W, C) of maps (B, C, H, W): a view."""
    return maps.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """Maps (B, C', H, W) of tokens (B, H·W, C'), with the places and the memory layout of the maps ``like``."""
    maps = tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *like.shape[2:])
    return maps.contiguous() if like.is_contiguous() else maps.contiguous(memory_format=torch.channels_last)


def side_by_side(tokens: Tensor) -> Tensor:
    """The same tokens (B, N, C), with the C numbers of each beside each other, as the kernel for CPUs takes them."""
    if tokens.device.type == "cpu" and torch.compiler.is_compiling():
        # With room between the tokens: torch 2.14's compiler sorts dense tensors by stride, and fails once N varies.
        return pad(tokens, (0, KERNEL_WIDTH))[..., : tokens.shape[-1]]
    return tokens.contiguous()


def scores_of(q: Tensor, k: Tensor) -> Tensor:
    """Scores q kᵀ in float32 at least, under autocast too, because `attend` keeps them so.

    Args:
        q: Queries (…, N, D).
        k: Keys (…, M, D).

    Returns:
        (…, N, M).
    """
    full = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        return q.to(full) @ k.to(full).mT


def weights_of(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q kᵀ) (…, N, M) in float32 at least: the weights that `attend` uses and never shows."""
    return scores_of(q, k).softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Mix values by softmax(q kᵀ), without a scale: fold it into the queries.

    Accelerators have fused kernels for all of it. The one for CPUs takes queries and values of one width whose numbers
    lie side by side; elsewhere blocks of queries cost less than padding or copying wide values would. And where the
    weights are no larger than what comes out, they may as well stand in memory: the backward pass then need not make
    them again. Only there second derivatives exist: neither the fused kernels nor the blocks have them.

    Args:
        q: Queries (B, heads, N, D).
        k: Keys (B, heads, M, D).
        v: Values (B, heads, M, E); E need not be D.

    Returns:
        (B, heads, N, E) in the values' dtype.
    """
    q, k = q.to(v.dtype), k.to(v.dtype)
    if v.device.type != "cpu":
        return scaled_dot_product_attention(_aligned(q), _aligned(k), _aligned(v), scale=1.0)[..., : v.shape[-1]]
    small = v.shape[-2] <= v.shape[-1]
    if not small and q.shape[-1] == v.shape[-1] and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1:
        return scaled_dot_product_attention(q, k, v, scale=1.0)
    full = torch.promote_types(v.dtype, torch.float32)  # fused kernels keep scores in float32 too
    flat = [part.flatten(0, 1).to(full) for part in (q, k, v)]
    with torch.autocast(v.device.type, enabled=False):
        out: Tensor = _mix(*flat) if small else _Blocks.apply(*flat)
    return out.to(v.dtype).view(*q.shape[:3], v.shape[-1])


def _aligned(x: Tensor) -> Tensor:
    missing = -x.shape[-1] % KERNEL_WIDTH
    return pad(x, (0, missing)) if missing else x.contiguous()


class _Blocks(torch.autograd.Function):
    """softmax(q kᵀ) v for (B, N, D), (B, M, D), (B, M, E): the backward pass makes each block's weights anew."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = _empty(q, v)
        for rows, mixed in _blocks(q, out):
            mixed.baddbmm_(weights_of(rows, k), v, beta=0)
        return out

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.BackwardCFunction, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out = cast(tuple[Tensor, ...], ctx.saved_tensors)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        with torch.autocast(q.device.type, enabled=False):
            for rows, grad_rows, mixed, upstream in _blocks(q, grad_q, out, grad):
                weights = weights_of(rows, k)
                grad_v.baddbmm_(weights.mT, upstream)
                # softmax: dS = A ⊙ (dA − Σ A ⊙ dA), and that sum is ⟨dO, O⟩
                offset = (upstream * mixed).sum(-1, keepdim=True)
                slope = torch.bmm(upstream, v.mT).sub_(offset).mul_(weights)
                grad_rows.baddbmm_(slope, k, beta=0)
                grad_k.baddbmm_(slope.mT, rows)
        return grad_q, grad_k, grad_v


def _mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if v.stride(-1) == 1:
        return torch.bmm(weights_of(q, k), v)
    return torch.bmm(v.mT, weights_of(q, k).mT).mT


def _empty(q: Tensor, v: Tensor) -> Tensor:
    shape = (q.shape[0], q.shape[1], v.shape[2])
    # The values' order of dimensions, so that tokens become maps again without a copy.
    return v.new_empty(shape) if v.stride(-1) == 1 else v.new_empty(shape[0], shape[2], shape[1]).mT


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, tensors[0].shape[1], QUERY_BLOCK):
        yield tuple(part[:, start : start + QUERY_BLOCK] for part in tensors)
