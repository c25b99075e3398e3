"""The rates of a training over its steps: how many steps that is, where anybody can know it."""

from __future__ import annotations

import logging
import math

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from temporal_attn.optim import warmup_constant, warmup_cosine
from temporal_attn.types import UserError

__all__ = ["UNKNOWN_STEPS", "schedule"]

log = logging.getLogger(__name__)

UNKNOWN_STEPS = 1000
"""Of so many steps the warmup takes its share, where nobody can say how many the training has."""


def schedule(optimizer: Optimizer, trainer: pl.Trainer, warmup: float, unfreeze_epoch: int | None = None) -> LambdaLR:
    """Warmup and cosine over the steps of a training; warmup and then a constant rate where their number is not known.

    It is not known where only ``max_time`` ends the training, or where a loader without a length has to be gone through
    to the end of an epoch.

    Args:
        optimizer: Its groups keep the ratio of their rates.
        trainer: Says how many steps there are.
        warmup: Share of the steps that the rates rise, in [0, 1]; of `UNKNOWN_STEPS` where they are not known.
        unfreeze_epoch: Epoch at which groups with ``later`` begin to train; None where there are none.

    Raises:
        UserError: ``unfreeze_epoch`` is set, and an epoch has no known number of steps.
    """
    total = trainer.estimated_stepping_batches
    freed_at = 0 if unfreeze_epoch is None else unfreeze_epoch * _steps_in_an_epoch(trainer)
    if total not in (float("inf"), -1):
        return warmup_cosine(optimizer, int(warmup * total), int(total), freed_at=freed_at)
    steps = int(warmup * UNKNOWN_STEPS)
    log.warning(
        "how many steps the training has is not known: rates rise over %d of them and stay; for a cosine give "
        "trainer.max_steps, or trainer.max_epochs with trainer.limit_train_batches where the loader has no length",
        steps,
    )
    return warmup_constant(optimizer, steps, freed_at)


def _steps_in_an_epoch(trainer: pl.Trainer) -> int:
    if trainer.train_dataloader is None:  # the trainer has not counted them yet
        trainer.fit_loop.setup_data()
    if trainer.limit_train_batches == 0:  # and does not count them: there is nothing to train
        return 0
    batches = trainer.num_training_batches
    if batches == float("inf"):
        raise UserError(
            "unfreeze_epoch counts in epochs, but the training loader has no length: say how many batches an epoch has "
            "with trainer.limit_train_batches, or leave model.unfreeze_epoch out"
        )
    return math.ceil(batches / trainer.accumulate_grad_batches)
