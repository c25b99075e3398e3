"""What may make a training step shorter: each change is made for a moment and taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch

from datamodules.cache import CachedFeatures
from datamodules.dataset import DecodedClips
from datamodules.decoding import SafeOpener
from datamodules.frame_store import FrameSettings, FrameStore, fill_frame_store
from temporal_attn.bench.loader_steps import TrainingSteps

__all__ = ["Change", "changes_of"]


class Change(NamedTuple):
    """Something that may make a step shorter.

    Args:
        name: In a word or two.
        advice: How to have it.
        made: Makes it, and takes it back.
    """

    name: str
    advice: str
    made: Callable[[], AbstractContextManager[object]]


def changes_of(training: TrainingSteps, folder: Path) -> list[Change]:
    """All that can be made in this training.

    Args:
        training: It is changed and changed back.
        folder: Where caches that are tried lie; they hold the videos of these steps.
    """
    changes, source = [], training.dataset.source
    if isinstance(source, DecodedClips) and not isinstance(source.open_video, FrameStore):
        changes += [_frame_store(training, folder, "jpeg"), _frame_store(training, folder, "uint8")]
    features = _feature_cache(training, folder)
    if features is not None:
        changes.append(features)
    changes.append(
        Change(
            "channels_last",
            "module.to(memory_format=torch.channels_last) before fit",
            lambda: _channels_last(training.module),
        )
    )
    if str(training.experiment.trainer.precision) == "32-true":
        changes.append(Change("bf16", "--trainer.precision bf16-mixed", lambda: _bfloat16(training)))
    return changes


def _frame_store(training: TrainingSteps, folder: Path, encoding: Literal["jpeg", "uint8"]) -> Change:
    options, short_side = training.data.loader, training.dataset.clip["resize"]
    paths = sorted({training.dataset.records[_position(key)].path for batch in training.batches for key in batch})
    settings = FrameSettings(short_side, encoding, reader=training.dataset.reader)
    fill_frame_store(paths, folder / encoding, settings, lambda: SafeOpener(options.sandbox, options.decode_timeout))
    store = FrameStore.open(folder / encoding, otherwise=training.dataset.open_video)
    advice = f"temporal-attn cache frames --short_side {short_side} --encoding {encoding}, then data.loader.frames"

    @contextmanager
    def made() -> Iterator[None]:
        source = training.dataset.source
        assert isinstance(source, DecodedClips)
        before, source.open_video = source.open_video, store
        yield
        source.open_video = before

    return Change(f"frame store, {encoding}", advice, made)


def _feature_cache(training: TrainingSteps, folder: Path) -> Change | None:
    """None where nothing is frozen for good."""
    model, features = training.model, training.experiment.features
    if model is None or model.backbone.frozen == "none" or training.module.hparams.get("unfreeze_epoch") is not None:
        return None
    before = training.data.cache_dir
    training.data.cache_dir = str(folder)
    store = features.store(training.data, training.dataset, model)
    training.data.cache_dir = before
    failed: dict[str, str] = {}
    model.eval()
    for batch in training.batches:
        records = [training.dataset.records[_position(key)] for key in batch]
        features.compute(records, training.data, training.dataset, store, model, failed)
    model.train()
    cached = CachedFeatures(store, failed)

    @contextmanager
    def made() -> Iterator[None]:
        source, training.dataset.source = training.dataset.source, cached
        yield
        training.dataset.source = source

    return Change("feature cache", "data.cache_dir, filled once by temporal-attn cache features", made)


@contextmanager
def _channels_last(module: pl.LightningModule) -> Iterator[None]:
    module.to(memory_format=torch.channels_last)
    yield
    module.to(memory_format=torch.contiguous_format)


@contextmanager
def _bfloat16(training: TrainingSteps) -> Iterator[None]:
    before, training.precision = training.precision, lambda: torch.autocast(training.device.type, torch.bfloat16)
    yield
    training.precision = before


def _position(key: Any) -> int:  # noqa: ANN401 - a number, or a tuple that begins with one
    return int(key[0]) if isinstance(key, tuple) else int(key)
