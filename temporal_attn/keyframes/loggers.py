"""A picture into any Lightning logger: there is no common call for media, so each kind is asked in its own way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from temporal_attn.keyframes.pictures import Image, png

__all__ = ["log_picture"]


def log_picture(loggers: Iterable[Logger], folder: Path, name: str, image: Image, epoch: int, step: int) -> Path:
    """Log a picture to TensorBoard, Weights & Biases and MLflow, and write it as a file for all others.

    Args:
        loggers: Those of the Trainer; kinds without media are passed over.
        folder: Of the run; the file is ``folder/<name>/epoch_<epoch>.png``.
        name: Tag of the picture, with slashes.
        image: (H, W, 3) uint8 RGB.
        epoch: Of the picture.
        step: Global step.

    Returns:
        The file.
    """
    for logger in loggers:
        # Their experiments are typed as any: none of the three programs need be installed.
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, image, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [image], step=step)
        elif isinstance(logger, MLFlowLogger):
            run: Any = logger.experiment
            run.log_image(logger.run_id, image, artifact_file=f"{name}/epoch_{epoch:04d}.png")
    path = folder / name / f"epoch_{epoch:04d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(image))
    return path
