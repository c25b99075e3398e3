"""The demo from rendering to report.

Most classes of the videos are each other's time reversal, so that no model without order can exceed a known accuracy,
and the others show in three known frames only, so that frame scores can be judged. Two models with the same backbone,
epochs and rates are trained: one averages its frames, the other attends over time.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import SyntheticDataModule
from datamodules.dataset import ClipSource
from datamodules.options import ClipOptions, LoaderOptions
from datamodules.synthetic import key_frames
from temporal_attn.demo.report import render_demo
from temporal_attn.demo.result import DemoResult, Event, Run
from temporal_attn.inference import LoadedClassifier, load_classifier
from temporal_attn.keyframes import Inspection, inspect_video
from temporal_attn.module import VideoClassificationModule
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError, VideoRecord

__all__ = ["run_demo"]

log = logging.getLogger(__name__)


def run_demo(
    out: str = "demo",
    root: str | None = None,
    epochs: int = 12,
    train_groups: int = 24,
    val_groups: int = 4,
    test_groups: int = 10,
    batch_size: int = 8,
    seed: int = 0,
) -> int:
    """Render videos, train and test two models, find key frames, and write a report of it all.

    Progress goes to stderr, the outcome to stdout.

    Args:
        out: Folder for report.html, metrics.json and checkpoint.ckpt.
        root: Folder for the videos; null takes one in the user's cache folder.
        epochs: Passes over the training videos, for each model.
        train_groups: Looks of scenes to train on, 16 videos each.
        val_groups: Looks to watch the training on.
        test_groups: Looks to test on; training never sees them.
        batch_size: Videos in a training batch.
        seed: Of weights, order and every other draw of the training.

    Returns:
        Exit status 0.

    Raises:
        UserError: A number is too small, or the folder cannot be written.
    """
    settings = {
        "epochs": epochs,
        "train_groups": train_groups,
        "val_groups": val_groups,
        "test_groups": test_groups,
        "batch_size": batch_size,
        "seed": seed,
    }
    for name in ("epochs", "val_groups"):
        if settings[name] < 1:
            raise UserError(f"{name} is {settings[name]}; it has to be 1 or more")
    started = time.perf_counter()
    folder = writable_folder(out, "--out")
    data = SyntheticDataModule(
        clip=ClipOptions(num_frames=16, resize=48, crop=48),
        root=root,
        train_groups=train_groups,
        val_groups=val_groups,
        test_groups=test_groups,
        loader=LoaderOptions(batch_size=batch_size),
        seed=seed,
    )
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its notes would drown the epochs
    log.info("videos in %s", data.library.folder)
    data.prepare_data()
    for split in data.groups:
        dataset = data.dataset(split)
        dataset.source = _Remembered(dataset.source)
    with _one_thread():
        mean_pool, _ = _train_and_test("mean", data, epochs, seed)
        temporal, trainer = _train_and_test("transformer", data, epochs, seed)
        checkpoint = folder / "checkpoint.ckpt"
        trainer.save_checkpoint(checkpoint, weights_only=True)
        log.info("asking which frames decided")
        loaded = load_classifier(checkpoint)
        events, pair = _inspect_events(loaded, data), _inspect_pair(loaded, data)
    result = DemoResult(
        task=data.library.task.name,
        bound=data.library.task.frame_average_bound,
        mean_pool=mean_pool,
        temporal=temporal,
        events=events,
        pair=pair,
        settings=settings,
        seconds=time.perf_counter() - started,
    )
    (folder / "metrics.json").write_text(json.dumps(result.metrics(), indent=2) + "\n", encoding="utf-8")
    report = folder / "report.html"
    report.write_text(render_demo(result), encoding="utf-8", newline="\n")
    print(_table(result))
    print(report)
    return 0


@contextmanager
def _one_thread() -> Iterator[None]:
    """The net is so small that threads mostly wait for each other; on a busy machine they multiply the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Remembered:
    """A clip source that decodes each video once: these clips hold all frames of their video, so none is drawn."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source
        self.clips: dict[str, dict[str, Tensor]] = {}

    def __call__(self, record: VideoRecord, rng: np.random.Generator) -> dict[str, Tensor]:
        if record.id not in self.clips:
            self.clips[record.id] = self.source(record, rng)
        return self.clips[record.id]


class _Progress(pl.Callback):
    """Loss and validation accuracy of each epoch, kept, and told as a line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loss: list[float] = []
        self.accuracy: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = trainer.callback_metrics
        self.loss.append(values["train/loss"].item())
        self.accuracy.append(values["val/top1"].item())
        epoch = f"epoch {len(self.loss)} of {trainer.max_epochs}"
        log.info("%s: %s, loss %.3f, validation %.1f %%", self.name, epoch, self.loss[-1], 100 * self.accuracy[-1])


def _train_and_test(temporal: str, data: SyntheticDataModule, epochs: int, seed: int) -> tuple[Run, pl.Trainer]:
    started = time.perf_counter()
    pl.seed_everything(seed, verbose=False)
    module = VideoClassificationModule(
        class_names=data.class_names,
        clip_spec=dict(data.clip_spec),
        backbone="test_resnet",  # 0.4 M parameters: learns from nothing on a CPU
        attention="cbam",
        attention_at="stage",
        temporal=temporal,
        dim=64,
        heads=4,
        dropout=0.0,
        drop_path=0.0,
        lr=3e-3,
        backbone_lr=3e-3,  # nothing in it was learned before
        warmup=0.15,
        label_smoothing=0.0,
    )
    progress = _Progress({"mean": "mean of frames", "transformer": "attention over time"}[temporal])
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[progress],
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        # The videos are small: decoding them here is faster than starting workers.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
    assert module.test_summary is not None
    return Run(progress.loss, progress.accuracy, module.test_summary, time.perf_counter() - started), trainer


def _inspect_events(loaded: LoadedClassifier, data: SyntheticDataModule) -> list[Event]:
    """Every test video in which known frames decide, asked about its true class."""
    events = []
    for record in data.catalogue.records["test"]:
        truth = key_frames(record.path)
        if truth:
            assert isinstance(record.label, int)
            name = loaded.class_names[record.label]
            events.append(Event(inspect_video(loaded, record.path, target=name), truth))
    return events


def _inspect_pair(loaded: LoadedClassifier, data: SyntheticDataModule) -> list[Inspection]:
    """A test video and the same played backwards, asked about what the model predicts."""
    library, group = data.library, data.groups["test"][0]
    return [inspect_video(loaded, library.path(name, group, clip=1)) for name in library.task.pairs[0]]


def _table(result: DemoResult) -> str:
    """The outcome in a few lines of plain text."""
    rows = [
        ("attention over time, top-1", f"{result.temporal.top1:6.1%}"),
        ("mean of frames, top-1", f"{result.mean_pool.top1:6.1%}"),
        ("best possible without order", f"{result.bound:6.1%}"),
        ("key frames, AUROC", f"{result.keyframes['auroc']:6.3f}"),
    ]
    videos = f"{result.temporal.summary['videos']} test videos, {result.seconds / 60:.1f} minutes"
    return "\n".join([videos, *(f"{name:<28} {value}" for name, value in rows)])
