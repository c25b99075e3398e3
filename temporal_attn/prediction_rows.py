"""What a module may predict for its rows to be written: probabilities, or rows of its own; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from temporal_attn.types import UserError

__all__ = ["largest", "rows_of"]

Row = dict[str, Any]

_KEYS = ("video_id", "class", "probabilities")
_ACCEPTED = (
    "PredictionWriter takes probabilities (B, K), each row of which sums to 1, or a list of dicts with "
    f"{', '.join(_KEYS)} and, where a video could not be read, failed"
)
_TOLERANCE = 0.02  # of a sum that was made in half precision


def rows_of(prediction: Any, names: Sequence[str]) -> list[Row]:  # noqa: ANN401
    """One row a video.

    Args:
        prediction: What ``predict_step`` returned for a batch.
        names: Of its videos, for probabilities; rows carry their own.

    Raises:
        UserError: It is neither probabilities nor rows.
    """
    if isinstance(prediction, Tensor):
        return _rows_of_probabilities(prediction.detach(), names)
    if not isinstance(prediction, list):
        raise UserError(f"predict_step returns a {type(prediction).__name__}: {_ACCEPTED}")
    for row in prediction:
        if not isinstance(row, dict):
            raise UserError(f"predict_step returns a list of {type(row).__name__}: {_ACCEPTED}")
        if absent := [key for key in _KEYS if key not in row]:
            raise UserError(f"predict_step returns rows without {', '.join(absent)}: {_ACCEPTED}")
        if not isinstance(row["probabilities"], Mapping | list | None):
            raise UserError(f"probabilities of a row are a {type(row['probabilities']).__name__}: {_ACCEPTED}")
    return [dict(row) for row in prediction]


def largest(probabilities: Mapping[str, float] | Sequence[float]) -> float:
    """The probability of the top class.

    Args:
        probabilities: K values, or K values by class name.
    """
    return max(probabilities.values() if isinstance(probabilities, Mapping) else probabilities)


def _rows_of_probabilities(prediction: Tensor, names: Sequence[str]) -> list[Row]:
    if prediction.ndim != 2 or not prediction.is_floating_point():
        raise UserError(f"predict_step returns {tuple(prediction.shape)} {prediction.dtype}: {_ACCEPTED}")
    values = prediction.float().cpu()
    if not ((values >= 0) & (values <= 1)).all() or ((values.sum(1) - 1).abs() > _TOLERANCE).any():
        raise UserError(f"predict_step returns values that are no probabilities, maybe logits: {_ACCEPTED}")
    if len(values) != len(names):
        raise UserError(f"predict_step returns {len(values)} rows for {len(names)} videos: {_ACCEPTED}")
    return [
        {"video_id": name, "class": int(row.argmax()), "probabilities": row.tolist(), "failed": None}
        for name, row in zip(names, values, strict=True)
    ]
