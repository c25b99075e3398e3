"""Any data set that lies in one folder a class.

Three layouts are understood::

    root/<class>/<video>.mp4                  split here, by whole groups
    root/train|val|test/<class>/<video>.mp4   already split; without val, part of train validates. Training, valid,
                                              validation, dev and testing are understood, in any case
    root/<class>/<video>.mp4 and text files   lists of <class>/<video>.mp4, one a line, say the split

A folder of images stands for a video file: ``root/<class>/<video>/00001.jpg``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import Catalogue, Entry, SplitPlan, build_catalogue, list_folder, read_path_list
from datamodules.records.parts import part_called
from temporal_attn.types import UserError

__all__ = ["FolderDataModule"]

_SPLITS = ("train", "val", "test")
_NUMBERED_GROUPS = r"(.+_g\d+)_"

_log = logging.getLogger(__name__)


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
        folds: Number of folds of a cross-validation over all groups, in the place of `test_fraction`; None for none.
        fold: The fold that tests, from 1.
        group_pattern: Regular expression that finds the group in a file name, or else in the path below the root, such
            as ``<class>/<person>/<video>``: its first parenthesis, or all of it. Videos of one group come from one
            source, such as a person, and stay in one part whatever their classes; without a match a video is a group
            of its own. The default knows UCF101's and its relatives' file names, whose groups are numbered within
            their class, and looks at nothing else.
        allow_outside: Whether lists and links may lead out of the root.
        clip, augment, loader, reader, seed, cache_dir, predict_paths: As in `VideoDataModule`.

    Raises:
        UserError: The pattern is no regular expression, there are other lists without one for training, a fraction or
            fold is out of range, or folds are asked of a data set that is split already; later, when the disk is
            scanned, a folder or list is missing or malformed.

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
        folds: int | None = None,
        fold: int = 1,
        group_pattern: str = _NUMBERED_GROUPS,
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
        try:
            self._group_pattern = re.compile(group_pattern)
        except re.error as error:
            raise UserError(f"group_pattern: {group_pattern!r} is no regular expression: {error}") from None
        lists = {"train": train_list, "val": val_list, "test": test_list}
        self.lists = {split: Path(path) for split, path in lists.items() if path is not None}
        if self.lists.keys() == {"val"}:
            raise UserError("val_list is given, but neither train_list nor test_list")
        if self.lists and folds is not None:
            raise UserError("folds is given beside lists that say what tests; leave one of them out")
        self.root = root
        self.classes = classes
        self.split_plan = SplitPlan(val_fraction, test_fraction, folds, fold, seed)
        self.allow_outside = allow_outside

    @cached_property
    def files(self) -> VideoFiles:
        """The videos below the root, found by one scan."""
        return VideoFiles(self.root, self.allow_outside)

    def find_videos(self) -> Catalogue:
        """The folder's videos, in the parts that lists, folders or fractions make of them."""
        files = self.files
        split_folders = {} if self.lists else _split_folders(files)
        if self.lists:
            parts = {split: read_path_list(path, self.allow_outside, self.root) for split, path in self.lists.items()}
        elif split_folders:
            parts = {part: list_folder(files, folder) for part, folder in split_folders.items()}
        else:
            parts = {"all": list_folder(files)}
        if split_folders and self.split_plan.folds is not None:
            names = ", ".join(split_folders.values())
            raise UserError(f"{self.root}: folds is given, but the folders {names} say what tests")
        parts = {part: [self._grouped(entry) for entry in entries] for part, entries in parts.items()}
        self._report_groups([entry for entries in parts.values() for entry in entries])
        folders = [files.root / folder for folder in split_folders.values()] or [files.root]
        listed = {name for entries in parts.values() for entry in entries for name in entry.class_tuple}
        if listed and self.classes is None and all(map(part_called, listed)):
            names = ", ".join(sorted(listed))
            raise UserError(
                f"{self.root}: the only classes are {names}, which look like parts of a split; expected "
                f"<root>/<part>/<class>/<video>, or name them as classes: [{names}] if that is what they are"
            )
        known = sorted(listed.union(*map(_subfolders, folders)))
        return build_catalogue(parts, lambda entry: files.find(entry.name), known, self.classes, self.split_plan)

    def explain_missing(self, split: str) -> str:
        """Where the videos of a split would have been, and in which layout."""
        if split in self.lists:
            return (
                f"{self.root}: none of the videos in {self.lists[split]} is here; "
                f"expected lines <class>/<video>, {self.files}"
            )
        share = "" if split == "train" else f" with a {split}_fraction above 0"
        return (
            f"{self.root}: no videos for {split}; expected <root>/<class>/<video>{share}, "
            f"<root>/{split}/<class>/<video>, or a {split}_list, {self.files}"
        )

    def _grouped(self, entry: Entry) -> Entry:
        match = self._group_pattern.search(PurePosixPath(entry.id).name)
        if match is None and self._group_pattern.pattern != _NUMBERED_GROUPS:
            match = self._group_pattern.search(entry.id)
        if match is None:
            return entry
        return entry._replace(group=match[1] if self._group_pattern.groups else match[0])

    def _report_groups(self, entries: Sequence[Entry]) -> None:
        """Say that a pattern of the user's own finds no group: parts would share people without anybody noticing."""
        is_default = self._group_pattern.pattern == _NUMBERED_GROUPS
        if entries and not is_default and all(entry.group is None for entry in entries):
            pattern, count, example = self._group_pattern.pattern, len(entries), entries[0].id
            _log.warning(
                "group_pattern %r matches none of %d videos, e.g. %s: each is a group", pattern, count, example
            )


def _split_folders(files: VideoFiles) -> dict[str, str]:
    """Folders of class folders by the part that each holds, none in a plain folder of classes.

    Raises:
        UserError: Such folders stand beside others, or two of them are one part.
    """
    folders = [PurePosixPath(name).parts for name in files.image_folders]
    parts = [*(PurePosixPath(name).parts for name in files.names), *(path for path in folders if len(path) > 1)]
    splits = {path[0] for path in parts if len(path) > 2 and part_called(path[0])}
    if splits:
        others = sorted({path[0] for path in parts} - splits)
        if others:
            raise UserError(f"{files.root}: {', '.join(others)} beside the split folders {', '.join(sorted(splits))}")
    by_part: dict[str, str] = {}
    for folder in sorted(splits):
        part = str(part_called(folder))
        if by_part.setdefault(part, folder) != folder:
            raise UserError(f"{files.root}: {by_part[part]} and {folder} are both {part}; put them into one folder")
    return {part: by_part[part] for part in _SPLITS if part in by_part}


def _subfolders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
