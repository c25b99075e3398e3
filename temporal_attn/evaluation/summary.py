"""The document that a test writes: ``metrics.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from temporal_attn.evaluation.calibration import brier_score, calibration_interval, reliability
from temporal_attn.evaluation.intervals import bootstrap_over_groups
from temporal_attn.evaluation.ranking import average_precision, mean_average_precision_interval
from temporal_attn.evaluation.scoring import negative_log_likelihood
from temporal_attn.evaluation.selective import RiskCoverage, risk_coverage
from temporal_attn.evaluation.table import VideoRow, VideoTable
from temporal_attn.types import FailedVideo

__all__ = ["SCHEMA", "accuracies", "mean_average_precision", "summarise"]

SCHEMA = "temporal_attn/metrics/1"

Array = NDArray[np.float64]

_POINTS = 100
_DIGITS = 6


def accuracies(table: VideoTable) -> dict[str, Any]:
    """top1, top5, mean_class_accuracy (fractions) and ci95 of top1, over all videos, failed ones included.

    Of several labels a video is right when one of its classes comes first, or among the first five, and a class's
    accuracy is the share of its videos that it is predicted for. Videos without any class are left out: no class that
    comes first could be right.
    """
    table = table.with_class
    if not table.rows:
        return {"top1": None, "top5": None, "mean_class_accuracy": None, "ci95": None}
    recall = _shares(table.truth * table.predicted, table.truth)
    return {
        "top1": float(table.correct.mean()),
        "top5": float((table.rank < min(5, table.truth.shape[1])).mean()),
        "mean_class_accuracy": _mean(recall),
        "ci95": list(bootstrap_over_groups(table.correct, table.groups)),
    }


def mean_average_precision(table: VideoTable) -> float | None:
    """The mean over classes of their average precision, of the videos that could be read; None without any class."""
    return _mean(_average_precisions(table.read))


def summarise(
    rows: Sequence[VideoRow],
    class_names: Sequence[str],
    failed: Sequence[FailedVideo] = (),
    missing: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """All that a test says of videos that are listed and present; a failed video counts as wrong.

    What speaks of probabilities (map, ece, nll, brier, aurc) is of the videos that could be read, and null without any.

    Args:
        rows: One row a video that was read.
        class_names: Names of the K classes.
        failed: Videos that could not be read.
        missing: Ids that are listed but not on disk; counted apart, since nobody tested them.
        extra: Further keys for the document.
        threshold: Least confidence at which the model answers; None where it always does.

    Returns:
        schema; `accuracies`; map, ece (with intervals by bootstrap over groups), nll, brier, aurc; reliability and
        risk_coverage, the two curves; selective, what the threshold gives; videos, groups, missing, failed; per_class
        with the number of videos, accuracy, precision, recall and average precision; confusion, K rows of true classes
        by K predicted ones, null for several labels.
    """
    table = VideoTable.of(rows, len(class_names), failed)
    return {
        "schema": SCHEMA,
        **accuracies(table),
        **_probabilistic(table.read, threshold),
        "videos": len(table.rows),
        "groups": len(set(table.groups)),
        "missing": len(missing),
        "missing_ids": sorted(missing)[:100],
        "failed": [{"id": video["id"], "path": video["path"], "reason": video["reason"]} for video in failed],
        "per_class": _per_class(table, class_names),
        "confusion": None if table.multi_label else (table.truth.T @ table.predicted).astype(int).tolist(),
        **(extra or {}),
    }


def _probabilistic(table: VideoTable, threshold: float | None) -> dict[str, Any]:
    """What is said of probabilities; to six digits, because those after them depend on how videos were batched."""
    if not table.rows:
        names = ("map", "map_ci95", "ece", "ece_ci95", "nll", "brier", "aurc", "reliability", "risk_coverage")
        return {**dict.fromkeys(names), "selective": None}
    correct, confidence, groups = table.correct, table.confidence, table.groups
    truth = table.truth if table.multi_label else table.truth.argmax(1)
    diagram, curve = reliability(confidence, correct), risk_coverage(confidence, correct)
    ranked = table.truth.any()
    nll = negative_log_likelihood(torch.from_numpy(table.probabilities), torch.from_numpy(truth))
    return {
        "map": round(float(np.nanmean(_average_precisions(table))), _DIGITS) if ranked else None,
        "map_ci95": _rounded(mean_average_precision_interval(table.probabilities, table.truth, groups))
        if ranked
        else None,
        "ece": round(diagram.ece, _DIGITS),
        "ece_ci95": _rounded(calibration_interval(confidence, correct, groups)),
        "nll": round(nll.item(), _DIGITS),
        "brier": round(brier_score(table.probabilities, truth), _DIGITS),
        "aurc": round(curve.aurc, _DIGITS),
        "reliability": {
            "videos": diagram.videos.tolist(),
            "confidence": _numbers(diagram.confidence),
            "accuracy": _numbers(diagram.accuracy),
        },
        "risk_coverage": _thinned(curve),
        "selective": _selective(confidence, correct, threshold),
    }


def _per_class(table: VideoTable, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One row a class: n videos; a share is null where there is nothing to have a share of."""
    hits = table.truth * table.predicted
    columns = {
        "top1": _numbers(_shares(table.truth * _first(table), table.truth)),
        "precision": _numbers(_shares(hits, table.predicted)),
        "recall": _numbers(_shares(hits, table.truth)),
        "average_precision": _numbers(_average_precisions(table.read)),
    }
    return [
        {"class": name, "n": int(n), **{key: values[k] for key, values in columns.items()}}
        for k, (name, n) in enumerate(zip(class_names, table.truth.sum(0), strict=True))
    ]


def _first(table: VideoTable) -> Array:
    """(N, K) 1 for the most probable class of each video that was read."""
    return VideoTable(table.rows, table.probabilities, table.truth, multi_label=False).predicted


def _average_precisions(table: VideoTable) -> Array:
    """(K,) NaN for a class without videos."""
    pairs = zip(table.probabilities.T, table.truth.T, strict=True)
    return np.array([average_precision(scores, own)[0] if own.any() else np.nan for scores, own in pairs])


def _thinned(curve: RiskCoverage) -> dict[str, list[float]]:
    """The curve at so many places as a picture shows."""
    kept = np.unique(np.linspace(0, len(curve.coverage) - 1, _POINTS).round().astype(int))
    return {"coverage": _rounded(curve.coverage[kept]), "risk": _rounded(curve.risk[kept])}


def _selective(confidence: Array, correct: Array, threshold: float | None) -> dict[str, float | None] | None:
    if threshold is None:
        return None
    answered = confidence >= threshold
    risk = 1 - float(correct[answered].mean()) if answered.any() else None
    return {"threshold": threshold, "coverage": float(answered.mean()), "risk": risk}


def _shares(hits: Array, all_of_them: Array) -> Array:
    """(K,) column sums of the one over those of the other, NaN where there are none."""
    with np.errstate(invalid="ignore"):
        share: Array = hits.sum(0) / all_of_them.sum(0)
    return share


def _numbers(values: Array) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [None if np.isnan(value) else round(float(value), _DIGITS) for value in values]


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]


def _mean(values: Array) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
