"""Videos with known answers, rendered and encoded on first use: nothing to download, nothing to label.

Example:
    >>> data = SyntheticDataModule(task="actions")
    >>> data.num_classes
    8
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import Account, Catalogue, RecordTable
from datamodules.synthetic.actions import ACTIONS
from datamodules.synthetic.evidence import EVENT, OR, ORDER, SET, WEAK
from datamodules.synthetic.library import Library
from datamodules.synthetic.tasks import Task
from temporal_attn.types import UserError, VideoRecord

__all__ = ["TASKS", "SyntheticDataModule", "frame_average_bound"]

TASKS = {task.name: task for task in (ACTIONS, OR, SET, WEAK, ORDER, EVENT)}


def _task(name: str) -> Task:
    if name not in TASKS:
        raise UserError(f"task {name!r} is not known; choose one of: {', '.join(TASKS)}")
    return TASKS[name]


def frame_average_bound(task: str) -> float:
    """Best accuracy that a model which ignores the order of frames can have on a task, see `Task`.

    Raises:
        UserError: There is no such task.

    Example:
        >>> frame_average_bound("actions")
        0.625
    """
    return _task(task).frame_average_bound


class SyntheticDataModule(VideoDataModule):
    """Rendered videos, encoded to real files once and kept in a folder.

    Groups are numbered through: first those of the test, then validation, then training, so that more training groups
    leave the test as it is. Each group has its own look; the test shows looks that training never saw.

    Args:
        task: ``actions``: three pairs of classes that are each other's time reversal, and two classes that show in
            three key frames only. In the others three key frames decide every class: any one of them (``or``, and
            ``event``, where they follow one another), all together (``set``), their sum (``weak``), their ``order``.
        root: Folder for the videos; None takes ``temporal_attn/synthetic`` in the user's cache folder.
        train_groups: Looks to train on.
        val_groups: Looks to validate on.
        test_groups: Looks to test on.
        clips_per_group: Videos of each class in a group.
        video_seed: Decides the videos; `seed` decides what training does with them.
        clip: How frames are picked and sized. The default takes every frame.
        augment: What training does to clips. A flip would turn left into right, so the default has none.
        loader: Batch size and workers.
        reader: ``auto``, or one engine for all files: ``decord``, ``pyav`` or ``torchcodec``.
        seed: Decides the order of epochs, and every random draw of training.
        cache_dir: Folder for what callbacks may store of the data set; None stores nothing.
        predict_paths: Files, folders and glob patterns of `predict`; None predicts on the test part.

    Raises:
        UserError: The task is not known, or a number is too small.
    """

    def __init__(
        self,
        task: Literal["actions", "or", "set", "weak", "order", "event"] = "actions",
        root: str | None = None,
        train_groups: int = 24,
        val_groups: int = 4,
        test_groups: int = 10,
        clips_per_group: int = 2,
        video_seed: int = 0,
        clip: ClipOptions = ClipOptions(num_frames=16, resize=64, crop=64),
        augment: AugmentOptions = AugmentOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0),
        loader: LoaderOptions = LoaderOptions(),
        reader: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
        seed: int = 0,
        cache_dir: str | None = None,
        predict_paths: Sequence[str] | None = None,
    ) -> None:
        super().__init__(clip, augment, loader, reader, seed, cache_dir, predict_paths)
        numbers = {"train_groups": train_groups, "test_groups": test_groups, "clips_per_group": clips_per_group}
        for name, value in numbers.items():
            if value < 1:
                raise UserError(f"{name} is {value}; it has to be 1 or more")
        for name, value in {"val_groups": val_groups, "video_seed": video_seed}.items():
            if value < 0:
                raise UserError(f"{name} is {value}; it has to be 0 or more")
        self.library = Library(Path(root) if root else _user_folder(), _task(task), clips_per_group, video_seed)
        first_val = 1 + test_groups
        first_train = first_val + val_groups
        self.groups = {
            "train": range(first_train, first_train + train_groups),
            "val": range(first_val, first_train),
            "test": range(1, first_val),
        }
        """Numbers of the groups by split."""

    def prepare_data(self) -> None:
        """Renders what is not on disk yet; shows progress on stderr."""
        missing = self.library.missing([group for groups in self.groups.values() for group in groups])
        if not missing:
            return
        from rich.console import Console
        from rich.progress import track

        for group in track(missing, f"Rendering {self.library.folder}", console=Console(stderr=True)):
            self.library.render(group)

    def setup(self, stage: str | None = None) -> None:
        """Finds the videos of one stage, and renders them first where no trainer called `prepare_data`.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.
        """
        if stage != "predict":
            self.prepare_data()
        super().setup(stage)

    def find_videos(self) -> Catalogue:
        """Names all videos; they follow from the settings, so the disk is not asked."""
        names = self.library.task.class_names
        records = {split: self._records_of(groups) for split, groups in self.groups.items()}
        accounts = {split: Account(len(found), len(found), (), len(names), ()) for split, found in records.items()}
        return Catalogue(names, records, accounts)

    def explain_missing(self, split: str) -> str:
        """Why a split is empty."""
        return f"{split}_groups is 0, so there are no {split} videos; set {split}_groups to 1 or more"

    def _records_of(self, groups: Sequence[int]) -> RecordTable:
        library = self.library
        return RecordTable(
            VideoRecord(
                library.video_id(name, group, clip), str(library.path(name, group, clip)), label, f"g{group:02d}"
            )
            for label, name in enumerate(library.task.class_names)
            for group in groups
            for clip in range(1, library.clips + 1)
        )


def _user_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "temporal_attn" / "synthetic"
