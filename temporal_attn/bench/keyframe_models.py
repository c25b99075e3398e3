"""Small video classifiers for the synthetic tasks of known key frames: trained once, kept in a folder.

A net of three convolutions with CBAM, two blocks of self-attention and attention pooling, trained with frame dropout,
so that a clip with frames left out is nothing new to it. Clips stay in memory as tensors and are never encoded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules.synthetic import TASKS
from temporal_attn import attention
from temporal_attn import temporal as temporal_models
from temporal_attn.optim import warmup_cosine
from temporal_attn.types import FrameFeatures, ModelOutput

__all__ = ["Clips", "SmallClassifier", "Training", "render_clips", "train_classifier"]

FRAME_RATE = 12.5
_TEST_GROUPS = 1000
"""Looks below this number are trained on, those from here on are tested on."""


class Clips(NamedTuple):
    """Rendered videos of one task.

    Args:
        video: (N, T, 3, S, S) uint8.
        label: (N,) class index.
        key: (N, T) bool, True = the frame is a key frame.
        pts: (T,) seconds.
    """

    video: Tensor
    label: Tensor
    key: Tensor
    pts: Tensor


def render_clips(task: str, groups: Sequence[int], clips: int, seed: int = 0) -> Clips:
    """Render groups of a synthetic task.

    Args:
        task: A key of `TASKS`.
        groups: Numbers of the groups.
        clips: Videos of each class in a group.
        seed: Of the videos.
    """
    names = TASKS[task].class_names
    videos = [video for group in groups for video in TASKS[task].render_group(seed, group, clips)]
    frames = torch.from_numpy(np.stack([video.frames for video in videos])).permute(0, 1, 4, 2, 3)
    key = torch.zeros(frames.shape[:2], dtype=torch.bool)
    for row, video in zip(key, videos, strict=True):
        row[list(video.key_frames)] = True
    label = torch.tensor([names.index(video.class_name) for video in videos])
    return Clips(frames.contiguous(), label, key, torch.arange(frames.shape[1]) / FRAME_RATE)


class _SmallBackbone(nn.Module):
    """Three convolutions with CBAM, an eighth of the size, and the maximum over the map."""

    width = 64

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, stride in ((3, 32, 7, 4), (32, 32, 3, 1), (32, 64, 3, 2)):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            layers += [attention.build("cbam", outputs, gate="identity")]
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 3, S, S) uint8 -> tokens (N, 64): the maximum over the map, because a glyph is somewhere, and small."""
        maps: Tensor = self.layers((frames.float() - 110) / 50)
        return maps.amax((2, 3))


class SmallClassifier(nn.Module):
    """A video classifier, frame by frame, that learns a synthetic task in a minute on a CPU.

    Args:
        num_classes: K.

    Shape:
        video (B, T, 3, S, S) uint8; logits (B, K), frame weights (B, T).
    """

    mixes_time = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = _SmallBackbone()
        width = self.backbone.width
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64))
        self.temporal = temporal_models.build("transformer", 64, heads=4, depth=2)
        self.head = nn.Linear(64, num_classes)

    def encode_frames(self, video: Tensor) -> FrameFeatures:
        """Tokens (B, T, 64) of a video (B, T, 3, S, S)."""
        return FrameFeatures(self.backbone(video.flatten(0, 1)).unflatten(0, video.shape[:2]))

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        """Logits from frame tokens (B, T, 64)."""
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        return self.classify_projected(self.project(tokens), mask, pts)

    def classify_projected(self, tokens: Tensor, mask: Tensor, pts: Tensor | None = None) -> ModelOutput:
        """Logits from tokens that ``project`` has seen."""
        pts = torch.arange(tokens.shape[1]).expand(mask.shape) if pts is None else pts
        feature, weights = self.temporal(tokens, mask, pts)
        return ModelOutput(self.head(feature), weights)

    def forward(self, video: Tensor, mask: Tensor, pts: Tensor) -> ModelOutput:
        """Logits of clips (B, T, 3, S, S); frames that ``mask`` (B, T) leaves out are not even encoded."""
        tokens = torch.zeros(*mask.shape, self.backbone.width)
        tokens[mask] = self.backbone(video[mask])
        return self.classify(tokens, mask, pts)


@dataclass(frozen=True, slots=True)
class Training:
    """How a small classifier is trained.

    Args:
        task: A key of `TASKS`.
        seed: Of weights, clips and order.
        steps: Optimiser steps.
        warm_start: Task whose model, trained with the same seed, lends its weights, see `_lend`; None starts anew.
        lr: Highest learning rate.
        label_smoothing: Keeps the logits of so easy a task from growing without end, and the model from being sure of
            what half of the key frames leave open.
        complete: Share of clips that keep all frames; the others are shown in part, so that a model which has to say
            what is left without the key frames does not learn looks by heart.
        batch: Clips in a step.
        groups: Looks to train on.
        clips: Videos of each class in a look.
    """

    task: str
    seed: int
    steps: int
    warm_start: str | None = None
    lr: float = 2e-3
    label_smoothing: float = 0.1
    complete: float = 0.25
    batch: int = 16
    groups: int = 96
    clips: int = 4

    def file(self, folder: Path) -> Path:
        """Where the model is kept; other settings have another name."""
        settings = {**asdict(self), "version": TASKS[self.task].version}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return folder / f"{self.task}-seed{self.seed}-{digest[:10]}.pt"


def train_classifier(training: Training, folder: Path, start: Path | None = None) -> SmallClassifier:
    """A classifier trained as told, from the folder where it has been trained before.

    Args:
        training: How.
        folder: Where trained models are kept.
        start: File of the model to start from.

    Returns:
        The classifier in evaluation mode.
    """
    file = training.file(folder)
    torch.manual_seed(training.seed)
    model = SmallClassifier(len(TASKS[training.task].class_names))
    if not file.is_file():
        if start is not None:
            _lend(model, training.task, torch.load(start, weights_only=True))
        _fit(model, training)
        partial = file.with_suffix(f".{os.getpid()}.part")
        torch.save(model.state_dict(), partial)
        os.replace(partial, file)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def _lend(model: SmallClassifier, task: str, weights: dict[str, Tensor]) -> None:
    """Start from a model that knows the glyphs: from all of it where classes are glyphs too.

    A class of ``set`` is the glyph that is missing, so it starts from what speaks against that glyph.
    """
    if TASKS[task].class_names != TASKS["or"].class_names:
        sign = {"set": -1.0}.get(task)
        head = {name: weights[name] * sign for name in weights if sign and name.startswith("head.")}
        weights = {name: weight for name, weight in weights.items() if not name.startswith("head.")} | head
    model.load_state_dict(weights, strict=False)


def _fit(model: SmallClassifier, training: Training) -> None:
    first = _TEST_GROUPS * training.seed  # each seed sees looks of its own
    data = render_clips(training.task, range(first, first + training.groups), training.clips)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, weight_decay=0.01)
    schedule = warmup_cosine(optimizer, training.steps // 8, training.steps)
    epochs = 1 + training.steps * training.batch // len(data.label)
    order = torch.cat([torch.randperm(len(data.label)) for _ in range(epochs)])
    model.train()
    for rows in torch.split(order, training.batch)[: training.steps]:
        mask = _leave_frames_out(len(rows), len(data.pts), training.complete)
        logits = model(data.video[rows], mask, data.pts.expand(len(rows), -1)).logits
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(logits, data.label[rows], label_smoothing=training.label_smoothing))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _leave_frames_out(clips: int, frames: int, complete: float) -> Tensor:
    """Frame dropout: masks (B, T), a share of which is complete; the others keep a random number of random frames."""
    keep = 1 + (torch.rand(clips, 1) * frames).long()
    whole = torch.rand(clips, 1) < complete
    return whole | (torch.rand(clips, frames).argsort(1).argsort(1) < keep)
