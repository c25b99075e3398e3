"""UCF101: 13,320 clips of 101 human actions, 25 groups a class.

Paper: Soomro et al., "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild", 2012.
https://arxiv.org/abs/1212.0402

Layout (clips may be missing, whole classes too, and .mp4, .mkv, .webm or .mov may stand for .avi)::

    root/Archery/v_Archery_g08_c01.avi
    splits/classInd.txt  trainlist01.txt  testlist01.txt  ...
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import (
    Catalogue,
    RecordTable,
    SplitPlan,
    build_catalogue,
    parse_ucf101_name,
    read_class_index,
    read_ucf101_list,
)
from temporal_attn.types import UserError

__all__ = ["UCF101DataModule"]


class UCF101DataModule(VideoDataModule):
    """The official splits of UCF101, on whatever part of the clips is on disk.

    Tests run on the fold's test list. Validation takes whole groups from the train list, because clips of a group show
    the same people in the same place.

    Args:
        root: Folder of the class folders.
        splits: Folder of the official lists ("UCF101TrainTestSplits-RecognitionTask").
        fold: 1, 2 or 3.
        classes: Names to use, in label order; None takes those with clips on disk, in the official order.
        val_groups: Numbers of the groups that validate; None draws them.
        val_fraction: Share of each class's groups that is drawn.
        allow_outside: Whether lists and links may lead out of the root.
        clip, augment, loader, reader, seed, cache_dir, predict_paths: As in `VideoDataModule`.

    Raises:
        UserError: The fold does not exist; later, when the disk is scanned, a folder or list is missing or malformed.

    Example:
        >>> data = UCF101DataModule("data/UCF-101", "data/splits", val_groups=[22, 23, 24, 25])
    """

    def __init__(
        self,
        root: str,
        splits: str,
        fold: int = 1,
        classes: Sequence[str] | None = None,
        val_groups: Collection[int] | None = None,
        val_fraction: float = 0.2,
        allow_outside: bool = False,
        clip: ClipOptions = ClipOptions(),
        augment: AugmentOptions = AugmentOptions(),
        loader: LoaderOptions = LoaderOptions(),
        reader: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
        seed: int = 0,
        cache_dir: str | None = None,
        predict_paths: Sequence[str] | None = None,
    ) -> None:
        super().__init__(clip, augment, loader, reader, seed, cache_dir, predict_paths)
        if fold not in (1, 2, 3):
            raise UserError(f"fold is {fold}; UCF101 has the folds 1, 2 and 3")
        self.root = root
        self.splits = splits
        self.fold = fold
        self.classes = classes
        self.val_groups = val_groups
        self.split_plan = SplitPlan(val_fraction, seed=seed)
        self.allow_outside = allow_outside

    @cached_property
    def files(self) -> VideoFiles:
        """The videos below the root, found by one scan."""
        return VideoFiles(self.root, self.allow_outside)

    def find_videos(self) -> Catalogue:
        """The fold's lists, resolved on disk."""
        official = read_class_index(Path(self.splits) / "classInd.txt")
        lists = {
            part: read_ucf101_list(self._list(part), official, self.allow_outside, self.root)
            for part in ("train", "test")
        }
        return build_catalogue(lists, lambda entry: self.files.find(entry.name), official, self.classes, self._split)

    def explain_missing(self, split: str) -> str:
        """Which list leads to no file."""
        if split == "val":
            return f"{self.root}: no validation clips; choose other val_groups or a larger val_fraction"
        return (
            f"{self.root}: none of the clips in {self._list(split)} is here; "
            f"expected <root>/<class>/v_<class>_gNN_cNN.avi (or .mp4, .mkv, .webm, .mov), {self.files}"
        )

    def _list(self, split: str) -> Path:
        return Path(self.splits) / f"{split}list{self.fold:02d}.txt"

    def _split(self, records: Mapping[str, RecordTable]) -> dict[str, RecordTable]:
        if self.val_groups is None:
            return self.split_plan(records)
        train = records["train"]
        chosen = [_group_number(video_id) in self.val_groups for video_id in train.ids]
        return {
            "train": train.take(row for row, validates in enumerate(chosen) if not validates),
            "val": train.take(row for row, validates in enumerate(chosen) if validates),
            "test": records["test"],
        }


def _group_number(video_id: str) -> int:
    return parse_ucf101_name(PurePosixPath(video_id).name)[1]
