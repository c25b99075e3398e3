"""What passes through a video classifier's head in one pass: attention, pooling weights, values, and their gradients.

The temporal model's attention is fused and never forms its weights. They are made here from its queries and keys, and
their gradient from that of the attention's output: with O = A V, ∂v/∂A = ∂v/∂O Vᵀ, so nothing of the model changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.temporal.cells import CellEncoder
from temporal_attn.temporal.encoder import TemporalEncoder
from temporal_attn.temporal.pooling import AttentionPool, SoftmaxPool
from temporal_attn.types import UserError

__all__ = ["AttentionReading", "PoolReading", "gradients_on", "read_attention", "read_pool"]


@dataclass(frozen=True)
class PoolReading:
    """The pool of one clip: z = Σ_n w_hn a_hn for each head h, and how v(N) depends on z.

    The N tokens are T frames, or the P cells of each, side by side.

    Args:
        weights: (H, N), rows sum to 1 over real frames.
        values: (H, N, d), what is weighed.
        gradient: (H, d), ∂v/∂z_h.
        cells: P tokens a frame.
    """

    weights: Tensor
    values: Tensor
    gradient: Tensor
    cells: int = 1

    @property
    def of_weights(self) -> Tensor:
        """∂v/∂w_hn, (H, N): what v gains where a head looks more at a token."""
        return torch.einsum("hd,hnd->hn", self.gradient, self.values)

    def by_frame(self, scores: Tensor) -> Tensor:
        """Scores (T,) of frames: those (N,) of a frame's cells, summed."""
        return scores.view(-1, self.cells).sum(-1)


@dataclass(frozen=True)
class AttentionReading:
    """One layer of self-attention over the N tokens of one clip.

    Args:
        weights: A (H, N, N), rows are queries and sum to 1.
        gradient: ∂v/∂A, (H, N, N).
    """

    weights: Tensor
    gradient: Tensor


def read_pool(game: FrameGame) -> PoolReading:
    """Read the pool in one forward and one backward pass.

    Raises:
        UserError: The model has no `TemporalEncoder` with a pool of `temporal_attn.temporal.pooling`.
    """
    pool, _ = _read(game, layers=False)
    return pool


def read_attention(game: FrameGame) -> tuple[PoolReading, list[AttentionReading]]:
    """Read the pool and every self-attention layer, the first one first, in one forward and one backward pass.

    Raises:
        UserError: As `read_pool`, or a block that is no `SelfAttentionBlock`.
    """
    return _read(game, layers=True)


@contextmanager
def gradients_on() -> Iterator[None]:
    """Gradients flow inside, whatever was switched off around it."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@dataclass
class _Trace:
    """What hooks caught of one module: its inputs and its outputs, in the order of the calls."""

    inputs: list[tuple[Tensor, ...]] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def listen(self, module: nn.Module) -> Any:  # noqa: ANN401 - torch's handle
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            self.inputs.append(inputs)
            self.outputs.append(output if isinstance(output, Tensor) else output[0])

        return module.register_forward_hook(hook)


def _read(game: FrameGame, layers: bool) -> tuple[PoolReading, list[AttentionReading]]:
    encoder, cells = _encoder(game)
    blocks = [_self_attention(block) for block in encoder.blocks] if layers else []
    pool = encoder.pool
    assert isinstance(pool, SoftmaxPool)
    traces: dict[nn.Module, _Trace] = {pool: _Trace()}
    if isinstance(pool, AttentionPool):
        traces[pool.out] = _Trace()
    for block in blocks:
        traces |= {block: _Trace(), block.qkv: _Trace(), block.out: _Trace()}
    with ExitStack() as hooks, gradients_on():
        for module, trace in traces.items():
            hooks.callback(trace.listen(module).remove)
        worth = game.answer(game.tokens.clone().requires_grad_())[0]
        pooled = traces[pool.out].inputs[0][0] if isinstance(pool, AttentionPool) else traces[pool].outputs[0]
        mixed = [traces[block.out].inputs[0][0] for block in blocks]
        of_pooled, *of_mixed = torch.autograd.grad(worth, [pooled, *mixed])
    with torch.no_grad():
        real = game.real.to(pooled.device).repeat_interleave(cells)
        return (
            _pool_reading(pool, traces, of_pooled[0], real, cells),
            [_layer(block, traces, gradient[0]) for block, gradient in zip(blocks, of_mixed, strict=True)],
        )


def _encoder(game: FrameGame) -> tuple[TemporalEncoder, int]:
    """The temporal model's encoder, and how many tokens it takes a frame."""
    temporal = getattr(game.model, "temporal", None)
    encoder, cells = (temporal.encoder, temporal.cells) if isinstance(temporal, CellEncoder) else (temporal, 1)
    if not isinstance(encoder, TemporalEncoder) or not isinstance(encoder.pool, SoftmaxPool):
        raise UserError(
            f"method: reads the pool of a VideoClassifier's temporal model, and {type(game.model).__name__} has none "
            "that is known here; take shapley or another method that only asks the model"
        )
    return encoder, cells


def _self_attention(block: nn.Module) -> SelfAttentionBlock:
    if not isinstance(block, SelfAttentionBlock):
        raise UserError(
            f"method: reads self-attention, and the temporal model has a {type(block).__name__}; take shapley"
        )
    return block


def _pool_reading(
    pool: SoftmaxPool, traces: dict[nn.Module, _Trace], gradient: Tensor, real: Tensor, cells: int
) -> PoolReading:
    tokens = traces[pool].inputs[0][0].detach()
    weights = pool.head_weights(tokens, real[None])[0]
    return PoolReading(weights, pool.values(tokens)[0].float(), gradient.view(len(weights), -1).float(), cells)


def _layer(block: SelfAttentionBlock, traces: dict[nn.Module, _Trace], gradient: Tensor) -> AttentionReading:
    values = _by_head(traces[block.qkv].outputs[0][0].chunk(3, -1)[2], block.heads)
    weights = block.attention_weights(tuple(part.detach() for part in traces[block].inputs[0]))[0]
    return AttentionReading(weights.float(), _by_head(gradient, block.heads) @ values.transpose(-1, -2))


def _by_head(features: Tensor, heads: int) -> Tensor:
    """(N, D) -> (H, N, D / H) float32."""
    return features.detach().reshape(len(features), heads, -1).transpose(0, 1).float()
