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
from temporal_attn.module import VideoClassificationModule
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


def test_metrics_that_are_no_numbers_are_null(tmp_path: Path) -> None:
    class Broken(Stranger):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("accuracy", float("nan"))

    trainer(tmp_path, MetricsWriter()).test(Broken(), loader(), verbose=False)
    assert '"accuracy": null' in (tmp_path / "metrics.json").read_text()


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


ROW = {"video_id": "a", "class": "x", "probabilities": {"x": 0.7, "y": 0.3}}
WRONG = {
    "class numbers": (lambda p: p.argmax(1), r"\(4,\) torch.int64"),
    "one value": (lambda p: p[:, 0], r"\(4,\) torch.float32"),
    "logits": (lambda p: p.log() * 3, "maybe logits"),
    "independent": (lambda p: p.clamp(min=0.5), "no probabilities"),
    "numbers": (lambda p: torch.ones_like(p).long(), "torch.int64"),
    "too many": (lambda p: torch.cat((p, p)), "8 rows for 4 videos"),
    "dict": (lambda p: {"probabilities": p}, "a dict"),
    "tuple": (lambda p: (p, p), "a tuple"),
    "list": (lambda p: list(p), "a list of Tensor"),
    "none": (lambda p: None, "a NoneType"),
    "rows": (lambda p: [{"id": 1}], "rows without video_id, class, probabilities"),
    "tensors": (lambda p: [{**ROW, "probabilities": p[0]}], "probabilities of a row are a Tensor"),
    "not json": (lambda p: [{**ROW, "video_id": p[0]}], "not JSON serializable"),
}


class Saying(Stranger):
    """Predicts something made of probabilities."""

    def __init__(self, said: Any) -> None:
        super().__init__()
        self.said = said

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.said(super().predict_step(batch, batch_idx))


def named_loader() -> DataLoader[Any]:
    return DataLoader([{"x": torch.randn(4), "video_id": i + 7} for i in range(4)], batch_size=4)  # type: ignore[arg-type]


class Named(Saying):
    """Of batches that are dicts."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return super().predict_step(batch["x"], batch_idx)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_prediction_is_refused(tmp_path: Path, case: str) -> None:
    said, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, PredictionWriter()).predict(Named(said), named_loader())


def test_an_uninvited_writer_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEMPORAL_ATTN_CALLBACKS", "predictions")
    (writer,) = callbacks_from_env()
    monkeypatch.delenv("TEMPORAL_ATTN_CALLBACKS")  # or each Trainer brings one more
    batches = trainer(tmp_path, writer).predict(Saying(lambda p: p.argmax(1)), loader())
    assert len(batches or []) == 3
    assert caplog.text.count("no predictions are written") == 1
    assert (tmp_path / "predictions.jsonl").read_text() == ""
    trainer(tmp_path, writer).predict(Stranger(), loader())
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 10


def test_rows_of_a_stranger_and_numbers_as_names(tmp_path: Path) -> None:
    trainer(tmp_path, PredictionWriter()).predict(Saying(lambda p: [ROW] * len(p)), loader())
    assert [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()] == [ROW] * 10
    trainer(tmp_path, PredictionWriter()).predict(Named(lambda p: p), named_loader())
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["video_id"] for row in rows] == ["7", "8", "9", "10"]


def test_two_processes_name_no_two_videos_alike(tmp_path: Path) -> None:
    run = pl.Trainer(
        default_root_dir=str(tmp_path), callbacks=[PredictionWriter()], accelerator="cpu", devices=2,
        strategy="ddp_fork", logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    run.predict(Stranger(), loader(), return_predictions=False)
    files = [(tmp_path / f"predictions-{rank}.jsonl").read_text().splitlines() for rank in (0, 1)]
    ids = [[json.loads(line)["video_id"] for line in lines] for lines in files]
    assert ids == [[str(i) for i in range(rank, 10, 2)] for rank in (0, 1)]


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


@pytest.mark.parametrize(("loss", "monitored"), [("binary", "val/map"), ("cross_entropy", "val/top1")])
def test_the_best_epoch_is_that_of_what_the_loss_is_for(tmp_path: Path, loss: str, monitored: str) -> None:
    """Half of the videos have no class, and there is but one: only its average precision can tell epochs apart."""
    generator = torch.Generator().manual_seed(0)
    classes = ["fight"] if loss == "binary" else ["fight", "none"]
    rows = [
        {"video": torch.randint(0, 256, (2, 3, 32, 32), generator=generator).byte(), "label": label}
        for label in ([torch.tensor([float(i % 2)]) for i in range(8)] if loss == "binary" else [0, 1] * 4)
    ]
    data: Any = DataLoader(rows, batch_size=4)  # type: ignore[arg-type]
    net = VideoClassificationModule(
        class_names=classes, loss=loss, backbone="test_resnet", attention=None, dim=8, heads=2, depth=1
    )
    keep = BestCheckpoint()
    run = trainer(tmp_path, keep)
    run.fit(net, data, data)
    assert keep.monitor == monitored
    assert keep.best_model_score == max(run.callback_metrics[monitored], keep.best_model_score)  # type: ignore[type-var]
    assert ("val/map" in run.callback_metrics) == (loss == "binary")
    assert run.callback_metrics["val/top1"] == 1.0 or loss != "binary"


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


@pytest.mark.parametrize("invited_first", [True, False])
def test_an_uninvited_writer_leaves_the_file_to_the_one_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invited_first: bool
) -> None:
    monkeypatch.setenv("TEMPORAL_ATTN_CALLBACKS", "predictions")
    (writer,) = callbacks_from_env()
    monkeypatch.delenv("TEMPORAL_ATTN_CALLBACKS")
    both = [PredictionWriter(), writer]
    trainer(tmp_path, *(both if invited_first else both[::-1])).predict(Stranger(), loader())
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 10
