"""Exponential moving average of the weights: what is validated, kept in best.ckpt and returned, instead of the last."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from temporal_attn.types import UserError

__all__ = ["ExponentialMovingAverage"]

_NARROW = {torch.bfloat16, torch.float16}


class ExponentialMovingAverage(WeightAveraging):
    """Validate, keep and return an average of the weights over the last training steps.

    Papers: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM 1992; Tarvainen and
        Valpola, "Mean teachers are better role models", NeurIPS 2017. https://arxiv.org/abs/1703.01780
    Equation: a ← a + (1 - d) (w - a) after each step, with d = min(decay, (1 + n) / (10 + n)) when n steps are in the
        average already, so that a short training does not end with much of its random start.

    Where Lightning's own average copies the module before it knows its classes and rounds frozen weights a little
    further off in each step, this one starts when all is built, and leaves bit for bit what does not train: features
    cached below it stay valid. BatchNorm statistics are averaged too, counters are copied.

    A checkpoint holds the average as ``state_dict``, and what training goes on from as ``current_model_state``.

    Args:
        decay: Share of the average that a step keeps, in (0, 1); it forgets over some 1 / (1 - decay) steps.

    Raises:
        ValueError: The decay is outside its range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay of the weight average must be above 0 and below 1, got {decay}")
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    @torch.no_grad()
    def _average(self, averages: list[Tensor], weights: list[Tensor], steps: Tensor | int) -> None:
        """Move averages of one type and device towards the weights, in place; n = ``steps`` are in them."""
        count = int(steps)
        step = 1 - min(self.decay, (1 + count) / (10 + count))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, step)
        else:
            torch._foreach_copy_(averages, weights)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait: a module may only learn from its datamodule, after this, which classes there are."""
        self._average_model = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the average of a checkpoint; whoever only tests it has the average in the module already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().setup(trainer, pl_module, "fit")
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the average where the weights are."""
        if self._average_model is None:
            super().setup(trainer, pl_module, "fit")
        assert self._average_model is not None
        self._average_model.to(pl_module.device)
        narrow = {tensor.dtype for tensor in pl_module.parameters() if tensor.is_floating_point()} & _NARROW
        if narrow:
            raise UserError(
                f"ema_decay: weights are {' and '.join(map(str, narrow))}, in which an average stands still, because "
                "its steps are rounded away: train with precision bf16-mixed, 16-mixed or 32"
            )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the module, where a resumed run had nothing left to train too."""
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)
