"""Which datamodule understands a data set: its annotation files tell."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datamodules.base import VideoDataModule
from datamodules.diving48 import Diving48DataModule
from datamodules.folder import FolderDataModule
from datamodules.hmdb51 import HMDB51DataModule
from datamodules.jester import JesterDataModule
from datamodules.kinetics import KineticsDataModule
from datamodules.mmaction import MMActionDataModule
from datamodules.readers import VIDEO_SUFFIXES
from datamodules.records.lists import read_lines
from datamodules.records.parts import part_in_name
from datamodules.ssv2 import SSv2DataModule
from datamodules.table import TableDataModule
from datamodules.ucf101 import UCF101DataModule
from temporal_attn.types import UserError

__all__ = ["LAYOUTS", "recognise"]

_PARTS = ("train", "val", "test")
_TABLES = (".csv", ".tsv", ".parquet")


class _Layout(NamedTuple):
    """A form of annotation files.

    Args:
        expected: What they look like, for a person.
        is_here: Whether a path looks like that.
        open: The datamodule of a root, that path, a fold, and whether links and lists may lead out of the root; without
            a validation part that it would draw itself.
    """

    expected: str
    is_here: Callable[[Path], bool]
    open: Callable[[str, Path, int, bool], VideoDataModule]


def recognise(
    root: str, splits: str | None = None, fold: int = 1, layout: str | None = None, allow_outside: bool = False
) -> VideoDataModule:
    """The datamodule that understands a data set, without a validation part that it would draw itself.

    Args:
        root: Folder of the videos.
        splits: Folder of annotation files, or a table; None reads the split off the folders.
        fold: Of UCF101's or HMDB51's official lists.
        layout: One of `LAYOUTS`; None finds out by the files in `splits`.
        allow_outside: Whether links and lists may lead out of the root.

    Raises:
        UserError: The splits are in none of the layouts, or the layout is unknown or needs them.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"layout: {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
    if splits is None:
        if layout is not None:
            raise UserError(f"layout {layout} needs splits: {LAYOUTS[layout].expected}")
        return FolderDataModule(root, val_fraction=0.0, test_fraction=0.0, allow_outside=allow_outside)
    path = Path(splits)
    known = (name for name, form in LAYOUTS.items() if form.is_here(path))
    name = layout or next(known, None)
    if name is None:
        forms = "; ".join(f"{form.expected} ({name})" for name, form in LAYOUTS.items())
        raise UserError(f"splits {splits}: no such lists; expected one of: {forms}")
    return LAYOUTS[name].open(root, path, fold, allow_outside)


def _holds(*endings: str) -> Callable[[Path], bool]:
    """Whether a folder holds a file for each ending."""

    def is_here(path: Path) -> bool:
        names = [file.name.casefold() for file in path.glob("*")]
        return all(any(name.endswith(ending) for name in names) for ending in endings)

    return is_here


def _is_kinetics(path: Path) -> bool:
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path] * (path.suffix.lower() == ".csv")
    return any("youtube_id" in _first_line(file) for file in files)


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.readline()
    except OSError:  # whoever reads it in earnest will say so
        return ""


def _part_lists(path: Path) -> dict[str, str]:
    """``train_list`` and so on, by the word in the name of the text file."""
    lists: dict[str, str] = {}
    for file in sorted(path.glob("*.txt")):
        part = part_in_name(file.stem)
        if part is not None:
            lists.setdefault(f"{part}_list", str(file))
    return lists


def _is_mmaction(path: Path) -> bool:
    """Whether each line of the training list ends in a number."""
    lists = _part_lists(path)
    return "train_list" in lists and all(numbers for _, numbers in _numbered(Path(lists["train_list"])))


def _open_mmaction(root: str, path: Path, _: int, outside: bool) -> VideoDataModule:
    lists = _part_lists(path)
    if "train_list" not in lists:
        raise UserError(f"splits {path}: no .txt file with train in its name")
    lines = [line for name in lists.values() for line in _numbered(Path(name))]
    are_folders = all(len(numbers) > 1 and not name.lower().endswith(VIDEO_SUFFIXES) for name, numbers in lines)
    label_map = next(iter(sorted(path.glob("*label_map*.txt"))), None)
    return MMActionDataModule(
        root,
        **lists,  # type: ignore[arg-type]
        label_map=None if label_map is None else str(label_map),
        frame_folders=are_folders,
        multi_label=any(len(numbers) != (2 if are_folders else 1) for _, numbers in lines),
        allow_outside=outside,
        val_fraction=0.0,
    )


def _numbered(path: Path) -> list[tuple[str, list[str]]]:
    """Each line's path, and the numbers behind it."""
    split = (re.fullmatch(r"(.*?\S)((?:\s+\d+)*)", line) for _, line in read_lines(path, "'<path> <label>'"))
    return [(match[1], match[2].split()) for match in split if match is not None]


def _open_lists(root: str, path: Path, _: int, outside: bool) -> VideoDataModule:
    lists = {f"{part}_list": str(path / f"{part}.txt") for part in _PARTS if (path / f"{part}.txt").exists()}
    return FolderDataModule(root, val_fraction=0.0, test_fraction=0.0, allow_outside=outside, **lists)  # type: ignore[arg-type]


LAYOUTS = {
    "ucf101": _Layout(
        "a folder with classInd.txt and trainlist01.txt",
        _holds("classind.txt"),
        lambda root, path, fold, outside: UCF101DataModule(
            root, str(path), fold, val_fraction=0.0, allow_outside=outside
        ),
    ),
    "hmdb51": _Layout(
        "with <class>_test_split1.txt",
        lambda path: any(path.glob("*_test_split?.txt")),
        lambda root, path, fold, outside: HMDB51DataModule(
            root, str(path), fold, val_fraction=0.0, allow_outside=outside
        ),
    ),
    "ssv2": _Layout(
        "with labels.json, train.json and validation.json",
        _holds("labels.json", "train.json", "validation.json"),
        lambda root, path, _, outside: SSv2DataModule(root, str(path), "test", val_fraction=0.0, allow_outside=outside),
    ),
    "diving48": _Layout(
        "with vocab.json, train.json and test.json",
        _holds("vocab.json", "train.json"),
        lambda root, path, _, outside: Diving48DataModule(root, str(path), val_fraction=0.0, allow_outside=outside),
    ),
    "jester": _Layout(
        "with labels.csv, train.csv and validation.csv",
        _holds("labels.csv", "train.csv", "validation.csv"),
        lambda root, path, _, outside: JesterDataModule(
            root, str(path), "test", val_fraction=0.0, allow_outside=outside
        ),
    ),
    "kinetics": _Layout(
        "a .csv file, or a folder of them, with the column youtube_id",
        _is_kinetics,
        lambda root, path, _, outside: KineticsDataModule(
            root, str(path), "test", val_fraction=0.0, allow_outside=outside
        ),
    ),
    "table": _Layout(
        "a .csv, .tsv or .parquet table with the column path",
        lambda path: path.suffix.lower() in _TABLES,
        lambda root, path, _, outside: TableDataModule(
            root,
            str(path),
            delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
            val_fraction=0.0,
            test_fraction=0.0,
            allow_outside=outside,
        ),
    ),
    "mmaction": _Layout("a folder with train*.txt, lines '<path> <label>'", _is_mmaction, _open_mmaction),
    "lists": _Layout(
        "with train.txt, val.txt and test.txt, lines '<class>/<video>'",
        lambda path: any((path / f"{part}.txt").exists() for part in _PARTS),
        _open_lists,
    ),
}
"""Forms of annotation files, by the name that ``--layout`` takes; the first that fits a path is taken."""
