"""Annotations of Diving48."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datamodules.records.catalogue import Entry
from datamodules.records.lists import only_file, read_json, unrepeated
from temporal_attn.types import UserError

__all__ = ["read_diving48"]

_FORM = '[{"vid_name": "-mdUevIDB7c_00001", "label": 12, "start_frame": 0, "end_frame": 94}, ...]'


def read_diving48(folder: Path) -> tuple[tuple[str, ...], Mapping[str, list[Entry]]]:
    """Class names in label order, and the dives by ``train`` and ``test``.

    A dive's group is the recording from which it was cut: its name without the number. The clips are cut already, so
    that their frame numbers are not needed.

    Args:
        folder: Holds ``vocab.json``, ``train.json`` and ``test.json``, whatever stands before these names, of one
            version of the labels. (Version 2 of 2020 corrects version 1.)

    Raises:
        UserError: A file is missing or malformed, a label is out of range, or a dive is listed twice.
    """
    path = only_file(folder, "vocab.json")
    vocabulary = read_json(path)
    if not isinstance(vocabulary, list) or not all(isinstance(words, list) and words for words in vocabulary):
        raise UserError(f'{path}: expected [["Back", "15som", "05Twis", "FREE"], ...]')
    names = tuple(" ".join(map(str, words)) for words in vocabulary)
    return names, {part: _dives(only_file(folder, f"{part}.json"), names) for part in ("train", "test")}


def _dives(path: Path, names: tuple[str, ...]) -> list[Entry]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: expected {_FORM}")
    located = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, entry {number}"
        try:
            name, label = str(row["vid_name"]), int(row["label"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where}: expected {_FORM}, found {row!r}") from None
        if not 0 <= label < len(names):
            raise UserError(f"{where}: label {label} is outside 0 … {len(names) - 1}")
        located.append((where, Entry(name, names[label], name.rpartition("_")[0] or name)))
    return unrepeated(located)
