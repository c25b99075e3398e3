"""What an evaluation has seen of its videos, batch by batch, and the same merged over all processes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from temporal_attn.evaluation.calibration import reliability
from temporal_attn.evaluation.scoring import Scoring, negative_log_likelihood
from temporal_attn.evaluation.summary import accuracies, mean_average_precision
from temporal_attn.evaluation.table import VideoRow, VideoTable
from temporal_attn.metrics import VideoScore, VideoScores
from temporal_attn.naming import group_names, video_names
from temporal_attn.types import FailedVideo, UserError, VideoBatch

__all__ = ["Evaluation", "EvaluationRecorder", "require_labels"]

log = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """All that the processes saw together.

    Args:
        views: Logits, one row a view.
        names: Name and group of each video, by its index.
        failed: Videos that could not be read.
    """

    views: VideoScore
    names: dict[int, tuple[str, str]]
    failed: list[FailedVideo]

    def rows(self, scoring: Scoring) -> list[VideoRow]:
        """The videos that were read, with their probabilities."""
        return self._rows(scoring.by_video(self.views))

    def measures(self, scoring: Scoring, class_names: Sequence[str]) -> dict[str, float]:
        """What is worth logging: the accuracies with their interval, of videos; loss and accuracy of single clips.

        Of videos of several classes the mean average precision too, which is what tells such models apart.

        Args:
            scoring: How logits become probabilities. The loss is that of the logits as they are.
            class_names: K names.
        """
        table = VideoTable.of(self.rows(scoring), len(class_names), self.failed)
        values = accuracies(table)
        low, high = values.pop("ci95") or (None, None)
        values |= {"top1_low": low, "top1_high": high}
        if table.read.rows:
            values["ece"] = reliability(table.read.confidence, table.read.correct).ece
        if scoring.multi_label:
            values["map"] = mean_average_precision(table)
        clips = VideoTable.of(self._rows(self.views), len(class_names))
        if clips.with_class.rows:
            values["clip_top1"] = float(clips.with_class.correct.mean())
        if clips.rows:
            values["loss"] = self._loss(replace(scoring, temperature=1.0))
        return {name: value for name, value in values.items() if value is not None}

    def _loss(self, scoring: Scoring) -> float:
        kept = self.views.label.reshape(len(self.views.label), -1).ge(0).all(1)
        probabilities = scoring.probabilities(self.views.scores[kept].double())
        return negative_log_likelihood(probabilities, self.views.label[kept]).item()

    def _rows(self, scores: VideoScore) -> list[VideoRow]:
        labels = scores.label.tolist()
        if scores.label.ndim == 2:
            labels = [_classes(row) for row in labels]
        own = scores.scores.cpu().double().numpy()
        return [
            VideoRow(*self.names[index], label, row, index)
            for index, label, row in zip(scores.index.tolist(), labels, own, strict=True)
        ]


class EvaluationRecorder(nn.Module):
    """Collects logits, names and failures of the videos of one evaluation.

    Args:
        num_classes: K.
        multi_label: Whether labels are (B, K).
    """

    def __init__(self, num_classes: int, multi_label: bool = False) -> None:
        super().__init__()
        self.scores = VideoScores(num_classes, multi_label)
        self._names: dict[int, tuple[str, str]] = {}
        self._failed: dict[str, FailedVideo] = {}
        self._clips: Counter[int] = Counter()
        self._unnamed = self._warned = False

    def forget(self) -> None:
        """Begin a new evaluation."""
        self.scores.reset()
        self._names, self._failed, self._clips = {}, {}, Counter()

    def note_failures(self, batch: VideoBatch) -> None:
        """Remember the videos of a batch that could not be read."""
        self._failed.update((video["id"], video) for video in batch.get("failed", []))

    def record(self, batch: VideoBatch, logits: Tensor, number: Tensor) -> None:
        """Remember what the model said of a batch.

        Args:
            batch: The clips.
            logits: (B, K).
            number: (B,) int64, of each clip's video, see `video_numbers`.

        Raises:
            UserError: Videos have several labels, but classes are asked against each other.
        """
        label = self._label(batch["label"], logits.shape[1])
        self._unnamed |= "index" not in batch and "video_id" not in batch
        names, view = video_names(batch) or [str(i) for i in number.tolist()], batch.get("view_id")
        if view is None:
            view = torch.zeros_like(number) if "index" in batch else self._views(number)
        self.scores.update(number, view, logits, label)
        groups = group_names(batch) or names
        self._names.update(zip(number.tolist(), zip(names, groups, strict=True), strict=True))

    def _views(self, number: Tensor) -> Tensor:
        """Which clip of its video each is, where nobody says so: the first that this process meets, the second, ….

        A sampler that repeats clips to fill its last batch never gives one process the same clip twice.
        """
        views = []
        for own in number.tolist():
            views.append(self._clips[own])
            self._clips[own] += 1
        return torch.tensor(views, dtype=torch.long, device=number.device)

    def _warn_of_unnamed(self) -> None:
        if self._unnamed and not self._warned:
            log.warning(
                "the batches have neither index nor video_id, so that a clip which a distributed sampler repeats to "
                "fill its last batch counts twice: give video_id, or evaluate on one process"
            )
        self._warned |= self._unnamed

    def _label(self, label: Tensor, num_classes: int) -> Tensor:
        """(B,) class indices, or (B, K) where a video may have several classes."""
        if not self.scores.multi_label:
            if label.ndim == 2:
                raise UserError("the videos belong to several classes each: train for that with model.loss: binary")
            return label
        if label.ndim == 2:
            return label
        rows = one_hot(label.clamp(min=0), num_classes).float()
        return torch.where(label[:, None] < 0, -1.0, rows)

    def merge(self, world_size: int) -> Evaluation:
        """What all processes saw; each of them has to ask.

        Args:
            world_size: How many there are.

        Raises:
            UserError: A name stands for videos of different classes.
        """
        names, failed = dict(self._names), dict(self._failed)
        if world_size > 1:
            self._warn_of_unnamed()
            every: list[Any] = [None] * world_size
            torch.distributed.all_gather_object(every, (self._names, self._failed))
            for other_names, other_failed in every:
                names.update(other_names)
                failed.update(other_failed)
        views = self.scores.by_clip()
        _refuse_clashes(views, names)
        return Evaluation(views, names, list(failed.values()))


def _refuse_clashes(views: VideoScore, names: Mapping[int, tuple[str, str]]) -> None:
    """Views are averaged by video, and of one video they all have its label.

    Raises:
        UserError: They do not.
    """
    _, row = torch.unique(views.index, return_inverse=True)
    last = torch.empty(len(views.index), dtype=torch.long, device=row.device)
    last[row] = torch.arange(len(row), device=row.device)
    clashing = views.label != views.label[last[row]]
    if clashing.any():
        clashing = clashing if clashing.ndim == 1 else clashing.any(1)
        name = names[int(views.index[clashing][0])][0]
        raise UserError(
            f"video_id {name!r} stands for videos of different classes, whose scores would be averaged: give each a "
            "name of its own, such as class/file"
        )


def require_labels(batch: VideoBatch) -> None:
    """Refuse a batch that cannot be tested.

    Raises:
        UserError: A video has no label.
    """
    label = batch.get("label")
    unknown = None if label is None else label.reshape(len(label), -1).lt(0).any(1).nonzero().flatten().tolist()
    if unknown == []:
        return
    ids = video_names(batch) or []
    name = "the videos" if unknown is None else f"video {ids[unknown[0]]}" if ids else "a video"
    verb = "have" if unknown is None else "has"
    raise UserError(
        f"{name} {verb} no label, so that there is nothing to test: classify with `temporal-attn predict`, "
        "or give the label"
    )


def _classes(row: list[float]) -> tuple[int, ...] | None:
    """Class indices of a row of 0 and 1; None for a row of -1."""
    return None if any(value < 0 for value in row) else tuple(k for k, value in enumerate(row) if value > 0)
