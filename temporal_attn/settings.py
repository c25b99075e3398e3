"""Which values the numbers among the hyperparameters may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from temporal_attn import losses
from temporal_attn.types import UserError

__all__ = ["check_settings"]

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "mlp_ratio": (lambda value: value > 0, "a ratio above 0"),
    "lr": (lambda value: value >= 0, "a rate, 0 or more"),
    "backbone_lr": (lambda value: value >= 0, "a rate, 0 or more"),
    "weight_decay": (lambda value: value >= 0, "a rate, 0 or more"),
    "unfreeze_epoch": (lambda value: value >= 0, "an epoch, 0 or more, or null"),
    "label_smoothing": (lambda value: 0 <= value < 1, "a share in [0, 1)"),
    "warmup": (lambda value: 0 <= value <= 1, "a share of the training in [0, 1]"),
    "layer_decay": (lambda value: 0 < value <= 1, "a ratio in (0, 1]"),
    "focal_gamma": (lambda value: value >= 0, "an exponent, 0 or more"),
    "ema_decay": (lambda value: 0 < value < 1, "a share above 0 and below 1, or null"),
    "distill_weight": (lambda value: 0 <= value <= 1, "a share in [0, 1]"),
    "distill_temperature": (lambda value: value > 0, "a number above 0"),
    "abstain_risk": (lambda value: 0 <= value <= 1, "a share in [0, 1], or null"),
    "abstain_coverage": (lambda value: 0 <= value <= 1, "a share in [0, 1], or null"),
}


def plain(value: Any) -> Any:  # noqa: ANN401
    """Settings without numpy: numbers, texts and lists, which a checkpoint may hold that loads without running code."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {plain(key): plain(own) for key, own in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what no training can use.

    Args:
        settings: Hyperparameters of `VideoClassificationModule` by name.

    Raises:
        UserError: A loss is not known, a number is out of its range, or two settings exclude each other.
    """
    if settings["loss"] not in losses.names():
        raise UserError(f"loss {settings['loss']!r} is not known; choose one of: {', '.join(losses.names())}")
    for name, (is_valid, meaning) in _RANGES.items():
        value = settings[name]
        if value is not None and not is_valid(value):
            raise UserError(f"{name} is {value}; it has to be {meaning}")
    if settings["teacher"] is not None and settings["loss"] == "binary":
        raise UserError("teacher: distillation is for videos of one class each; leave it out, or change the loss")
    if settings["abstain_risk"] is not None and settings["abstain_coverage"] is not None:
        raise UserError("abstain_risk and abstain_coverage are both given; the one decides the other, so give one")
