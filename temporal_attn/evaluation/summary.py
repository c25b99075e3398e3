"""The document that a test writes: ``metrics.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from temporal_attn.evaluation.intervals import bootstrap_over_groups
from temporal_attn.types import FailedVideo

__all__ = ["SCHEMA", "VideoRow", "summarise"]

SCHEMA = "temporal_attn/metrics/1"


class VideoRow(NamedTuple):
    """What a test knows of one video.

    Args:
        id: The video's name.
        group: Its leakage group.
        label: True class index.
        probabilities: K values; None for a video that could not be read.
    """

    id: str
    group: str
    label: int
    probabilities: Sequence[float] | None


def _rank(row: VideoRow) -> float:
    """How many classes come before the true one; infinite for a failed video or a score that is no number."""
    if row.probabilities is None or math.isnan(row.probabilities[row.label]):
        return math.inf
    own = row.probabilities[row.label]
    return sum(value > own or (value == own and index < row.label) for index, value in enumerate(row.probabilities))


def summarise(
    rows: Sequence[VideoRow],
    class_names: Sequence[str],
    failed: Sequence[FailedVideo] = (),
    missing: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Accuracies over all videos that are listed and present; a failed video counts as wrong.

    Args:
        rows: One row a video that was read.
        class_names: Names of the K classes.
        failed: Videos that could not be read.
        missing: Ids that are listed but not on disk; counted apart, since nobody tested them.
        extra: Further keys for the document.

    Returns:
        schema, top1, top5, mean_class_accuracy (fractions), ci95 of top1 by bootstrap over groups, videos, missing,
        failed, per_class.
    """
    every = [*rows, *(VideoRow(video["id"], video["group"], video["label"], None) for video in failed)]
    every = [row for row in every if row.label >= 0]
    rank = [_rank(row) for row in every]
    top1 = [float(value < 1) for value in rank]
    by_class = [[hit for hit, row in zip(top1, every, strict=True) if row.label == k] for k in range(len(class_names))]
    accuracy = [_mean(own) for own in by_class]
    per_class = [
        {"class": name, "n": len(own), "top1": value}
        for name, own, value in zip(class_names, by_class, accuracy, strict=True)
    ]
    clamped = min(5, len(class_names))
    return {
        "schema": SCHEMA,
        "top1": _mean(top1),
        "top5": _mean([float(value < clamped) for value in rank]),
        "mean_class_accuracy": _mean([value for value in accuracy if value is not None]),
        "ci95": list(bootstrap_over_groups(top1, [row.group for row in every])) if every else None,
        "videos": len(every),
        "groups": len({row.group for row in every}),
        "missing": len(missing),
        "missing_ids": sorted(missing)[:100],
        "failed": [{"id": video["id"], "path": video["path"], "reason": video["reason"]} for video in failed],
        "per_class": per_class,
        **(extra or {}),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
