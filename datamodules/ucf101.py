"""UCF101: 13,320 clips of 101 human actions, 25 groups a class.

Paper: Soomro et al., "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild", 2012.
https://arxiv.org/abs/1212.0402

Layout (clips may be missing, whole classes too, and .mp4, .mkv, .webm or .mov may stand for .avi)::

    root/Archery/v_Archery_g08_c01.avi
    splits/classInd.txt  trainlist01.txt  testlist01.txt  ...
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import (
    Catalogue,
    choose_classes,
    label_records,
    locate,
    parse_ucf101_name,
    read_class_index,
    read_ucf101_list,
    split_by_groups,
    take_account,
)
from temporal_attn.types import UserError, VideoRecord

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
        clip: How frames are picked and sized.
        augment: What training does to clips.
        loader: Batch size and workers.
        reader: ``auto``, or one engine for all files: ``decord`` or ``pyav``.
        seed: Decides the split, the order of epochs, and every random draw.
        cache_dir: Folder for what callbacks may store of the data set; None stores nothing.
        predict_paths: Files, folders and glob patterns of `predict`; None predicts on the test part.

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
        clip: ClipOptions = ClipOptions(),
        augment: AugmentOptions = AugmentOptions(),
        loader: LoaderOptions = LoaderOptions(),
        reader: Literal["auto", "decord", "pyav"] = "auto",
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
        self.val_fraction = val_fraction

    def find_videos(self) -> Catalogue:
        """The fold's lists, resolved on disk."""
        files = VideoFiles(self.root)
        official = read_class_index(Path(self.splits) / "classInd.txt")
        wanted = official if self.classes is None else choose_classes(self.classes, official, ())
        located = {}
        for split in ("train", "test"):
            entries = read_ucf101_list(self._list(split), official)
            located[split] = locate((entry for entry in entries if entry.class_name in wanted), files)
        present = {entry.class_name for paths in located.values() for entry, path in paths.items() if path}
        class_names = choose_classes(self.classes, official, present)
        records = {split: label_records(paths, class_names, _group) for split, paths in located.items()}
        accounts = {split: take_account(paths, wanted) for split, paths in located.items()}
        return Catalogue(
            class_names,
            {**self._split(records["train"]), "test": records["test"]},
            {"train": accounts["train"], "val": accounts["train"], "test": accounts["test"]},
        )

    def explain_missing(self, split: str) -> str:
        """Which list leads to no file."""
        if split == "val":
            return f"{self.root}: no validation clips; choose other val_groups or a larger val_fraction"
        return (
            f"{self.root}: none of the clips in {self._list(split)} is here; "
            "expected <root>/<class>/v_<class>_gNN_cNN.avi (or .mp4, .mkv, .webm, .mov)"
        )

    def _list(self, split: str) -> Path:
        return Path(self.splits) / f"{split}list{self.fold:02d}.txt"

    def _split(self, records: tuple[VideoRecord, ...]) -> dict[str, tuple[VideoRecord, ...]]:
        if self.val_groups is None:
            return split_by_groups(records, self.val_fraction, seed=self.seed)
        chosen = {record for record in records if _group_number(record.id) in self.val_groups}
        return {
            "train": tuple(record for record in records if record not in chosen),
            "val": tuple(record for record in records if record in chosen),
        }


def _group_number(video_id: str) -> int:
    return parse_ucf101_name(PurePosixPath(video_id).name)[1]


def _group(video_id: str) -> str:
    """Groups are numbered within their class, and so are unique only together with it."""
    return f"{PurePosixPath(video_id).parts[0]}_g{_group_number(video_id):02d}"
