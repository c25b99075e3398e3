"""Backbones that mix time: found by a test, and asked the slow and correct way.

Cached tokens answer every coalition only where a frame's token depends on that frame alone. 3-D convolutions, temporal
shifts and attention over space and time break that: a removed frame would live on in its neighbours' tokens. There
every coalition costs a pass of the whole model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameGame, FrameHead
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.types import FrameFeatures, ModelOutput

__all__ = ["ClipModel", "EncodedClip", "encode_clip", "mixes_time"]

log = logging.getLogger(__name__)


class ClipModel(FrameHead, Protocol):
    """A video classifier in two parts: frames to tokens, tokens to classes."""

    def encode_frames(self, video: Tensor, *, maps: bool = False) -> FrameFeatures:
        """Tokens (B, T, C') of a video (B, T, 3, H, W)."""
        ...


@torch.inference_mode()
def mixes_time(model: ClipModel, video: Tensor, tokens: Tensor | None = None) -> bool:
    """Whether the token of a frame depends on other frames: what the model says of itself, or what a test finds.

    The test takes one backbone pass, two without ``tokens``. The middle frame is turned upside down and into its
    negative; no other frame's token may change beyond rounding.

    Args:
        model: In evaluation mode; one that has a bool ``mixes_time`` is believed.
        video: (1, T, 3, H, W), uint8 or normalised float.
        tokens: (1, T, C') of the video where they are known.
    """
    declared = getattr(model, "mixes_time", None)
    if isinstance(declared, bool):
        return declared
    if video.shape[1] < 2:
        return False
    tokens = model.encode_frames(video).tokens if tokens is None else tokens
    middle = video.shape[1] // 2
    changed = video.clone()
    frame = video[:, middle].flip(-2)
    changed[:, middle] = 255 - frame if video.dtype == torch.uint8 else 1 - frame
    drift = (model.encode_frames(changed).tokens - tokens).float().abs()
    drift[:, middle] = 0
    return float(drift.max()) > 1e-3 * float(tokens.float().abs().max())


class EncodedClip(NamedTuple):
    """A clip that questions can be asked about: what a `FrameGame` is made from.

    Args:
        head: Who answers: the model on its tokens, or the whole model on frames where the backbone mixes time.
        tokens: (1, T, …) on the model's device, of the kind that the head takes.
        chunk: Coalitions that fit into one call of the head.
        temperature: What its logits are divided by where probabilities are asked for.
        multi_label: Whether its classes do not exclude each other.
    """

    head: FrameHead
    tokens: Tensor
    chunk: int
    temperature: float = 1.0
    multi_label: bool = False

    def head_of(self, model: ClipModel) -> FrameHead:
        """Who answers for another model with the same backbone."""
        return self.head.of(model) if isinstance(self.head, _WholeModel) else model

    def play(
        self,
        mask: Tensor | None = None,
        pts: Tensor | None = None,
        frame_index: Tensor | None = None,
        *,
        target: int | tuple[int, int] | None = None,
        removal: str = "drop",
    ) -> FrameGame:
        """The game of the clip; the arguments are those of `FrameGame`."""
        return FrameGame(
            self.head,
            self.tokens,
            mask,
            pts,
            frame_index,
            target=target,
            removal=removal,
            chunk=self.chunk,
            temperature=self.temperature,
            multi_label=self.multi_label,
        )


def encode_clip(
    model: ClipModel, video: Tensor, *, evaluations: int = BUDGET, warn: Callable[[str], None] = log.warning
) -> EncodedClip:
    """Let the backbone see a clip once, or make ready to let it see every coalition where it mixes time.

    Args:
        model: In evaluation mode.
        video: (1, T, 3, H, W) on the model's device, uint8 or normalised float.
        evaluations: Coalitions that are going to be asked; only for the estimate of the cost.
        warn: Takes the estimate, before the slow way begins.
    """
    with torch.inference_mode():
        started = time.perf_counter()
        tokens = model.encode_frames(video).tokens
        seconds = time.perf_counter() - started
        mixed = mixes_time(model, video, tokens)
    if not mixed:
        return EncodedClip(model, tokens, chunk=256)
    warn(
        f"the backbone mixes time, so every coalition of frames takes a pass of the whole model: {evaluations} passes "
        f"of {seconds:.2f} s, about {_duration(evaluations * seconds)}"
    )
    head = _WholeModel(model, video.shape[2:], tokens.shape[-1], video.dtype)
    return EncodedClip(head, video.flatten(2).float(), chunk=1)


class _WholeModel:
    """A head whose tokens are the frames themselves, (B, T, 3 · H · W): each clip goes through the whole model.

    Masked frames are cut out before the backbone sees the clip, and clips go one by one.
    """

    training = False

    def __init__(self, model: ClipModel, shape: torch.Size, width: int, dtype: torch.dtype) -> None:
        self._model, self._shape, self._width, self._dtype = model, shape, width, dtype

    def of(self, model: ClipModel) -> _WholeModel:
        """The same for another model."""
        return _WholeModel(model, self._shape, self._width, self._dtype)

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask
        logits, weights = [], torch.zeros(mask.shape, device=tokens.device)
        for row, (clip, seen) in enumerate(zip(tokens, mask, strict=True)):
            seconds = None if pts is None else pts[row : row + 1, seen]
            if seen.any():
                frames = clip[seen] if self._dtype.is_floating_point else clip[seen].round()
                frames = frames.to(self._dtype).unflatten(1, self._shape)[None]
                out = self._model.classify(self._model.encode_frames(frames).tokens, seen[seen][None], seconds)
                weights[row, seen] = out.frame_weights[0].float()
            else:  # nothing to encode: the head's answer to no frame
                nothing = torch.zeros(1, len(seen), self._width, device=tokens.device)
                out = self._model.classify(nothing, seen[None], None if pts is None else pts[row : row + 1])
            logits.append(out.logits.float())
        return ModelOutput(torch.cat(logits), weights)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
