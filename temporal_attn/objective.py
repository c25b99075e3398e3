"""What a training minimises: the loss that the hyperparameters name, and the teacher that they name beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from temporal_attn import losses
from temporal_attn.distillation import Teacher, find_teacher
from temporal_attn.types import UserError

__all__ = ["prepare_objective"]


def prepare_objective(
    settings: Mapping[str, Any],
    class_names: Sequence[str],
    source: Any,  # noqa: ANN401
) -> tuple[nn.Module, Teacher | None]:
    """Make the loss, and find the teacher; neither is part of a checkpoint.

    Args:
        settings: Hyperparameters of `VideoClassificationModule` by name.
        class_names: K names.
        source: The datamodule, or None; one of `datamodules` knows its training videos.

    Raises:
        UserError: The loss does not fit the labels, needs frequencies that nobody knows, or has a wrong value; or there
            is no such teacher.
    """
    records = getattr(getattr(source, "train_dataset", None), "records", None)
    labels = getattr(records, "labels", [])
    name, classes = settings["loss"], len(class_names)
    if name != "binary" and any(isinstance(label, tuple) for label in labels):
        raise UserError(f"loss {name!r} is for one class a video, but these have several: set loss to binary")
    counts = settings["class_counts"] or (losses.count_classes(labels, classes) if labels else None)
    try:
        loss = losses.build(
            name, classes, settings["label_smoothing"], settings["class_weights"], counts, settings["focal_gamma"]
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    teacher = settings["teacher"]
    return loss, None if teacher is None else find_teacher(teacher, class_names, records)
