"""Which epoch best.ckpt is, wherever validations and savings fall, and that last.ckpt is the end of the training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.callbacks import BestCheckpoint, mode_of


class Scored(pl.LightningModule):
    """Its n-th epoch has a given score."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 1)
        self.scores = scores

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch).square().mean()  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for name in ("val/top1", "val/loss"):
            self.log(name, self.scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def loader() -> DataLoader[Any]:
    return DataLoader(torch.randn(4, 4), batch_size=2)  # type: ignore[arg-type]


def fit(folder: Path | str, scores: list[float], keep: BestCheckpoint | None = None, **options: Any) -> dict[str, int]:
    """Train for as many epochs of two steps as there are scores; after which of them the checkpoints were saved."""
    settings: dict[str, Any] = {
        "default_root_dir": str(folder),
        "max_epochs": len(scores),
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    validation = options.pop("validation", True)
    ckpt_path = options.pop("ckpt_path", None)
    trainer = pl.Trainer(**{**settings, **options}, callbacks=[keep or BestCheckpoint()])
    trainer.fit(Scored(scores), loader(), loader() if validation else None, ckpt_path=ckpt_path)
    files = Path(folder, "checkpoints").iterdir()
    steps = {path.stem: torch.load(path, weights_only=True)["global_step"] for path in files}
    return {name: (number - 1) // 2 for name, number in steps.items()}


@pytest.mark.parametrize("every", [1, 2, 3])
def test_validating_now_and_then(tmp_path: Path, every: int):
    scores = [0.0, 0.3, 0.9, 0.5, 0.4, 0.2, 0.1]
    due = range(every - 1, len(scores), every)
    found = fit(tmp_path, scores, check_val_every_n_epoch=every)
    assert found == {"best": max(due, key=scores.__getitem__), "last": 6}


def test_several_validations_an_epoch(tmp_path: Path):
    assert fit(tmp_path, [0.1, 0.7, 0.3], val_check_interval=1)["best"] == 1


@pytest.mark.parametrize("options", [{"check_val_every_n_epoch": 5}, {"validation": False}, {"limit_val_batches": 0}])
def test_what_is_never_validated_has_its_last_epoch(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    assert fit(tmp_path, [0.1, 0.7, 0.3], **options) == {"best": 2, "last": 2}
    assert "best.ckpt is the last epoch" in caplog.text


def test_the_end_is_saved_between_two_savings(tmp_path: Path):
    keep = BestCheckpoint(every_n_epochs=2)
    assert fit(tmp_path, [0.1, 0.7, 0.8, 0.2, 0.9], keep) == {"best": 1, "last": 4}


def test_training_goes_on_behind_its_end(tmp_path: Path):
    scores = [0.1, 0.7, 0.3, 0.9, 0.2]
    assert fit(tmp_path, scores[:3], check_val_every_n_epoch=2) == {"best": 1, "last": 2}
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    assert fit(tmp_path, scores, check_val_every_n_epoch=2, ckpt_path=last) == {"best": 3, "last": 4}


def test_steps_that_end_in_mid_epoch_are_saved(tmp_path: Path):
    assert fit(tmp_path, [0.1, 0.7], max_steps=1) == {"best": 0, "last": 0}


def test_the_smallest_loss_is_the_best(tmp_path: Path):
    assert fit(tmp_path / "auto", [0.5, 0.2, 0.9], BestCheckpoint("val/loss"))["best"] == 1
    assert fit(tmp_path / "max", [0.5, 0.2, 0.9], BestCheckpoint("val/loss", "max"))["best"] == 2
    assert [mode_of(name) for name in ("val/ece", "val/nll", "val/map", "val/top1")] == ["min", "min", "max", "max"]


def test_a_resumed_run_knows_its_folder_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(tmp_path / "run", tmp_path / "link")
    scores = [0.9, 0.5, 0.4, 0.3]
    assert fit("run", scores[:1])["best"] == 0
    assert fit(tmp_path / "run", scores[:2], ckpt_path="run/checkpoints/last.ckpt") == {"best": 0, "last": 1}
    assert fit("link", scores, ckpt_path="run/checkpoints/last.ckpt") == {"best": 0, "last": 3}
