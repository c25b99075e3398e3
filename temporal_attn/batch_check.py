"""Whether the first batch of a stage is one that a video classifier can use; if not, one line says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from temporal_attn.types import UserError, VideoBatch

__all__ = ["batch_size", "check_batch", "check_indices", "whole_labels"]

_WANTED = "a dict with video (B, T, 3, H, W) and label (B,)"


def batch_size(batch: VideoBatch) -> int:
    """B of a batch of videos or of cached features."""
    return len(batch["features"] if "features" in batch else batch["video"])


def whole_labels(batch: VideoBatch) -> VideoBatch:
    """The batch with class indices as int64, whatever kind of integer they were."""
    label = batch.get("label")
    if label is None or label.ndim != 1 or label.is_floating_point() or label.dtype == torch.int64:
        return batch
    return {**batch, "label": label.long()}


def check_batch(batch: Any, stage: str, num_classes: int, multi_label: bool, channels: int = 3) -> None:  # noqa: ANN401
    """Refuse a batch that would fail somewhere inside, or be understood as something else.

    Args:
        batch: What a loader gave, of whatever kind.
        stage: ``train``, ``val``, ``test`` or ``predict``; the last needs no labels.
        num_classes: K.
        multi_label: Whether the loss is ``binary``.
        channels: C of ``video``.

    Raises:
        UserError: It is no dict, an entry is missing, or an entry is of another shape, type or range.
    """
    if not isinstance(batch, Mapping):
        raise UserError(f"the {stage} loader gives a {type(batch).__name__}: let its data set give {_WANTED}")
    if "features" not in batch:
        _check_video(batch, stage, channels)
    if stage != "predict" and batch_size(cast(VideoBatch, batch)):
        _check_label(batch, stage, num_classes, multi_label)


def check_indices(batch: Any, stage: str, num_classes: int) -> None:  # noqa: ANN401
    """Refuse class indices that are out of range, in any batch whose labels lie on the CPU: no other device waits.

    Args:
        batch, stage, num_classes: As in `check_batch`; what is wrong with the batch otherwise is left to that.

    Raises:
        UserError: A class index is out of range.
    """
    label = batch.get("label") if isinstance(batch, Mapping) else None
    if not isinstance(label, Tensor) or label.ndim != 1 or not len(label) or label.is_floating_point():
        return
    if label.device.type == "cpu":
        _check_range(label, stage, num_classes)


def _check_video(batch: Mapping[str, Any], stage: str, channels: int) -> None:
    video = batch.get("video")
    if not isinstance(video, Tensor):
        found = ", ".join(map(str, batch)) or "nothing"
        raise UserError(f"the {stage} batch has no video, but {found}: give {_WANTED}")
    if not len(video):  # nothing of it could be read
        return
    if video.ndim == 5 and video.shape[2] == channels:
        return
    turned = video.ndim == 5 and video.shape[1] == channels
    remedy = "turn it with video.transpose(1, 2)" if turned else "give frames as (B, T, C, H, W)"
    raise UserError(f"video of the {stage} batch is {tuple(video.shape)}, not (B, T, {channels}, H, W): {remedy}")


def _check_label(batch: Mapping[str, Any], stage: str, num_classes: int, multi_label: bool) -> None:
    label = batch.get("label")
    where = f"label of the {stage} batch"
    if label is None and stage == "test":  # `require_labels` says it of the videos
        return
    if not isinstance(label, Tensor) or label.ndim == 0 or len(label) != batch_size(cast(VideoBatch, batch)):
        raise UserError(f"{where} is no tensor with an entry for each clip: give {_WANTED}")
    if label.ndim == 2 and label.shape[1] == num_classes:
        if stage != "train" and not multi_label:
            raise UserError(
                f"{where} is {tuple(label.shape)}, and an evaluation takes class indices (B,): give label.argmax(1), "
                "or, where videos have several classes, set model.loss to binary"
            )
        return
    if label.ndim != 1 or label.is_floating_point():
        raise UserError(
            f"{where} is {tuple(label.shape)} {label.dtype}: give class indices (B,) as integers, or rows (B, "
            f"{num_classes}), one column a class"
        )
    _check_range(label, stage, num_classes)


def _check_range(label: Tensor, stage: str, num_classes: int) -> None:
    least = 0 if stage == "train" else -1
    if not (least <= int(label.min()) and int(label.max()) < num_classes):
        wrong = int(label.max()) if int(label.max()) >= num_classes else int(label.min())
        unknown = "; a video without a label (-1) teaches nothing, leave it out" if wrong == -1 else ""
        raise UserError(
            f"label of the {stage} batch has {wrong}, but the {num_classes} classes are 0 to {num_classes - 1}: number "
            f"the labels in the order of class_names{unknown}"
        )
