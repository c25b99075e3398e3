"""Any data set that a table describes: a row a video, or a row a segment of one.

Layout (CSV or Parquet; only the first two columns are needed, and each may have another name)::

    path,label,start,end,group,split
    monday/kitchen.mp4,pour,12.5,17.0,person 3,train
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import Catalogue, Entry, SplitPlan, TableColumns, build_catalogue, in_order, read_video_table
from temporal_attn.types import UserError

__all__ = ["TableDataModule"]


class TableDataModule(VideoDataModule):
    r"""Videos, or segments of untrimmed videos, with one label or several.

    Rows of one group come from one source, such as a person, a place or an untrimmed video, and stay in one part.
    Without a column for it a file is a group: its segments stay together. Seconds of a segment count from the video's
    first frame, as players show them.

    Args:
        root: Folder that the table's paths start from.
        table: CSV or Parquet file. All rows, or those that train if `val_table` or `test_table` is given.
        val_table: Table of validation videos; None goes by the column ``split``, else by `val_fraction`.
        test_table: Table of test videos; None goes by the column ``split``, else by `folds` or `test_fraction`.
        columns: What the columns are called.
        label_separator: What stands between several labels of a video, such as ``|``; None for one label a video. A
            Parquet column of lists is multi-label by itself.
        delimiter: What stands between the values of a text file; ``"\t"`` for tabs.
        classes: Names to use, in label order; None takes those with videos on disk: numbers by size, else by the
            alphabet.
        val_fraction: Share of each class's groups for validation, where nothing else says which.
        test_fraction: Share of each class's groups for the test, likewise.
        folds: Number of folds of a cross-validation over all groups, in the place of `test_fraction`; None for none.
        fold: The fold that tests, from 1.
        allow_outside: Whether the table and links may lead out of the root.
        clip, augment, loader, reader, seed, cache_dir, predict_paths: As in `VideoDataModule`.

    Raises:
        UserError: A number is out of range; later, when the disk is scanned, a folder or table is missing or malformed,
            or folds are asked of a data set that is split already.

    Example:
        >>> data = TableDataModule("data/videos", "data/videos.csv", columns=TableColumns(path="file", group="person"))
    """

    def __init__(
        self,
        root: str,
        table: str,
        val_table: str | None = None,
        test_table: str | None = None,
        columns: TableColumns = TableColumns(),
        label_separator: str | None = None,
        delimiter: str = ",",
        classes: Sequence[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        folds: int | None = None,
        fold: int = 1,
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
        self.root = root
        self.table = Path(table)
        held_out = {"val": val_table, "test": test_table}
        self.held_out = {split: Path(path) for split, path in held_out.items() if path is not None}
        self.columns = columns
        self.label_separator = label_separator
        self.delimiter = delimiter
        self.classes = classes
        self.split_plan = SplitPlan(val_fraction, test_fraction, folds, fold, seed)
        self.allow_outside = allow_outside

    @cached_property
    def files(self) -> VideoFiles:
        """The videos below the root, found by one scan."""
        return VideoFiles(self.root, self.allow_outside)

    def find_videos(self) -> Catalogue:
        """The table's rows, resolved on disk."""
        parts = self._read(self.table)
        if self.held_out:
            parts = {"train": _only_part(parts, self.table, self.columns)}
            for split, path in self.held_out.items():
                parts[split] = _only_part(self._read(path), path, self.columns)
        if self.split_plan.folds is not None and "all" not in parts:
            raise UserError(f"{self.table}: folds is given, but the data set is split into {', '.join(parts)} already")
        for part, entries in parts.items():
            unlabelled = next((entry.name for entry in entries if entry.classes is None and part != "test"), None)
            if unlabelled is not None:
                raise UserError(
                    f"{self.table}: {unlabelled} has no {self.columns.label}; only test videos may have none"
                )
        known = in_order(parts)
        return build_catalogue(parts, lambda entry: self.files.find(entry.name), known, self.classes, self.split_plan)

    def explain_missing(self, split: str) -> str:
        """What was expected, and what was found instead."""
        remedy = f"a column {self.columns.split}, a {split}_table or a larger {split}_fraction, "
        return (
            f"{self.root}: no videos for {split}; expected those of {self.held_out.get(split, self.table)} below the "
            f"root, {'' if split == 'train' else remedy}{self.files}"
        )

    def _read(self, path: Path) -> dict[str, list[Entry]]:
        return read_video_table(path, self.columns, self.label_separator, self.delimiter, self.allow_outside, self.root)


def _only_part(parts: dict[str, list[Entry]], path: Path, columns: TableColumns) -> list[Entry]:
    """The rows of a table that is one part as a whole."""
    if "all" not in parts:
        raise UserError(f"{path}: a column {columns.split} says the split, and val_table or test_table too; keep one")
    return parts["all"]
