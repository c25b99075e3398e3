"""What a Trainer's precision must not touch: the seconds of frames, which half precision cannot tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins import HalfPrecision

__all__ = ["keep_seconds"]

_SECONDS = "pts"


def keep_seconds(trainer: pl.Trainer) -> None:
    """Let ``pts`` of the batches keep its type where the Trainer narrows all others: in ``bf16-true`` and ``16-true``.

    bfloat16 has eight bits: ten minutes into a video all frames of four seconds would be shown at one time. The
    conversion comes before the first hook of a module, so it is the plugin that is told, once.

    Args:
        trainer: Its precision plugin takes the change; other plugins convert no batches, or need no change.
    """
    plugin = trainer.precision_plugin
    if not isinstance(plugin, HalfPrecision) or "convert_input" in vars(plugin):
        return
    convert = plugin.convert_input

    def convert_all_but_seconds(data: Any) -> Any:  # noqa: ANN401
        converted = convert(data)
        if isinstance(data, Mapping) and _SECONDS in data:
            converted[_SECONDS] = data[_SECONDS]
        return converted

    plugin.convert_input = convert_all_but_seconds  # type: ignore[method-assign]
