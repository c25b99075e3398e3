"""`KeyframeCallback`: a film strip each epoch, that shows what the model rests on while it learns.

It works with a LightningModule whose ``model`` has ``encode_frames`` and ``classify``, and with any loader of
`VideoBatch`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from temporal_attn.keyframes.batch_scores import calibrated, class_names_of, model_of, score_clip
from temporal_attn.keyframes.loggers import log_picture
from temporal_attn.keyframes.pictures import Image
from temporal_attn.keyframes.scores import resolve_method
from temporal_attn.keyframes.select import state_verdict
from temporal_attn.keyframes.sheets import draw_strip
from temporal_attn.keyframes.time_mixing import encode_clip
from temporal_attn.naming import video_names
from temporal_attn.types import VideoBatch

__all__ = ["KeyframeCallback"]

log = logging.getLogger(__name__)


class KeyframeCallback(pl.Callback):
    """One film strip a chosen clip and validation, as a picture into every logger and as a PNG in the run's folder.

    The strips show what the model rests on while it learns. TensorBoard, Weights & Biases and MLflow take pictures;
    with any other logger, or none, the file is what there is: ``keyframes/<video id>/epoch_0003.png``. Rank zero alone
    works, on clips of its own share; methods with gradients work too, although validation runs without.

    Args:
        clips: Positions in the validation data set.
        method: One of `temporal_attn.keyframes.names`; a quick one, because training waits.
        topk: At most so many key frames.
        every_n_epochs: Epochs between two strips.
    """

    def __init__(
        self, clips: Sequence[int] = (0,), method: str = "loo+loi", topk: int = 3, every_n_epochs: int = 1
    ) -> None:
        resolve_method(method)
        self.clips, self.method, self.topk, self.every_n_epochs = tuple(clips), method, topk, every_n_epochs
        self._seen = 0
        self._folder = Path()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count clips from the first again, and find out where the run's folder is."""
        self._seen = 0
        # Rank zero tells the others: a process that asked by itself would wait for them for ever.
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the chosen clips of this batch."""
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs:
            return
        size = len(batch["features"] if "features" in batch else batch["video"])
        running = list(range(self._seen, self._seen + size))
        self._seen += size
        index = batch["index"].tolist() if "index" in batch else running
        names = video_names(batch)
        for row, position in enumerate(index):
            if position not in self.clips:
                continue
            if "video" not in batch:
                log.warning("no strip of clip %d: the batch holds cached features and no pictures", position)
                continue
            name = f"clip_{position}" if names is None else names[row]
            self._draw(trainer, pl_module, batch, row, name)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: VideoBatch, row: int, name: str) -> None:
        model = model_of(pl_module)
        encoded = calibrated(encode_clip(model, batch["video"][row : row + 1]), pl_module)
        scored = score_clip(encoded, batch, row, self.method, self.topk)
        classes = class_names_of(pl_module, scored.game)
        target, p = classes[scored.game.target], scored.evidence.full
        times = [frame.pts for frame in scored.frames if frame.keyframe]
        image = draw_strip(
            f"{name}: {target}, p = {p:.2f}, epoch {trainer.current_epoch}",
            state_verdict(scored.evidence, target, times, (target, p)),
            scored.frames,
            _pictures(batch["video"][row, scored.game.players.to(batch["video"].device)]),
        )
        tag = f"keyframes/{_safe(name)}"
        log_picture(trainer.loggers, self._folder, tag, image, trainer.current_epoch, trainer.global_step)


def _pictures(video: Tensor) -> list[Image]:
    """Frames (P, 3, H, W) as pictures; a normalised float clip is brought back to a common range."""
    frames = video.detach()[:, :3].permute(0, 2, 3, 1).cpu()
    if frames.is_floating_point():
        low, high = frames.amin(), frames.amax()
        frames = (255 * (frames - low) / (high - low).clamp(min=1e-6)).byte()
    return list(np.asarray(frames))


def _safe(name: str) -> str:
    """A video's id as one folder name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).strip(".") or "clip"
