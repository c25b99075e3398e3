"""Rates over a training whose end is given in epochs, steps or time, or in no way that can be counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from temporal_attn.module import VideoClassificationModule
from temporal_attn.schedule import UNKNOWN_STEPS
from temporal_attn.types import UserError
from tests.bright_clips import trainer

BATCHES = 6


class Stream(IterableDataset[dict[str, Any]]):
    """Clips that come one after another, nobody knows how many."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(2 * BATCHES):
            yield {"video": torch.full((2, 3, 32, 32), 20 * number, dtype=torch.uint8), "label": number % 2}


def counted() -> DataLoader[Any]:
    return DataLoader(list(Stream()), batch_size=2)  # type: ignore[arg-type]


def stream() -> DataLoader[Any]:
    return DataLoader(Stream(), batch_size=2)


class Rates(pl.Callback):
    """The rate of a group at each step; it ends a training that nothing else ends."""

    def __init__(self, group: str = "head") -> None:
        self.group = group
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.seen += [group["lr"] for group in trainer.optimizers[0].param_groups if group["name"] == self.group]
        trainer.should_stop = len(self.seen) > 2 * BATCHES


def rates(folder: Path, data: DataLoader[Any], group: str = "head", **options: Any) -> list[float]:
    watch = Rates(group)
    chosen = {name: options.pop(name) for name in ("warmup", "freeze", "unfreeze_epoch") if name in options}
    net = VideoClassificationModule(
        class_names=["a", "b"], backbone="test_resnet", attention=None, dim=8, heads=2, depth=1, lr=1.0, **chosen
    )
    trainer(folder, callbacks=[watch], **options).fit(net, data)
    return watch.seen


def cosine(steps: int) -> list[float]:
    return [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]


@pytest.mark.parametrize("data", [counted, stream], ids=["counted", "stream"])
@pytest.mark.parametrize("epochs", [None, -1], ids=["no epochs", "endless"])
def test_steps_alone_give_a_cosine_over_them(tmp_path: Path, data: Any, epochs: int | None) -> None:
    found = rates(tmp_path, data(), warmup=0.0, max_steps=8, max_epochs=epochs)
    assert found == pytest.approx(cosine(8))


def test_epochs_of_a_stream_need_its_batches(tmp_path: Path) -> None:
    found = rates(tmp_path, stream(), warmup=0.0, max_epochs=2, limit_train_batches=3)
    assert found == pytest.approx(cosine(6))


@pytest.mark.parametrize(
    ("data", "options"),
    [(stream, {"max_epochs": 1}), (counted, {"max_epochs": None, "max_time": {"hours": 1}})],
    ids=["stream", "time"],
)
def test_an_unknown_number_of_steps_is_said_and_keeps_the_rate(
    tmp_path: Path, data: Any, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    found = rates(tmp_path, data(), warmup=4 / UNKNOWN_STEPS, **options)
    assert found[:BATCHES] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert set(found[BATCHES:]) <= {1.0}
    assert "trainer.max_steps" in caplog.text


def test_nothing_to_train_is_no_error(tmp_path: Path) -> None:
    assert rates(tmp_path, counted(), max_epochs=1, limit_train_batches=0) == []
    assert rates(tmp_path, counted(), max_epochs=1, limit_train_batches=0, freeze="layer3", unfreeze_epoch=1) == []


def test_an_epoch_to_unfreeze_at_needs_counted_batches(tmp_path: Path) -> None:
    frozen: dict[str, Any] = {"freeze": "layer3", "unfreeze_epoch": 1, "warmup": 0.0, "group": "backbone_later"}
    with pytest.raises(UserError, match=r"trainer\.limit_train_batches"):
        rates(tmp_path, stream(), max_steps=4, **frozen)
    found = rates(tmp_path, counted(), max_steps=BATCHES + 2, max_epochs=-1, **frozen)
    assert found[: BATCHES - 1] == [0.0] * (BATCHES - 1)
    assert found[BATCHES] > 0
