"""Frame by frame, the same answers as of the whole clip: a key–value cache for each block, a running sum for the pool.

After every frame the logits are those of the clip of all frames so far. What is kept does not grow, so that a frame
costs the same after an hour as after a minute: keys and values of the last ``window`` frames, and for the pool the
running softmax of Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
https://arxiv.org/abs/1805.02867. Sums run in float64, since an hour has 10⁵ frames.

That needs a temporal model that looks back and never ahead: no blocks at all, or a transformer, GRU or TCN with
``direction: causal``, and for a transformer a ``window``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.temporal.cells import CellEncoder
from temporal_attn.temporal.convolution import ConvolutionBlock
from temporal_attn.temporal.encoder import TemporalEncoder
from temporal_attn.temporal.pooling import MaxPool, PowerMeanPool, SoftmaxPool
from temporal_attn.temporal.recurrent import RecurrentBlock
from temporal_attn.types import FrameFeatures

__all__ = ["StreamableModel", "StreamingClassifier", "StreamingOutput"]


class StreamableModel(Protocol):
    """What is asked of a video classifier; `VideoClassifier` has it."""

    temporal: nn.Module
    project: nn.Module
    head: nn.Module
    training: bool

    @property
    def mixes_time(self) -> bool:
        """Whether a frame's token depends on other frames."""
        ...

    def encode_frames(self, video: Tensor) -> FrameFeatures:
        """Tokens (B, T, C') of a video (B, T, 3, H, W)."""
        ...


class StreamingOutput(NamedTuple):
    """What the model says after a frame.

    Args:
        logits: (S, K), those of all frames so far.
        weight: (S,) weight of this frame among all frames so far; 0 where a stream had none.
    """

    logits: Tensor
    weight: Tensor


class StreamingClassifier:
    """Classifies S streams at once, a frame of each at a time.

    Args:
        model: In evaluation mode. Its weights are used as they are at each step.

    Raises:
        ValueError: The model is in training mode, mixes time in its backbone, or has a temporal model that looks ahead
            or needs all frames; the message says what to choose instead.

    Example:
        >>> stream = StreamingClassifier(model)  # doctest: +SKIP
        >>> for frame, second in camera:
        ...     logits = stream.step(frame[None], second).logits
    """

    def __init__(self, model: StreamableModel) -> None:
        if model.training:
            raise ValueError("the model is in training mode, and dropout would blur the stream; call model.eval()")
        if model.mixes_time:
            raise ValueError("the model's motion cue mixes frames in the backbone; a stream needs motion: null")
        temporal = model.temporal
        self._model = model
        self._cells = temporal.cells if isinstance(temporal, CellEncoder) else 1
        encoder = temporal.encoder if isinstance(temporal, CellEncoder) else temporal
        if not isinstance(encoder, TemporalEncoder):
            raise ValueError(f"a {type(encoder).__name__} has no stream; take one of temporal_attn.temporal.names()")
        self._encoder = encoder
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next one is the first."""
        self._blocks = [_find(BLOCKS, block, "block")(block) for block in self._encoder.blocks]
        self._pool = _find(POOLS, self._encoder.pool, "pool")(self._encoder.pool)
        self._start: Tensor | None = None
        self._latest: Tensor | None = None

    def state_size(self) -> int:
        """Numbers that are kept between frames; constant once every window is full."""
        return sum(part.numel() for stream in (*self._blocks, self._pool) for part in stream.state)

    @torch.no_grad()
    def step(self, frames: Tensor, pts: Tensor | float, mask: Tensor | None = None) -> StreamingOutput:
        """Take the next frame of every stream.

        Args:
            frames: (S, 3, H, W) uint8 or normalised float.
            pts: (S,) seconds, or one number for all; later than those of the stream's last frame.
            mask: (S,) bool, which streams have a frame; None means all. The others stay as they are.

        Raises:
            ValueError: Time does not go forwards, or the number of streams changed.
        """
        return self.step_tokens(self._model.encode_frames(frames[:, None]).tokens[:, 0], pts, mask)

    @torch.no_grad()
    def step_tokens(self, tokens: Tensor, pts: Tensor | float, mask: Tensor | None = None) -> StreamingOutput:
        """As `step`, from tokens (S, C') of ``encode_frames``."""
        streams, device = len(tokens), tokens.device
        mask = torch.ones(streams, dtype=torch.bool, device=device) if mask is None else mask
        seconds = self._advance(pts, mask)[:, None].expand(-1, self._cells)
        x = self._model.project(torch.where(mask[:, None], tokens, 0)).unflatten(-1, (self._cells, -1))
        for block in self._blocks:
            x = block.step(x, seconds, mask)
        feature, weight = self._pool.step(self._encoder.norm(x), mask)
        logits = self._model.head(feature)
        return StreamingOutput(logits, weight.to(logits.dtype))

    def _advance(self, pts: Tensor | float, mask: Tensor) -> Tensor:
        """Seconds (S,) since each stream's first frame, 0 where it has none now."""
        wide = torch.float32 if mask.device.type == "mps" else torch.float64
        now = torch.as_tensor(pts, dtype=wide, device=mask.device).expand(len(mask))
        if self._latest is None or self._start is None:
            self._latest = torch.full_like(now, -torch.inf)
            self._start = torch.zeros_like(now)
        if len(self._latest) != len(mask):
            raise ValueError(f"the stream began with {len(self._latest)} streams and now has {len(mask)}; call reset()")
        if not bool((mask <= (now > self._latest)).all()):
            raise ValueError(f"pts={now.tolist()} must be later than those of the last frames: {self._latest.tolist()}")
        first = mask & self._latest.isinf()
        self._start = torch.where(first, now, self._start)
        self._latest = torch.where(mask, now, self._latest)
        return torch.where(mask, now - self._start, 0)


class _AttentionStream:
    """Keys and values of the last frames of a causal `SelfAttentionBlock`."""

    def __init__(self, block: SelfAttentionBlock) -> None:
        _require_causal(block.direction)
        if block.window is None:
            raise ValueError("without temporal_options.window a stream would keep every frame; give a number of frames")
        if block.position == "learned":
            raise ValueError("position 'learned' counts frames up to the end of its table; take rotary or relative")
        self.block, self.window = block, block.window
        self.state: tuple[Tensor, ...] = ()

    def step(self, x: Tensor, pts: Tensor, mask: Tensor) -> Tensor:
        block, cells = self.block, x.shape[1]
        every = mask[:, None].expand(-1, cells)
        q, k, v = block.project(x, every, pts)
        if not self.state:
            self.state = (k[:, :, :0], v[:, :, :0], pts[:, :0], every[:, :0])
        keys, values, seconds, there = (
            _appended(old, new, mask, self.window * cells, axis)
            for old, new, axis in zip(self.state, (k, v, pts, every), (2, 2, 1, 1), strict=True)
        )
        self.state = (keys, values, seconds, there)
        # A stream without a frame yet has to look somewhere; what comes of it is dropped.
        seen = (there | ~there.any(1, keepdim=True))[:, None, None]
        return block.finish(
            x, scaled_dot_product_attention(q, keys, values, attn_mask=block.biased(seen, pts, seconds, q.dtype))
        )


class _RecurrentStream:
    """The state of a causal `RecurrentBlock`."""

    def __init__(self, block: RecurrentBlock) -> None:
        _require_causal(block.direction)
        self.block = block
        self.state: tuple[Tensor, ...] = ()

    def step(self, x: Tensor, pts: Tensor, mask: Tensor) -> Tensor:
        old = self.state[0] if self.state else x.new_zeros(1, len(x), x.shape[-1])
        read, new = self.block.forwards(self.block.norm(x), old)
        self.state = (torch.where(mask[None, :, None], new, old),)
        return self.block.finish(x, read)


class _ConvolutionStream:
    """The inputs of a causal `ConvolutionBlock` that its kernel still reaches."""

    def __init__(self, block: ConvolutionBlock) -> None:
        _require_causal(block.direction)
        self.block = block
        self.state: tuple[Tensor, ...] = ()

    def step(self, x: Tensor, pts: Tensor, mask: Tensor) -> Tensor:
        block, new = self.block, self.block.norm(x)
        old = self.state[0] if self.state else new.new_zeros(len(x), block.reach + 1, x.shape[-1])
        inputs = torch.where(mask[:, None, None], torch.cat((old[:, 1:], new), 1), old)
        self.state = (inputs,)
        return block.finish(x, block.conv(inputs.transpose(1, 2)).transpose(1, 2))


class _SoftmaxStream:
    """A `SoftmaxPool` so far, in each head: the largest score M, Σ e^(score − M) and Σ e^(score − M) · value."""

    def __init__(self, pool: SoftmaxPool) -> None:
        self.pool = pool
        self.state: tuple[Tensor, ...] = ()

    def step(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        values = self.pool.values(x)
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        scores = self.pool.scores(x).to(wide).masked_fill(~mask[:, None, None], -torch.inf)
        if not self.state:
            norm = torch.zeros_like(scores[..., 0])
            self.state = (norm - torch.inf, norm, norm[..., None] * values[..., 0, :])
        largest, norm, total = self.state
        top = torch.maximum(largest, scores.amax(-1))
        anchor = torch.where(top.isinf(), 0, top)  # no frame so far: −∞ − −∞ would be NaN
        faded, shares = (largest - anchor).exp(), (scores - anchor[..., None]).exp()
        norm = norm * faded + shares.sum(-1)
        total = total * faded[..., None] + (shares[..., None] * values.to(wide)).sum(-2)
        self.state = (top, norm, total)
        whole = torch.where(norm > 0, norm, 1)
        pooled = (total / whole[..., None]).to(values.dtype)
        return self.pool.combine(pooled), (shares.sum(-1) / whole).mean(-1)


class _MaxStream:
    """The largest value of every channel so far, and how many tokens share it."""

    def __init__(self, pool: MaxPool) -> None:
        self.state: tuple[Tensor, ...] = ()

    def step(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        new = x.masked_fill(~mask[:, None, None], -torch.inf)
        if not self.state:
            self.state = (torch.full_like(x[:, 0], -torch.inf), torch.zeros_like(x[:, 0], dtype=torch.long))
        before, ties = self.state
        largest = torch.maximum(before, new.amax(1))
        won = ((new == largest[:, None]) & mask[:, None, None]).sum(1)
        ties = torch.where(largest > before, 0, ties) + won
        self.state = (largest, ties)
        return torch.where(ties > 0, largest, 0), (won / ties.clamp(min=1)).mean(-1)


class _PowerMeanStream(_SoftmaxStream):
    """The mean so far, and what follows it."""

    def __init__(self, pool: PowerMeanPool) -> None:
        super().__init__(pool.mean)
        self.finish = pool.finish

    def step(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mean, weight = super().step(x, mask)
        return self.finish(mean), weight


BLOCKS: dict[type[nn.Module], Callable[[Any], Any]] = {
    SelfAttentionBlock: _AttentionStream,
    RecurrentBlock: _RecurrentStream,
    ConvolutionBlock: _ConvolutionStream,
}
"""How each kind of block is streamed."""

POOLS: dict[type[nn.Module], Callable[[Any], Any]] = {
    SoftmaxPool: _SoftmaxStream,
    MaxPool: _MaxStream,
    PowerMeanPool: _PowerMeanStream,
}
"""How each kind of pool is streamed."""


def _require_causal(direction: str) -> None:
    if direction != "causal":
        raise ValueError(f"direction {direction!r} looks ahead; a stream needs temporal_options.direction: causal")


def _find(kinds: dict[type[nn.Module], Callable[[Any], Any]], module: nn.Module, what: str) -> Callable[[Any], Any]:
    for kind, stream in kinds.items():
        if isinstance(module, kind):
            return stream
    raise ValueError(
        f"the {what} {type(module).__name__} needs all frames of a clip and has no stream; take another temporal model"
    )


def _appended(old: Tensor, new: Tensor, mask: Tensor, longest: int, axis: int) -> Tensor:
    """The last entries along an axis after new ones; streams without a frame keep theirs.

    A stream whose turn it is not gets a gap at the front when the others grow.
    """
    longer = torch.cat((old, new), axis)
    gap = torch.cat((torch.zeros_like(new), old), axis)
    kept = torch.where(mask.view(-1, *[1] * (old.ndim - 1)), longer, gap)
    return kept.narrow(axis, max(0, kept.shape[axis] - longest), min(longest, kept.shape[axis]))
