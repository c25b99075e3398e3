"""What is said where no video could be read at all: a training epoch ends the run, an evaluation is a warning."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytorch_lightning as pl
import torch

from temporal_attn.types import FailedVideo, UserError, VideoBatch

__all__ = ["EpochReadings", "warn_of_none_read"]

_log = logging.getLogger(__name__)

_NAMED = 5


class EpochReadings:
    """How many clips of a training epoch could be read."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin a new epoch."""
        self._batches = self._clips = 0
        self._failed: dict[str, FailedVideo] = {}

    def note(self, batch: VideoBatch, clips: int) -> None:
        """Count the clips of a batch, and remember what failed in their place."""
        self._batches += 1
        self._clips += clips
        if not self._clips:
            self._failed.update((video["id"], video) for video in batch.get("failed", []))

    def require_some(self, trainer: pl.Trainer) -> None:
        """Refuse to go on after an epoch of which nothing could be read. Every process has to ask.

        Raises:
            UserError: No process has had a clip.
        """
        if not self._batches:  # an epoch that a resumed run finds finished
            return
        clips = torch.tensor(float(self._clips), device=trainer.strategy.root_device)
        if float(trainer.strategy.reduce(clips, reduce_op="sum")) == 0:
            raise UserError(
                f"none of the training videos of epoch {trainer.current_epoch} could be read: "
                f"{_list(list(self._failed.values()))}; `temporal-attn doctor` says what is wrong with a data set"
            )


def warn_of_none_read(stage: str, failed: Sequence[FailedVideo]) -> None:
    """Say that an evaluation had nothing to judge by.

    Args:
        stage: ``val`` or ``test``.
        failed: All its videos.
    """
    _log.warning(
        "%s: none of the %d videos could be read, so that all count as wrong: %s", stage, len(failed), _list(failed)
    )


def _list(failed: Sequence[FailedVideo]) -> str:
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return "; ".join(f"{video['path']}: {video['reason']}" for video in failed[:_NAMED]) + more
