"""Callbacks that work in any Trainer, with any module.

The entry point ``pytorch_lightning.callbacks_factory`` adds them to every Trainer of the environment, but only when
``TEMPORAL_ATTN_CALLBACKS`` names some: ``metrics``, ``predictions``.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter, ModelCheckpoint
from torch import Tensor

from temporal_attn.evaluation.predictions import TEST_PREDICTIONS, write_judged
from temporal_attn.naming import video_names
from temporal_attn.output import writable_folder
from temporal_attn.prediction_rows import largest, rows_of
from temporal_attn.types import UserError, VideoBatch

__all__ = ["BestCheckpoint", "MetricsWriter", "PredictionWriter", "callbacks_from_env", "mode_of", "run_folder"]

log = logging.getLogger(__name__)


def run_folder(trainer: pl.Trainer) -> Path:
    """The run's folder, made and found writable.

    Raises:
        UserError: It cannot be written.
    """
    return writable_folder(trainer.default_root_dir, "--trainer.default_root_dir")


def mode_of(metric: str) -> str:
    """``min`` for losses and calibration errors, by the end of their name; ``max`` for anything else."""
    return "min" if metric.endswith(("loss", "ece", "nll")) else "max"


class BestCheckpoint(ModelCheckpoint):
    """``checkpoints/best.ckpt`` and ``checkpoints/last.ckpt`` in the run's folder.

    Args:
        monitor: Logged value that decides which epoch is best; ``auto`` takes ``val/map`` of a module whose loss is
            ``binary`` and ``val/top1`` of any other; null keeps only the last.
        mode: ``max`` or ``min``; ``auto`` as `mode_of` says.
        every_n_epochs: Epochs between two savings; the end of the training is saved too.
    """

    def __init__(self, monitor: str | None = "auto", mode: str = "auto", every_n_epochs: int = 1) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode_of(monitor or "") if mode == "auto" else mode,
            every_n_epochs=every_n_epochs,
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find out what to monitor, and place the checkpoints in the run's folder, not in a logger's version folder."""
        if self.monitor == "auto":
            scoring = getattr(pl_module, "scoring", None)
            self.monitor = "val/map" if getattr(scoring, "multi_label", False) else "val/top1"
        if self.dirpath is None:
            # A resumed run goes by its real path whether this is the folder whose best checkpoint it knows.
            self.dirpath = os.path.realpath(run_folder(trainer) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fall back to the last epoch when there is nothing to validate on."""
        if self.monitor is not None and _has_nothing_to_validate_on(trainer):
            log.warning("nothing to validate on: best.ckpt is the last epoch, not the best by %s", self.monitor)
            self.monitor, self._save_on_train_epoch_end = None, True
        super().on_train_epoch_end(trainer, pl_module)
        self._save_last(trainer, train_epoch_ends=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, where that is done after each validation."""
        super().on_validation_end(trainer, pl_module)
        self._save_last(trainer, train_epoch_ends=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of a training that comes between two savings."""
        candidates, unsaved = self._monitor_candidates(trainer), not self._should_skip_saving_checkpoint(trainer)
        if not self.best_model_path and not getattr(trainer, "fast_dev_run", False):
            if self.monitor is not None:
                log.warning("never validated: best.ckpt is the last epoch, not the best by %s", self.monitor)
            self.monitor = None
        if self.monitor is None and (unsaved or not self.best_model_path):
            self._save_topk_checkpoint(trainer, candidates)
        if unsaved:
            self._save_last_checkpoint(trainer, candidates)
        super().on_train_end(trainer, pl_module)

    def _save_last(self, trainer: pl.Trainer, train_epoch_ends: bool) -> None:
        """The last epoch where it is not the best: Lightning saves it only together with a new best."""
        if self._should_skip_saving_checkpoint(trainer):  # it is there already
            return
        due = (trainer.current_epoch + 1) % self._every_n_epochs == 0
        if due and self._should_save_on_train_epoch_end(trainer) == train_epoch_ends:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write into ``best.ckpt`` how long all of the training took: when it was saved, nobody knew."""
        seconds = getattr(pl_module, "train_s", None)
        if seconds is None or not trainer.is_global_zero or not os.path.isfile(self.best_model_path):
            return
        checkpoint = torch.load(self.best_model_path, map_location="cpu", weights_only=True)
        checkpoint["train_s"] = seconds
        beside = f"{self.best_model_path}.part"
        torch.save(checkpoint, beside)
        os.replace(beside, self.best_model_path)


def _has_nothing_to_validate_on(trainer: pl.Trainer) -> bool:
    every = trainer.check_val_every_n_epoch
    # How many batches there are is known once the loaders have been asked for: when a validation was due.
    due = every is not None and (trainer.current_epoch + 1) % every == 0
    return not trainer.enable_validation or (due and not any(trainer.num_val_batches))


class MetricsWriter(pl.Callback):
    """``metrics.json`` in the run's folder after a test, and ``test_predictions.jsonl``, a row a video.

    The first holds the module's ``test_summary`` where there is one, and otherwise what the module logged. The second
    needs the module's ``test_table``; without one there is none.

    Args:
        filename: Name of the file.
    """

    def __init__(self, filename: str = "metrics.json") -> None:
        self.filename = filename
        self.path: str | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find out before the work that the folder can be written."""
        if stage == "test" and trainer.is_global_zero:
            run_folder(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file on rank zero."""
        if not trainer.is_global_zero:
            return
        document = getattr(pl_module, "test_summary", None)
        if document is None:
            logged = {name: value.item() for name, value in trainer.callback_metrics.items() if value.numel() == 1}
            document = {"schema": "temporal_attn/logged_metrics/1"}
            for name, value in logged.items():
                document[name] = value if math.isfinite(value) else None  # JSON has no NaN
        path = run_folder(trainer) / self.filename
        table, module = getattr(pl_module, "test_table", None), cast(Any, pl_module)
        if table is not None:
            reasons = {video["id"]: video["reason"] for video in document["failed"]}
            write_judged(path.with_name(TEST_PREDICTIONS), table, module.class_names, module.scoring, reasons)
        # Last and whole: where it lies, a test is done.
        beside = path.with_name(f"{path.name}.part")
        beside.write_text(json.dumps(document, indent=2) + "\n")
        os.replace(beside, path)
        self.path = str(path)


class PredictionWriter(BasePredictionWriter):
    """``predictions.jsonl`` in the run's folder: one JSON row a video, written as batches come.

    The module's ``predict_step`` returns rows (dicts with video_id, class and probabilities) or probabilities (B, K),
    whose rows sum to 1; the latter become rows with the batch's ``video_id`` or a running number, which is the position
    in the data set where there are several processes. Each of those writes ``predictions-<rank>.jsonl``.

    Args:
        filename: Name of the file.
        abstain_below: Rows whose largest probability is smaller are marked as abstained; null leaves it to the
            threshold that the checkpoint carries, if any.

    Attributes:
        uninvited: Whether nobody asked for it in the code: then what cannot be written is warned of once and left out,
            so that no run ends by a callback that its author does not know of.

    Raises:
        UserError: The threshold is no probability; while it predicts, the module returns something else.
    """

    def __init__(self, filename: str = "predictions.jsonl", abstain_below: float | None = None) -> None:
        super().__init__(write_interval="batch")
        if abstain_below is not None and not 0 <= abstain_below <= 1:
            raise UserError(f"predictions.abstain_below is a probability in [0, 1], got {abstain_below}")
        self.filename = filename
        self.abstain_below = abstain_below
        self.path: str | None = None
        self.failed = 0
        self.rows = 0
        self.uninvited = False
        self._is_silent = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the file anew."""
        if stage != "predict":
            return
        source: Any = trainer
        writers = [callback for callback in source.callbacks if isinstance(callback, PredictionWriter)]
        if self.uninvited and len(writers) > 1:  # whoever was asked for writes the same file
            self._is_silent = True
            return
        name = Path(self.filename)
        if trainer.world_size > 1:
            name = name.with_stem(f"{name.stem}-{trainer.global_rank}")
        self.path = str(run_folder(trainer) / name)
        self.failed = self.rows = 0
        self._is_silent = False
        Path(self.path).write_text("")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,  # noqa: ANN401
        batch_indices: Sequence[int] | None,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of a batch."""
        if self._is_silent:
            return
        assert self.path is not None
        try:
            rows = rows_of(prediction, self._names(trainer, prediction, batch_indices, batch, dataloader_idx))
            lines = [json.dumps(self._marked(row)) + "\n" for row in rows]
        except (UserError, TypeError) as error:
            if not self.uninvited:
                raise UserError(str(error)) from None
            log.warning("no predictions are written: %s", error)
            self._is_silent = True
            return
        self.rows += len(rows)
        self.failed += sum(row.get("failed") is not None for row in rows)
        with open(self.path, "a") as file:
            file.writelines(lines)

    def _names(
        self,
        trainer: pl.Trainer,
        prediction: Any,  # noqa: ANN401
        batch_indices: Sequence[int] | None,
        batch: Any,  # noqa: ANN401
        dataloader_idx: int,
    ) -> list[str]:
        own = video_names(cast(VideoBatch, batch)) if isinstance(batch, dict) else None
        count = len(prediction) if isinstance(prediction, Tensor) and prediction.ndim else 0
        if own is not None or trainer.world_size == 1:
            return [str(self.rows + i) for i in range(count)] if own is None else own
        # Each process counts its own videos, but all of them know the positions in the data set.
        places: Sequence[object] = batch_indices or [f"{trainer.global_rank}-{self.rows + i}" for i in range(count)]
        return [f"{dataloader_idx}-{place}" if dataloader_idx else str(place) for place in places]

    def _marked(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.abstain_below is not None and row["probabilities"] is not None:
            row["abstained"] = largest(row["probabilities"]) < self.abstain_below
        return row


def _uninvited_writer() -> PredictionWriter:
    writer = PredictionWriter()
    writer.uninvited = True
    return writer


_BY_NAME: dict[str, Callable[[], pl.Callback]] = {"metrics": MetricsWriter, "predictions": _uninvited_writer}


def callbacks_from_env() -> list[pl.Callback]:
    """Callbacks that ``TEMPORAL_ATTN_CALLBACKS`` names, separated by commas; none when it is not set.

    Every Trainer of the environment calls this, so it never raises: a name that is not known is logged, and what
    `PredictionWriter` cannot write is left out with a warning.
    """
    wanted = [name.strip() for name in os.environ.get("TEMPORAL_ATTN_CALLBACKS", "").split(",") if name.strip()]
    unknown = [name for name in wanted if name not in _BY_NAME]
    if unknown:
        log.warning(
            "TEMPORAL_ATTN_CALLBACKS: %s not known; choose from: %s", ", ".join(unknown), ", ".join(sorted(_BY_NAME))
        )
    return [_BY_NAME[name]() for name in wanted if name in _BY_NAME]
