"""Which videos a data set is made of, by the same code that trains on it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from datamodules.base import VideoDataModule
from datamodules.doctor.checks import Clip, Inventory
from datamodules.files import VideoFiles
from datamodules.folder import FolderDataModule
from datamodules.hmdb51 import HMDB51DataModule
from datamodules.records import RecordTable
from datamodules.table import TableDataModule
from datamodules.ucf101 import UCF101DataModule
from temporal_attn.types import UserError

__all__ = ["recognise", "take_inventory"]

_TABLES = (".csv", ".tsv", ".parquet")
_PARTS = ("train", "val", "test")


def recognise(root: str, splits: str | None = None, fold: int = 1) -> VideoDataModule:
    """The datamodule that understands a data set, without a validation part that it would draw itself.

    Args:
        root: Folder of the videos.
        splits: Folder of UCF101's or HMDB51's official lists, a folder with ``train.txt`` and ``val.txt`` or
            ``test.txt``, or a table (CSV or Parquet); None reads the split off the folders.
        fold: Of the official lists.

    Raises:
        UserError: The splits are none of these.
    """
    if splits is None:
        return FolderDataModule(root, val_fraction=0.0, test_fraction=0.0)
    path = Path(splits)
    if path.suffix.lower() in _TABLES:
        return TableDataModule(root, splits, val_fraction=0.0, test_fraction=0.0)
    if (path / "classInd.txt").exists():
        return UCF101DataModule(root, splits, fold, val_fraction=0.0)
    if any(path.glob("*_test_split?.txt")):
        return HMDB51DataModule(root, splits, fold, val_fraction=0.0)
    lists = {f"{part}_list": str(path / f"{part}.txt") for part in _PARTS if (path / f"{part}.txt").exists()}
    if lists:
        return FolderDataModule(root, val_fraction=0.0, test_fraction=0.0, **lists)  # type: ignore[arg-type]
    raise UserError(
        f"splits {splits}: no such lists; expected a folder with classInd.txt and trainlist01.txt (UCF101), with "
        "<class>_test_split1.txt (HMDB51), or with train.txt, val.txt and test.txt, or a .csv or .parquet table"
    )


def take_inventory(root: str, splits: str | None = None, fold: int = 1) -> Inventory:
    """Every video that is listed or on disk.

    Args:
        root: Folder of the videos.
        splits: See `recognise`.
        fold: Likewise.

    Raises:
        UserError: The layout is not understood, a list is malformed, or there is no video.
    """
    data = recognise(root, splits, fold)
    catalogue = data.find_videos()
    parts = {split: records for split, records in catalogue.records.items() if len(records)}
    is_split = splits is not None or len(parts) > 1
    clips = [
        clip
        for split, records in parts.items()
        for clip in _clips(records, catalogue.class_names, split if is_split else None)
    ]
    files = VideoFiles(root)
    listed = {clip.path for clip in clips}
    on_disk = ((str(files.root / name), name) for name in files.names)
    strays = [Clip(path, PurePosixPath(name).parent.name) for path, name in on_disk if path not in listed]
    if not clips and not strays:
        raise UserError(data.explain_missing("train"))
    accounts = {id(account): account for account in catalogue.accounts.values()}.values()
    empty = set.intersection(*(set(account.empty_classes) for account in accounts))
    return Inventory(
        clips=tuple(clips),
        strays=tuple(strays),
        missing=tuple(sorted({name for account in accounts for name in account.missing})),
        empty_classes=tuple(sorted(empty)),
    )


def _clips(records: RecordTable, class_names: tuple[str, ...], split: str | None) -> list[Clip]:
    return [Clip(record.path, _name(record.label, class_names), split, record.group) for record in records]


def _name(label: int | tuple[int, ...] | None, class_names: tuple[str, ...]) -> str | None:
    if label is None:
        return None
    return ", ".join(class_names[index] for index in (label if isinstance(label, tuple) else (label,)))
