"""One row a video, as ``predictions.jsonl`` and ``test_predictions.jsonl`` hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from temporal_attn.evaluation.scoring import Scoring
from temporal_attn.evaluation.table import VideoRow, VideoTable
from temporal_attn.metrics import VideoScore
from temporal_attn.types import FailedVideo, UserError

__all__ = [
    "TEST_PREDICTIONS",
    "failed_row",
    "has_class",
    "is_right",
    "judged_row",
    "predict_batch",
    "prediction_row",
    "read_judged",
    "write_judged",
]

TEST_PREDICTIONS = "test_predictions.jsonl"
"""What a test writes beside ``metrics.json``."""

Row = dict[str, Any]

_JUDGED = {"video_id", "class", "group", "label"}

_NO_NUMBERS = "the scores of the model are no numbers"


def prediction_row(video_id: str, probabilities: Sequence[float], class_names: Sequence[str], scoring: Scoring) -> Row:
    """What a model says of a video: video_id, class, probabilities by class name, failed (None); and abstained, where
    there is a threshold. Where a probability is no number, the model has said nothing, and failed is the reason.

    Args:
        video_id: The video's name.
        probabilities: K values.
        class_names: K names.
        scoring: Says whether the model keeps silent.
    """
    if not all(map(math.isfinite, probabilities)):
        return _without_prediction(video_id, _NO_NUMBERS)
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    row = {
        "video_id": video_id,
        "class": class_names[best],
        "probabilities": dict(zip(class_names, probabilities, strict=True)),
        "failed": None,
    }
    return row if scoring.threshold is None else {**row, "abstained": scoring.abstains(probabilities)}


def failed_row(video: FailedVideo) -> Row:
    """The same of a video that could not be read, and why."""
    return _without_prediction(video["id"], video["reason"])


def _without_prediction(video_id: str, reason: str | None) -> Row:
    return {"video_id": video_id, "class": None, "probabilities": None, "failed": reason}


def predict_batch(
    names: Sequence[str], index: torch.Tensor, logits: torch.Tensor, class_names: Sequence[str], scoring: Scoring
) -> list[Row]:
    """One row for each video of a batch that holds all views of its videos.

    Args:
        names: B names of the views' videos.
        index: (B,) which video a view belongs to.
        logits: (B, K).
        class_names: K names.
        scoring: How logits become probabilities.
    """
    name_of = dict(zip(index.tolist(), names, strict=True))
    videos = scoring.by_video(VideoScore(index, logits, torch.full_like(index, -1)))
    probabilities = videos.scores.cpu().tolist()
    return [
        prediction_row(name_of[number], own, class_names, scoring)
        for number, own in zip(videos.index.tolist(), probabilities, strict=True)
    ]


def judged_row(row: VideoRow, class_names: Sequence[str], scoring: Scoring, reason: str | None = None) -> Row:
    """A video of a test: what the model says, its group, and its label: the class name, or several of them.

    Args:
        row: The video.
        class_names: K names.
        scoring: Says whether the model keeps silent.
        reason: Why it could not be read; None where it could.
    """
    if row.probabilities is None:
        said = _without_prediction(row.id, reason)
    else:
        said = prediction_row(row.id, [float(p) for p in row.probabilities], class_names, scoring)
    label = [class_names[k] for k in row.classes]
    return {**said, "group": row.group, "label": label[0] if isinstance(row.label, int) else label}


def write_judged(
    path: str | Path,
    table: VideoTable,
    class_names: Sequence[str],
    scoring: Scoring,
    reasons: Mapping[str, str],
) -> None:
    """Write a row for every video of a test.

    Args:
        path: The file.
        table: The videos.
        class_names: K names.
        scoring: Says whether the model keeps silent.
        reasons: Why videos could not be read, by id.
    """
    with open(path, "w", encoding="utf-8") as file:
        for row in table.rows:
            file.write(json.dumps(judged_row(row, class_names, scoring, reasons.get(row.id))) + "\n")


def read_judged(run: str | Path) -> list[Row]:
    """The rows that a test wrote.

    Args:
        run: The run's folder, or the file itself.

    Raises:
        UserError: There is no such file, or it is none that a test wrote.
    """
    file = Path(run) / TEST_PREDICTIONS if Path(run).is_dir() else Path(run)
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); write it with `temporal-attn test`") from None
    except ValueError:
        raise UserError(f"{file}: is not a file of JSON rows; write it with `temporal-attn test`") from None
    if not rows or not all(isinstance(row, dict) and row.keys() >= _JUDGED for row in rows):
        raise UserError(f"{file}: holds no labelled videos; give the folder of a run of `temporal-attn test`")
    return rows


def has_class(row: Mapping[str, Any]) -> bool:
    """Whether a judged row can be right at all: a video without any class is left out of accuracies."""
    return bool(row["label"] != [])


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether the class of a judged row is true; that of a video that could not be read is not."""
    label = row["label"]
    return row["class"] in label if isinstance(label, list) else row["class"] == label
