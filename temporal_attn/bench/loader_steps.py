"""A training that takes one step at a time and notes how long each phase of it takes, as if nothing overlapped."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from datamodules.base import VideoDataModule
from datamodules.dataset import VideoDataset
from temporal_attn.experiment import Experiment
from temporal_attn.model import VideoClassifier
from temporal_attn.types import UserError, VideoBatch

__all__ = ["PHASES", "TrainingSteps"]

PHASES = ("decode", "transfer", "transform", "forward", "backward")


@dataclass
class TrainingSteps:
    """A training that can take one step at a time.

    Args:
        experiment: What is trained.
        steps: Batches, fewer if the data set is smaller.
    """

    experiment: Experiment
    steps: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PHASES})

    def __post_init__(self) -> None:
        module, data, trainer = self.experiment.module, self.experiment.data, self.experiment.trainer
        if not isinstance(data, VideoDataModule):
            raise UserError(f"data is a {type(data).__name__}; `bench loader` measures datamodules of this package")
        trainer.callbacks.clear()  # type: ignore[attr-defined]  # a feature cache would be filled for all videos
        trainer.fit(module, datamodule=data)  # no epoch: everything is set up, and nothing trained
        self.module: pl.LightningModule = module
        self.data: VideoDataModule = data
        self.dataset: VideoDataset = data.train_dataset
        self.device = trainer.strategy.root_device
        self.optimizer = trainer.optimizers[0]
        self.precision: Callable[[], AbstractContextManager[object]] = trainer.precision_plugin.forward_context
        loader = data.train_dataloader()
        self.collate: Any = loader.collate_fn
        self.batches: list[list[Any]] = list(islice(loader.batch_sampler or (), self.steps))
        module.trainer = None  # what the module logs goes nowhere, and Lightning need not say so
        warnings.filterwarnings("ignore", r".*`self\.log\(\)`.*")
        module.to(self.device).train()

    @property
    def model(self) -> VideoClassifier | None:
        """The classifier, None for a module that has none of ours."""
        model = getattr(self.module, "model", None)
        return model if isinstance(model, VideoClassifier) else None

    def mean(self, phase: str) -> float:
        """Seconds of a phase."""
        return float(np.mean(self.seconds[phase]))

    def load(self, number: int) -> VideoBatch:
        """A batch as the loader gives it."""
        batch: VideoBatch = self.collate([self.dataset[key] for key in self.batches[number]])
        return batch

    def step(self, number: int) -> None:
        """One step, noting what its phases take."""
        with self._timed("decode"):
            batch = self.load(number)
        with self._timed("transfer"):
            batch = self.module.transfer_batch_to_device(batch, self.device, 0)
        with self._timed("transform"):
            batch = self.data.augment(batch)
        self.learn(batch, number)

    def learn(self, batch: VideoBatch, number: int) -> None:
        """Forward and backward."""
        with self._timed("forward"), self.precision():
            loss: Any = self.module.training_step(batch, number)
        with self._timed("backward"):
            (loss["loss"] if isinstance(loss, Mapping) else loss).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase].append(time.perf_counter() - start)
