"""The weight average against one computed by hand beside a real training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from temporal_attn.callbacks import BestCheckpoint
from temporal_attn.ema import ExponentialMovingAverage
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError

CLASSES = ["jump", "run"]


class Data(pl.LightningDataModule):
    """Eight clips; the module learns its classes from here."""

    class_names = CLASSES
    clip_spec = {"num_frames": 2}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        video = torch.randint(256, (8, 2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        self.clips = TensorDataset(video, torch.arange(8) % 2)

    def _loader(self) -> DataLoader[Any]:
        def collate(items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
            video, label = zip(*items, strict=True)
            return {"video": torch.stack(video), "label": torch.stack(label)}

        generator = torch.Generator().manual_seed(0)  # leaves the global one, of dropout, alone
        return DataLoader(self.clips, batch_size=2, collate_fn=collate, generator=generator)

    train_dataloader = val_dataloader = _loader


class Watch(pl.Callback):
    """Remembers the weights after each step, and those that are validated."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    @staticmethod
    def _copy(net: pl.LightningModule) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in net.state_dict().items()}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.steps.append(self._copy(pl_module))

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.validated.append(self._copy(pl_module))


def module(**options: Any) -> VideoClassificationModule:
    pl.seed_everything(0, verbose=False)
    settings = {"backbone": "test_resnet", "dim": 16, "heads": 2, "depth": 1, "lr": 1e-2, "backbone_lr": 1e-2}
    return VideoClassificationModule(**{**settings, **options})


def fit(
    folder: Path, net: VideoClassificationModule, epochs: int, ckpt: str | None = None, until: int | None = None
) -> tuple[pl.Trainer, Watch]:
    watch = Watch()
    keep = BestCheckpoint(monitor="val/loss", mode="min")
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[watch, keep, *([Stop(until)] if until is not None else [])],
    )
    trainer.fit(net, datamodule=Data(), ckpt_path=ckpt)
    return trainer, watch


class Stop(pl.Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def by_hand(steps: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """The recurrence in double precision; counters are those of the last step."""
    average = {name: value.double() for name, value in steps[0].items()}
    for done, weights in enumerate(steps[1:], 1):
        kept = min(decay, (1 + done) / (10 + done))
        for name, value in weights.items():
            is_float = value.is_floating_point()
            average[name] = kept * average[name] + (1 - kept) * value.double() if is_float else value.double()
    return average


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VideoClassificationModule, pl.Trainer, Watch]:
    folder = tmp_path_factory.mktemp("ema")
    net = module(ema_decay=0.3)  # after seven steps the warmup of the decay is over
    trainer, watch = fit(folder, net, 3)
    return folder, net, trainer, watch


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.allclose(value.double(), expected[name].double(), rtol=1e-5, atol=1e-6), name


def test_the_average_is_validated_kept_and_returned(averaged: Any) -> None:
    folder, net, trainer, watch = averaged
    assert len(watch.steps) == 12
    expected = by_hand(watch.steps, 0.3)
    assert_same(watch.validated[0], by_hand(watch.steps[:4], 0.3))
    assert_same(watch.validated[-1], expected)
    assert_same(net.state_dict(), expected)
    trainer.save_checkpoint(folder / "after.ckpt")
    assert_same(torch.load(folder / "after.ckpt", weights_only=True)["state_dict"], expected)
    head = "model.head.1.weight"
    assert not torch.allclose(net.state_dict()[head], watch.steps[-1][head], atol=1e-5)


def test_best_ckpt_holds_the_average_of_its_epoch(averaged: Any) -> None:
    folder, _, trainer, watch = averaged
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    expected = by_hand(watch.steps[: best["global_step"]], 0.3)
    assert_same(best["state_dict"], expected)
    assert_same(best["current_model_state"], watch.steps[best["global_step"] - 1])
    again = VideoClassificationModule.load_from_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert_same(again.state_dict(), expected)
    (result,) = trainer.validate(again, datamodule=Data(), verbose=False)
    assert result["val/loss"] == pytest.approx(float(trainer.checkpoint_callback.best_model_score), rel=1e-5)


def test_training_goes_on_with_the_weights_themselves(averaged: Any) -> None:
    """The average is swapped in for validation only: without one, the steps are the same."""
    _, _, _, watch = averaged
    folder = averaged[0] / "plain"
    _, plain = fit(folder, module(), 3)
    for step, other in zip(watch.steps, plain.steps, strict=True):
        for name, value in step.items():
            assert torch.equal(value, other[name]), name


def test_a_resumed_average_is_that_of_an_uninterrupted_run(averaged: Any, tmp_path: Path) -> None:
    _, whole, _, _ = averaged
    fit(tmp_path, module(ema_decay=0.3), 3, until=1)
    resumed = module(ema_decay=0.3)
    fit(tmp_path / "rest", resumed, 3, ckpt=str(tmp_path / "checkpoints" / "last.ckpt"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_what_is_frozen_stays_bit_for_bit(tmp_path: Path) -> None:
    """The name of a feature cache is a digest of the frozen weights."""
    net = module(ema_decay=0.9, freeze="layer3", attention_at="stage", attention_stages=[4])
    _, watch = fit(tmp_path, net, 2)
    frozen = [name for name in watch.steps[0] if ".net.layer1." in name or ".net.conv1." in name]
    assert frozen
    for name in frozen:
        assert torch.equal(net.state_dict()[name], watch.steps[0][name]), name


def test_the_average_moves_by_its_equation() -> None:
    average = ExponentialMovingAverage(0.9)
    one, other = torch.zeros(3), torch.full((3,), 8.0)
    count, counted = torch.tensor(3), torch.tensor(7)
    for steps, expected in ((1, 8 * 9 / 11), (10_000, 0.8)):
        moved, copied = one.clone(), count.clone()
        average._average([moved], [other], steps)
        average._average([copied], [counted], steps)
        assert torch.allclose(moved, torch.full((3,), expected))
        assert int(copied) == 7


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        ExponentialMovingAverage(decay)
    with pytest.raises(UserError, match="ema_decay"):
        module(ema_decay=decay)


def test_a_finished_training_that_is_resumed_returns_the_average(averaged: Any, tmp_path: Path) -> None:
    folder, net, _ = averaged[:3]
    whole = {name: value.clone() for name, value in net.state_dict().items()}
    again = module(ema_decay=0.3)
    fit(tmp_path, again, 3, ckpt=str(folder / "checkpoints" / "last.ckpt"))
    assert_same(dict(again.state_dict()), whole)


def test_weights_too_narrow_for_an_average_are_refused(tmp_path: Path) -> None:
    trainer = pl.Trainer(
        default_root_dir=str(tmp_path), precision="bf16-true", max_epochs=1, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"ema_decay: .*bfloat16"):
        trainer.fit(module(ema_decay=0.9), datamodule=Data())
