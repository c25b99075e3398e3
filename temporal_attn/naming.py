"""What the videos of a batch are called, whatever kind of loader it comes from, and the numbers that stand for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from temporal_attn.types import VideoBatch

__all__ = ["group_names", "video_names", "video_numbers"]

_BITS = 56
"""Of the number of a video within its loader; the rest tells the loaders apart."""


def video_names(batch: VideoBatch) -> list[str] | None:
    """The B entries of ``video_id`` as text; None where there is none.

    Args:
        batch: The default collation of integer names is a tensor, that of texts a list; both are taken.
    """
    return _texts(batch.get("video_id"))


def group_names(batch: VideoBatch) -> list[str] | None:
    """Likewise of ``group``."""
    return _texts(batch.get("group"))


def video_numbers(batch: VideoBatch, running: Tensor, loader: int = 0) -> Tensor:
    """A number (B,) int64 for the video of each clip, the same on every process.

    Args:
        batch: Its ``index`` says it, or else its ``video_id``, of which the number is a digest.
        running: (B,) numbers that no other clip has, which stand for the videos where the batch has neither.
        loader: Which of several loaders the batch comes from; each numbers its own videos.
    """
    names = video_names(batch)
    if "index" in batch:
        own = batch["index"]
    else:
        own = running if names is None else torch.tensor([_digest(name) for name in names], device=running.device)
    return own + (loader << _BITS)


def _texts(values: Any) -> list[str] | None:  # noqa: ANN401
    if values is None:
        return None
    own: Iterable[object] = values.tolist() if isinstance(values, Tensor) else values
    return [str(value) for value in own] or None


def _digest(name: str) -> int:
    """Python's own hash differs from process to process."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> (64 - _BITS)
