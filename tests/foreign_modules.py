"""Somebody's Lightning modules, and a datamodule of small videos to run them with."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import nn

from datamodules import FolderDataModule
from datamodules.options import ClipOptions, LoaderOptions
from tests.videos import numbered_frames, write_video

CLASSES = ("archery", "diving", "swing")
CLIP = ClipOptions(num_frames=2, resize=24, crop=16)


class Foreign(pl.LightningModule):
    """Somebody's module: knows nothing of this project, keeps what it is fed."""

    def __init__(self, num_classes=3, lr=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.head = nn.Linear(3, num_classes)
        self.lr = lr
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def forward(self, batch):
        return self.head(batch["video"].float().div(255).mean((1, 3, 4)))

    def step(self, batch, split):
        self.seen[split].append({"epoch": self.current_epoch, **batch})
        if len(batch["label"]) == 0:
            return None
        return nn.functional.cross_entropy(self(batch), batch["label"])

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def predict_step(self, batch, batch_idx):
        self.seen["predict"].append(batch)
        return self(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Remembering(Foreign):
    """A module that keeps class names and clip in its checkpoint, and has them back only after setup."""

    class_names = None
    clip_spec = None

    def on_fit_start(self):
        self.class_names, self.clip_spec = self.trainer.datamodule.class_names, self.trainer.datamodule.clip_spec

    def on_save_checkpoint(self, checkpoint):
        checkpoint["data"] = {"class_names": self.class_names, "clip_spec": dict(self.clip_spec)}

    def on_load_checkpoint(self, checkpoint):
        self.class_names, self.clip_spec = checkpoint["data"]["class_names"], checkpoint["data"]["clip_spec"]


def make_trainer(folder, **options):
    return pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, **options},
    )


def class_folders(folder):
    """Five short videos for each class, each of a group of its own."""
    for number, name in enumerate(CLASSES):
        (folder / "videos" / name).mkdir(parents=True)
        for group in range(5):
            frames = numbered_frames(6, height=32, width=48, first=100 * number + 10 * group)
            write_video(folder / "videos" / name / f"v_g{group:02d}_c01.mp4", frames)
    return folder / "videos"


def make(root, num_workers=0, batch_size=2, **options):
    loader = LoaderOptions(batch_size=batch_size, num_workers=num_workers)
    return FolderDataModule(str(root), clip=CLIP, loader=loader, **options)


def names(batches):
    return [name for batch in batches for name in batch["video_id"]]
