"""Clips that are told apart by their brightness, a small module that learns them, and a Trainer that keeps quiet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.module import VideoClassificationModule

CLASSES = ["jump", "run"]


class Clips(torch.utils.data.Dataset[dict[str, Any]]):
    """Clips whose class is their brightness: learnable in a few steps. Only video and label, as a stranger's would."""

    def __init__(self, size: int = 16, frames: int = 3, side: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        self.label = torch.arange(size) % 2
        noise = torch.randint(0, 60, (size, frames, 3, side, side), generator=generator)
        self.video = (noise + 150 * self.label[:, None, None, None, None]).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.video[index], "label": self.label[index]}


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(Clips(), batch_size=4, **options)


def module(**options: Any) -> VideoClassificationModule:
    settings: dict[str, Any] = {"class_names": CLASSES, "backbone": "test_resnet", "dim": 32, "heads": 4, "depth": 1}
    return VideoClassificationModule(**{**settings, **options})


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "default_root_dir": str(folder),
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(**{**settings, **options})


class Numbered(Clips):
    """Clips that say which video they are: what a loader needs for exact results on several processes."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = f"v{index}"
        return {**super().__getitem__(index), "index": index, "view_id": 0, "video_id": name, "group": name}
