"""Rendered videos with known answers: the data set that needs no download."""

from datamodules.synthetic.datamodule import TASKS, SyntheticDataModule, frame_average_bound
from datamodules.synthetic.library import key_frames

__all__ = ["TASKS", "SyntheticDataModule", "frame_average_bound", "key_frames"]
