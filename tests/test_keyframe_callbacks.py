"""Frame scores inside a Trainer: strips while it validates, and every predicted video exactly once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader, Dataset

from temporal_attn.keyframes import FrameGame, score_frames
from temporal_attn.keyframes.callback import KeyframeCallback
from temporal_attn.keyframes.loggers import log_picture
from temporal_attn.keyframes.writer import KeyframeWriter
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError


class Clips(Dataset[dict[str, Any]]):
    """Six clips of noise."""

    def __init__(self, count: int = 6) -> None:
        self.video = torch.randint(0, 256, (count, 4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {
            "video": self.video[position],
            "label": position % 3,
            "index": position,
            "pts": torch.arange(4) / 2.0,
            "frame_index": torch.arange(4) * 5,
            "video_id": f"class/{position}",
        }


def loader(count: int = 6) -> DataLoader[Any]:
    return DataLoader(Clips(count), batch_size=2)


@pytest.fixture
def module() -> VideoClassificationModule:
    torch.manual_seed(0)
    return VideoClassificationModule(
        class_names=["zero", "one", "two"], backbone="test_resnet", weights="none", dim=32, heads=4
    )


def trainer(folder: Path, *callbacks: pl.Callback, logger: Any = False, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        logger=logger,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in sorted(folder.glob("part-*")) for line in part.read_text().splitlines()]


@pytest.mark.parametrize("method", ["loo+loi", "grad_pool", "ig"])
def test_a_strip_a_clip_and_epoch(tmp_path, module, method):
    logger = CSVLogger(tmp_path, name="run")
    run = trainer(tmp_path, KeyframeCallback(clips=[1, 4], method=method), logger=logger, max_epochs=2)
    run.fit(module, loader(), loader())
    folder = Path(logger.log_dir) / "keyframes"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert files == [f"class_{clip}/epoch_000{epoch}.png" for clip in (1, 4) for epoch in (0, 1)]
    assert Image.open(folder / files[0]).width >= 4 * 128


def test_validation_gives_the_same_numbers_with_the_callback(tmp_path, module):
    plain, watched = (trainer(tmp_path, *more) for more in ((), (KeyframeCallback(method="grad_pool"),)))
    assert plain.validate(module, loader(), verbose=False) == watched.validate(module, loader(), verbose=False)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_strips_every_other_epoch(tmp_path, module):
    callback = KeyframeCallback(every_n_epochs=2)
    trainer(tmp_path, callback, max_epochs=3).fit(module, loader(2), loader(2))
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["epoch_0000.png", "epoch_0002.png"]


def test_each_logger_is_asked_in_its_own_way(tmp_path, monkeypatch):
    calls: list[tuple[str, tuple[Any, ...]]] = []

    class Experiment:
        def add_image(self, *args: Any, dataformats: str) -> None:
            calls.append(("tensorboard", (*args, dataformats)))

        def log_image(self, *args: Any, artifact_file: str) -> None:
            calls.append(("mlflow", (*args, artifact_file)))

    loggers = [object.__new__(kind) for kind in (TensorBoardLogger, WandbLogger, MLFlowLogger, CSVLogger)]
    for logger in loggers:
        monkeypatch.setattr(type(logger), "experiment", Experiment())
    monkeypatch.setattr(WandbLogger, "log_image", lambda self, *args, step: calls.append(("wandb", (*args, step))))
    monkeypatch.setattr(MLFlowLogger, "run_id", "run")
    image = np.zeros((4, 4, 3), np.uint8)
    path = log_picture(loggers, tmp_path, "keyframes/a", image, epoch=3, step=70)
    assert calls == [
        ("tensorboard", ("keyframes/a", image, 70, "HWC")),
        ("wandb", ("keyframes/a", [image], 70)),
        ("mlflow", ("run", image, "keyframes/a/epoch_0003.png")),
    ]
    assert path == tmp_path / "keyframes" / "a" / "epoch_0003.png"
    assert Image.open(path).size == (4, 4)


def test_every_video_is_scored_once_as_a_game_of_its_own(tmp_path, module):
    writer = KeyframeWriter(method="loo")
    run = trainer(tmp_path, writer)
    run.predict(module, loader(), return_predictions=False)
    table = pyarrow.parquet.read_table(tmp_path / "keyframes" / "keyframes.parquet").to_pylist()
    assert [row["id"] for row in table] == [f"class/{i}" for i in range(6) for _ in range(4)]
    assert [row["pts"] for row in table[:4]] == [0.0, 0.5, 1.0, 1.5]
    assert [row["index"] for row in table[:4]] == [0, 5, 10, 15]
    clip = Clips()[5]
    model = module.model.eval()
    with torch.no_grad():
        tokens = model.encode_frames(clip["video"][None]).tokens
        game = FrameGame(model, tokens, pts=clip["pts"][None])
        scores = score_frames(game, "loo").values
    assert [row["score"] for row in table[-4:]] == pytest.approx(scores.tolist(), abs=1e-5)
    assert table[-1]["class"] == ["zero", "one", "two"][game.target]


def test_the_backbone_sees_each_clip_once(tmp_path, module):
    maps = module.model.backbone.maps
    calls = []
    module.model.backbone.maps = lambda frames: calls.append(len(frames)) or maps(frames)
    trainer(tmp_path, KeyframeWriter(method="loo")).predict(module, loader(), return_predictions=False)
    assert calls == [8, 8, 8], "two clips of four frames a batch, for the prediction"


def test_a_backbone_that_mixes_time_is_scored_by_its_frames(tmp_path):
    torch.manual_seed(0)
    mixed = VideoClassificationModule(
        class_names=["zero", "one", "two"], backbone="test_resnet", dim=8, heads=2, motion="shift"
    )
    trainer(tmp_path, KeyframeWriter(method="loi")).predict(mixed, loader(), return_predictions=False)
    row = pyarrow.parquet.read_table(tmp_path / "keyframes" / "keyframes.parquet").to_pylist()[1]
    clip, model = Clips()[0], mixed.model.eval()
    with torch.no_grad():
        game = FrameGame(model, model.encode_frames(clip["video"][None]).tokens, pts=clip["pts"][None])
        alone = model(clip["video"][None, 1:2], pts=clip["pts"][None, 1:2]).logits
    assert row["score"] == pytest.approx(float(game.worth(alone)) - game.v_empty, abs=1e-4)


def test_a_stopped_run_goes_on_and_repeats_nothing(tmp_path, module):
    folder = tmp_path / "scores"
    first = KeyframeWriter(str(folder), method="loo")
    trainer(tmp_path, first, limit_predict_batches=2).predict(module, loader(), return_predictions=False)
    shard = folder / "part-00000.jsonl"
    whole = shard.read_text().splitlines(keepends=True)
    (folder / "part-00001.jsonl").write_text(whole[3] + whole[2][:50])  # another process, stopped while it wrote
    shard.write_text("".join(whole[:2]) + whole[2][:40])
    second = KeyframeWriter(str(folder), method="loo")
    trainer(tmp_path, second).predict(module, loader(), return_predictions=False)
    assert (first.scored, second.scored) == (4, 3)
    assert sorted(row["id"] for row in rows_of_whole(folder)) == [f"class/{i}" for i in range(6)]
    table = pyarrow.parquet.read_table(folder / "keyframes.parquet")
    assert len(table) == 24
    other = KeyframeWriter(str(folder), method="loi")
    trainer(tmp_path, other).predict(module, loader(), return_predictions=False)
    assert other.scored == 6, "other settings are other scores"
    assert len(pyarrow.parquet.read_table(folder / "keyframes.parquet")) == 24


def rows_of_whole(folder: Path) -> list[dict[str, Any]]:
    found = []
    for part in sorted(folder.glob("part-*")):
        for line in part.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def test_a_failed_video_is_named_and_tried_again(tmp_path, module):
    class Broken(Clips):
        def __len__(self) -> int:
            return 1

    def collate(clips: list[dict[str, Any]]) -> dict[str, Any]:
        failed = {"id": "bad", "path": "bad.mp4", "reason": "no video stream", "label": 0, "group": "", "index": 9}
        return {**torch.utils.data.default_collate(clips), "failed": [failed]}

    folder = tmp_path / "keyframes"
    for _ in range(2):
        data = DataLoader(Broken(), batch_size=1, collate_fn=collate)
        trainer(tmp_path, KeyframeWriter(method="loo")).predict(module, data, return_predictions=False)
    assert [(row["id"], row["failed"]) for row in rows_of(folder)] == [
        ("bad", "no video stream"),
        ("class/0", None),
        ("bad", "no video stream"),
    ]


def only(*keys: str, frames: int = 4, videos: slice = slice(None), noise: int = 0) -> DataLoader[Any]:
    """Clips of which the batch says no more than this."""
    generator = torch.Generator().manual_seed(noise)
    clips = [Clips()[position] for position in range(6)][videos]
    for clip in clips:
        clip["video"] = torch.randint(0, 256, (frames, 3, 32, 32), generator=generator).byte()
        clip["pts"] = torch.arange(frames) / 2.0
    return DataLoader([{key: clip[key] for key in ("video", *keys)} for clip in clips], batch_size=2)  # type: ignore[arg-type]


def predicted(folder: Path, module: VideoClassificationModule, data: DataLoader[Any]) -> tuple[int, list[Any]]:
    """How many videos were scored, and the table."""
    writer = KeyframeWriter(str(folder), method="loo")
    trainer(folder, writer).predict(module, data, return_predictions=False)
    return writer.scored, pyarrow.parquet.read_table(folder / "keyframes.parquet").to_pylist()


def test_videos_without_a_name_are_scored_in_each_run(tmp_path, module):
    first, one = predicted(tmp_path, module, only())
    second, other = predicted(tmp_path, module, only(noise=1, videos=slice(4)))
    assert (first, second) == (6, 4)
    assert [row["id"] for row in other] == [str(i) for i in range(4) for _ in range(4)]
    assert all(a["score"] != b["score"] for a, b in zip(one, other, strict=False))


@pytest.mark.parametrize("keys", [("video_id",), ("video_id", "pts")], ids=["pixels", "seconds"])
def test_another_clip_of_a_video_is_scored_anew(tmp_path, module, keys):
    assert predicted(tmp_path, module, only(*keys))[0] == 6
    scored, table = predicted(tmp_path, module, only(*keys, frames=8))
    assert (scored, len(table)) == (6, 48)
    scored, table = predicted(tmp_path, module, only(*keys))
    assert (scored, len(table)) == (0, 24), "the scores of the shorter clips are still there"


def test_the_table_is_of_the_videos_of_this_run(tmp_path, module, caplog):
    predicted(tmp_path, module, only("video_id", videos=slice(2)))
    with caplog.at_level("INFO"):
        scored, table = predicted(tmp_path, module, only("video_id", noise=0, videos=slice(1)))
    assert (scored, {row["id"] for row in table}) == (0, {"class/0"})
    assert "1 of 1 videos were done already" in caplog.text


def test_another_temperature_is_another_score(tmp_path, module):
    assert predicted(tmp_path, module, only("video_id"))[0] == 6
    module.scoring = replace(module.scoring, temperature=2.0)
    assert predicted(tmp_path, module, only("video_id"))[0] == 6


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_scores_in_half_precision(tmp_path, module, precision):
    whole = predicted(tmp_path / "whole", module, loader())[1]
    writer = KeyframeWriter(method="loo")
    trainer(tmp_path, writer, precision=precision).predict(module, loader(), return_predictions=False)
    half = pyarrow.parquet.read_table(tmp_path / "keyframes" / "keyframes.parquet").to_pylist()
    assert writer.scored == 6
    assert [row["pts"] for row in half] == [row["pts"] for row in whole]
    assert [row["score"] for row in half] == pytest.approx([row["score"] for row in whole], abs=0.1)


@pytest.mark.slow
def test_strips_on_two_processes(tmp_path, module):
    """The logger's folder is asked of rank zero; the other process has to be there when it answers."""
    run = pl.Trainer(
        default_root_dir=str(tmp_path),
        callbacks=[KeyframeCallback(clips=(0,), method="loo")],
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(start_method="fork", timeout=timedelta(seconds=60)),
        logger=CSVLogger(str(tmp_path), version=7),
        max_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    run.fit(module, loader(), loader())
    (strip,) = tmp_path.rglob("epoch_*.png")
    assert strip.relative_to(tmp_path) == Path("lightning_logs/version_7/keyframes/class_0/epoch_0000.png")


@pytest.mark.slow
def test_two_processes_share_the_videos(tmp_path, module):
    run = pl.Trainer(
        default_root_dir=str(tmp_path),
        callbacks=[KeyframeWriter(method="loo")],
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.predict(module, loader(5), return_predictions=False)
    folder = tmp_path / "keyframes"
    assert len(list(folder.glob("part-*.jsonl"))) == 2
    assert sorted(row["id"] for row in rows_of(folder)) == [f"class/{i}" for i in range(5)]
    assert len(pyarrow.parquet.read_table(folder / "keyframes.parquet")) == 20


def test_a_run_that_stops_early_leaves_the_model_alone(tmp_path, module):
    class Stops(pl.Callback):
        def on_predict_batch_end(self, *_: Any) -> None:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        trainer(tmp_path, KeyframeWriter(method="loo"), Stops()).predict(module, loader())
    assert not module.model.project._forward_pre_hooks


def test_a_module_that_cannot_be_asked_is_refused(tmp_path):
    class Stranger(pl.LightningModule):
        def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return torch.zeros(1)

    with pytest.raises(UserError, match="Stranger: has no model with encode_frames"):
        trainer(tmp_path, KeyframeWriter()).predict(Stranger(), loader())
    with pytest.raises(UserError, match="method"):
        KeyframeCallback(method="rays")
