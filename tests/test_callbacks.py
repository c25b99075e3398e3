"""Callbacks with a stranger's model and loader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.callbacks import BestCheckpoint, MetricsWriter, PredictionWriter, callbacks_from_env
from temporal_attn.types import UserError


class Stranger(pl.LightningModule):
    """Somebody else's module: nothing in it knows of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.net(batch).square().mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/top1", self.net(batch).mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("accuracy", 0.25)

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch).softmax(1)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, *callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, BestCheckpoint) for c in callbacks),
    )


def loader() -> DataLoader[Any]:
    return DataLoader(torch.randn(10, 4), batch_size=4)  # type: ignore[arg-type]


def test_metrics_of_a_stranger(tmp_path: Path) -> None:
    writer = MetricsWriter()
    trainer(tmp_path, writer).test(Stranger(), loader(), verbose=False)
    assert writer.path == str(tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"] == 0.25


def test_predictions_of_a_stranger(tmp_path: Path) -> None:
    writer = PredictionWriter()
    net = Stranger()
    batches = trainer(tmp_path, writer).predict(net, loader())
    assert batches is not None
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["video_id"] for row in rows] == [str(i) for i in range(10)]
    expected = torch.cat([batch for batch in batches])  # type: ignore[arg-type]
    assert torch.allclose(torch.tensor([row["probabilities"] for row in rows]), expected)
    assert [row["class"] for row in rows] == expected.argmax(1).tolist()


def test_predictions_start_anew(tmp_path: Path) -> None:
    for _ in range(2):
        trainer(tmp_path, PredictionWriter()).predict(Stranger(), loader())
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 10


def test_best_and_last_lie_in_the_run(tmp_path: Path) -> None:
    trainer(tmp_path, BestCheckpoint()).fit(Stranger(), loader(), loader())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    # a second run replaces them instead of numbering its own
    trainer(tmp_path, BestCheckpoint()).fit(Stranger(), loader(), loader())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_best_without_validation_is_the_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, BestCheckpoint()).fit(Stranger(), loader())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert "nothing to validate on" in caplog.text


class Declining(Stranger):
    """Worse in every epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/top1", float(-self.current_epoch))


def test_the_last_epoch_is_kept_where_an_earlier_one_is_best(tmp_path: Path) -> None:
    trainer(tmp_path, BestCheckpoint()).fit(Declining(), loader(), loader())
    epochs = {
        name: torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": 0, "last": 1}


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        trainer(tmp_path / "file" / "run", MetricsWriter()).test(Stranger(), loader())


def test_entry_point_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEMPORAL_ATTN_CALLBACKS", raising=False)
    assert callbacks_from_env() == []


def test_entry_point_adds_what_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TEMPORAL_ATTN_CALLBACKS", "metrics, nonsense ,predictions")
    assert [type(callback) for callback in callbacks_from_env()] == [MetricsWriter, PredictionWriter]
    assert "nonsense" in caplog.text


@pytest.mark.parametrize(("value", "expected"), [("", "[]"), ("metrics", "['MetricsWriter']")])
def test_every_trainer_of_the_environment(value: str, expected: str) -> None:
    """The installed entry point, in a process of its own."""
    code = (
        "import pytorch_lightning as pl; t = pl.Trainer(logger=False, enable_checkpointing=False,"
        "enable_progress_bar=False, enable_model_summary=False, accelerator='cpu');"
        "print([type(c).__name__ for c in t.callbacks if type(c).__module__.startswith('temporal_attn')])"
    )
    import os

    environment = {**os.environ, "TEMPORAL_ATTN_CALLBACKS": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == expected


def test_rows_below_a_threshold_are_marked(tmp_path: Path) -> None:
    trainer(tmp_path, PredictionWriter(abstain_below=0.5)).predict(Stranger(), loader())
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["abstained"] for row in rows] == [max(row["probabilities"]) < 0.5 for row in rows]
    assert {row["abstained"] for row in rows} == {True, False}
    with pytest.raises(UserError, match="abstain_below"):
        PredictionWriter(abstain_below=2)


def test_a_stranger_has_no_rows_of_a_test(tmp_path: Path) -> None:
    trainer(tmp_path, MetricsWriter()).test(Stranger(), loader(), verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
