"""Which videos a data set is made of, by the same code that trains on it."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from datamodules.doctor.checks import Clip, Inventory
from datamodules.doctor.layouts import recognise
from datamodules.files import VideoFiles
from datamodules.records import RecordTable
from temporal_attn.types import UserError

__all__ = ["take_inventory"]


def take_inventory(
    root: str, splits: str | None = None, fold: int = 1, layout: str | None = None, allow_outside: bool = False
) -> Inventory:
    """Every video that is listed or on disk.

    Args:
        root: Folder of the videos.
        splits: See `recognise`.
        fold: Likewise.
        layout: Likewise.
        allow_outside: Likewise.

    Raises:
        UserError: The layout is not understood, a list is malformed, or there is no video.
    """
    data = recognise(root, splits, fold, layout, allow_outside)
    catalogue = data.find_videos()
    parts = {split: records for split, records in catalogue.records.items() if len(records)}
    is_split = splits is not None or len(parts) > 1
    clips = [
        clip
        for split, records in parts.items()
        for clip in _clips(records, catalogue.class_names, split if is_split else None)
    ]
    files = VideoFiles(root, allow_outside)
    listed = {clip.path for clip in clips}
    has_folders = any(os.path.isdir(path) for path in listed)  # otherwise images beside the videos are none of them
    names = [*files.names, *(files.image_folders if has_folders else ())]
    on_disk = ((str(files.root / name), name) for name in names)
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
