"""Any data set that lies in one folder a class.

Three layouts are understood::

    root/<class>/<video>.mp4                  split here, by whole groups
    root/train|val|test/<class>/<video>.mp4   already split; without val, part of train validates
    root/<class>/<video>.mp4 and text files   lists of <class>/<video>.mp4, one a line, say the split
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.readers import VIDEO_SUFFIXES
from datamodules.records import (
    Catalogue,
    Entry,
    choose_classes,
    label_records,
    locate,
    read_path_list,
    split_by_groups,
    take_account,
)
from temporal_attn.types import UserError, VideoRecord

__all__ = ["FolderDataModule"]

_SPLITS = ("train", "val", "test")

Records = tuple[VideoRecord, ...]


class FolderDataModule(VideoDataModule):
    r"""Videos in one folder a class.

    Args:
        root: The folder; see above what may lie in it.
        train_list: Text file of training videos; None splits by folders.
        val_list: Text file of validation videos; None takes `val_fraction` of the training videos.
        test_list: Text file of test videos.
        classes: Names to use, in label order; None takes those with videos, sorted.
        val_fraction: Share of each class's groups for validation, where nothing else says which.
        test_fraction: Share of each class's groups for the test, likewise.
        group_pattern: Regular expression that finds the group in a file name: its first parenthesis, or all of it.
            Videos of one group and class come from one source and stay in one part; a name without a match is a group
            of its own. The default knows UCF101's and its relatives' names.
        clip: How frames are picked and sized.
        augment: What training does to clips.
        loader: Batch size and workers.
        reader: ``auto``, or one engine for all files: ``decord`` or ``pyav``.
        seed: Decides the split, the order of epochs, and every random draw.
        cache_dir: Folder for what callbacks may store of the data set; None stores nothing.
        predict_paths: Files, folders and glob patterns of `predict`; None predicts on the test part.

    Raises:
        UserError: The pattern is no regular expression, or there are other lists without one for training; later, when
            the disk is scanned, a folder or list is missing or malformed.

    Example:
        >>> data = FolderDataModule("data/gestures", group_pattern=r"person\d+")
    """

    def __init__(
        self,
        root: str,
        train_list: str | None = None,
        val_list: str | None = None,
        test_list: str | None = None,
        classes: Sequence[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        group_pattern: str = r"_(g\d+)_",
        clip: ClipOptions = ClipOptions(),
        augment: AugmentOptions = AugmentOptions(),
        loader: LoaderOptions = LoaderOptions(),
        reader: Literal["auto", "decord", "pyav"] = "auto",
        seed: int = 0,
        cache_dir: str | None = None,
        predict_paths: Sequence[str] | None = None,
    ) -> None:
        super().__init__(clip, augment, loader, reader, seed, cache_dir, predict_paths)
        try:
            self._group_pattern = re.compile(group_pattern)
        except re.error as error:
            raise UserError(f"group_pattern: {group_pattern!r} is no regular expression: {error}") from None
        lists = {"train": train_list, "val": val_list, "test": test_list}
        self.lists = {split: Path(path) for split, path in lists.items() if path is not None}
        if self.lists.keys() == {"val"}:
            raise UserError("val_list is given, but neither train_list nor test_list")
        self.root = root
        self.classes = classes
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    def find_videos(self) -> Catalogue:
        """The folder's videos, in the parts that lists, folders or fractions make of them."""
        files = VideoFiles(self.root)
        split_folders = () if self.lists else _split_folders(files)
        if self.lists:
            parts = {split: read_path_list(path) for split, path in self.lists.items()}
        elif split_folders:
            parts = {split: _scanned(files, split) for split in split_folders}
        else:
            parts = {"all": _scanned(files)}
        folders = [files.root / split for split in split_folders] or [files.root]
        known = sorted(set().union(*map(_subfolders, folders), *map(_class_names, parts.values())))
        wanted = choose_classes(self.classes, known, known)
        located = {
            part: locate((entry for entry in entries if entry.class_name in wanted), files)
            for part, entries in parts.items()
        }
        present = {entry.class_name for paths in located.values() for entry, path in paths.items() if path}
        class_names = choose_classes(self.classes, known, present)
        records = {part: label_records(paths, class_names, self._group) for part, paths in located.items()}
        return Catalogue(
            class_names,
            self._split(records),
            {split: take_account(_source(split, located), wanted) for split in _SPLITS},
        )

    def explain_missing(self, split: str) -> str:
        """Where the videos of a split would have been, and in which layout."""
        if split in self.lists:
            return f"{self.root}: none of the videos in {self.lists[split]} is here; expected lines <class>/<video>"
        suffixes = ", ".join(VIDEO_SUFFIXES)
        return (
            f"{self.root}: no videos for {split}; expected <root>/<class>/<video> with a {split}_fraction above 0, "
            f"<root>/{split}/<class>/<video>, or a {split}_list ({suffixes})"
        )

    def _split(self, records: Mapping[str, Records]) -> dict[str, Records]:
        if "all" in records:
            return split_by_groups(records["all"], self.val_fraction, self.test_fraction, self.seed)
        train = records.get("train", ())
        if "val" in records:
            return {"train": train, "val": records["val"], "test": records.get("test", ())}
        return {**split_by_groups(train, self.val_fraction, seed=self.seed), "test": records.get("test", ())}

    def _group(self, video_id: str) -> str:
        path = PurePosixPath(video_id)
        match = self._group_pattern.search(path.name)
        if match is None:
            return video_id
        return f"{path.parent.name}_{match[1] if self._group_pattern.groups else match[0]}"


def _split_folders(files: VideoFiles) -> tuple[str, ...]:
    """Which of train, val and test are folders of class folders, none in a plain folder of classes.

    Raises:
        UserError: Such folders stand beside others.
    """
    parts = [PurePosixPath(name).parts for name in files.names]
    splits = {path[0] for path in parts if len(path) > 2 and path[0] in _SPLITS}
    if splits:
        others = sorted({path[0] for path in parts} - splits)
        if others:
            raise UserError(f"{files.root}: {', '.join(others)} beside the split folders {', '.join(sorted(splits))}")
    return tuple(split for split in _SPLITS if split in splits)


def _source(split: str, located: Mapping[str, dict[Entry, str | None]]) -> Mapping[Entry, str | None]:
    """The part from which a split was taken."""
    taken_from = "all" if "all" in located else "train" if split == "val" and "val" not in located else split
    return located.get(taken_from, {})


def _scanned(files: VideoFiles, split: str | None = None) -> list[Entry]:
    """Videos that lie in a class folder of the root, or of one split's folder."""
    depth = 0 if split is None else 1
    entries = []
    for name in files.names:
        parts = PurePosixPath(name).parts
        if len(parts) > depth + 1 and (split is None or parts[0] == split):
            entries.append(Entry(name, parts[depth]))
    ids = Counter(entry.id for entry in entries)
    for entry in entries:
        if ids[entry.id] > 1:
            raise UserError(f"{files.root / entry.id}: two videos differ in their suffix only; rename or remove one")
    return entries


def _subfolders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}


def _class_names(entries: Sequence[Entry]) -> set[str]:
    return {entry.class_name for entry in entries}
