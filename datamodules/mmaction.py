"""Data sets that were prepared for mmaction2: lists of paths and numbers of classes.

Layouts of a list's line, each with the paths that it names below the root::

    some/path/video.mp4 3          a video and its class
    some/path/frames 120 3         a folder of images, their number, and the class
    some/path/video.mp4 3 7 12     several classes
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.readers.frame_folder import image_names
from datamodules.records import (
    Catalogue,
    Entry,
    SplitPlan,
    build_catalogue,
    in_order,
    read_label_map,
    read_mmaction_list,
)
from temporal_attn.types import VideoError

__all__ = ["MMActionDataModule"]

_log = logging.getLogger(__name__)


class MMActionDataModule(VideoDataModule):
    """Videos or folders of images under mmaction2's annotation lists.

    The lists know no groups, so that every video is one of its own. Where clips share a source, give a `val_list`, or
    make a table with a column for it (`datamodules.TableDataModule`).

    Args:
        root: Folder that the lists' paths start from.
        train_list: Text file of training videos.
        val_list: Text file of validation videos; None takes `val_fraction` of the training videos.
        test_list: Text file of test videos. Results on the "validation list" of a data set without a test are honest
            only if it is named here, and not as `val_list`.
        label_map: Text file with a class name a line; None names classes by their numbers.
        frame_folders: Whether the lists name folders of images and their number.
        multi_label: Whether a video has several classes, or none.
        classes: Names to use, in label order; None takes those with videos on disk, by their numbers.
        val_fraction: Share of each class's videos that validates where there is no `val_list`.
        allow_outside: Whether lists and links may lead out of the root.
        clip, augment, loader, reader, seed, cache_dir, predict_paths: As in `VideoDataModule`.

    Raises:
        UserError: A number is out of range; later, when the disk is scanned, a folder or list is missing or malformed.

    Example:
        >>> data = MMActionDataModule("data/videos", "data/train.txt", test_list="data/val.txt")
    """

    def __init__(
        self,
        root: str,
        train_list: str,
        val_list: str | None = None,
        test_list: str | None = None,
        label_map: str | None = None,
        frame_folders: bool = False,
        multi_label: bool = False,
        classes: Sequence[str] | None = None,
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
        lists = {"train": train_list, "val": val_list, "test": test_list}
        self.root = root
        self.lists = {split: Path(path) for split, path in lists.items() if path is not None}
        self.label_map = None if label_map is None else Path(label_map)
        self.frame_folders = frame_folders
        self.multi_label = multi_label
        self.classes = classes
        self.split_plan = SplitPlan(val_fraction, seed=seed)
        self.allow_outside = allow_outside

    @cached_property
    def files(self) -> VideoFiles:
        """The videos below the root, found by one scan."""
        return VideoFiles(self.root, self.allow_outside)

    def find_videos(self) -> Catalogue:
        """The lists, resolved on disk."""
        names = None if self.label_map is None else read_label_map(self.label_map)
        parts = {
            split: read_mmaction_list(path, names, self.frame_folders, self.multi_label, self.allow_outside, self.root)
            for split, path in self.lists.items()
        }
        self._compare_lengths([entry for entries in parts.values() for entry in entries])
        known = in_order(parts) if names is None else names
        return build_catalogue(parts, lambda entry: self.files.find(entry.name), known, self.classes, self.split_plan)

    def _compare_lengths(self, entries: Sequence[Entry]) -> None:
        """Say which folders hold another number of frames than their list: other images, or not all of them."""
        unlike = list[str]()
        for entry in entries:
            path = self.files.find(entry.name)
            if entry.frames is None or path is None or self.files.count_images(path) == entry.frames:
                continue
            with contextlib.suppress(VideoError):  # a folder that is no video is named when it is read
                if (found := len(image_names(path))) != entry.frames:
                    unlike.append(f"{path}: {found} instead of {entry.frames}")
        if unlike:
            _log.warning(
                "%d folders hold another number of frames than their list says, e.g. %s", len(unlike), unlike[0]
            )

    def explain_missing(self, split: str) -> str:
        """What was expected, and what was found instead."""
        if split in self.lists:
            return (
                f"{self.root}: none of the videos in {self.lists[split]} is here; "
                f"expected the list's paths below the root, {self.files}"
            )
        remedy = "a val_list, or a larger val_fraction" if split == "val" else "a test_list"
        return f"{self.root}: no videos for {split}; give {remedy}"
