"""From what a list says to what is on disk: entries, records, and the account of both."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datamodules.files import stem_of
from datamodules.records.table import RecordTable
from temporal_attn.types import UserError, VideoRecord

__all__ = [
    "Account",
    "Catalogue",
    "Entry",
    "build_catalogue",
    "choose_classes",
    "in_order",
    "label_records",
    "locate",
    "take_account",
]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Account:
    """What became of a list of videos.

    Args:
        listed: Videos that the data set names.
        found: How many of them are on disk.
        missing: Ids of the others.
        num_classes: Classes that the data set names.
        empty_classes: Those of them without a clip on disk, or with none that is not left out.
        excluded: How many of those found are left out, see `datamodules.exclusion`.
    """

    listed: int
    found: int
    missing: tuple[str, ...]
    num_classes: int
    empty_classes: tuple[str, ...]
    excluded: int = 0

    def __str__(self) -> str:
        """One line for the log."""
        files = f"{self.found:,} of {self.listed:,} listed files found"
        if self.excluded:
            files += f", {self.excluded:,} of them left out"
        if self.num_classes == 0:  # files to predict on
            return files
        return f"{files}, {self.num_classes - len(self.empty_classes)} of {self.num_classes} classes"


@dataclass(frozen=True)
class Catalogue:
    """All that a datamodule knows of its data set before it decodes anything.

    Args:
        class_names: Names in label order.
        records: Videos by split: ``train``, ``val``, ``test``; labels index `class_names`.
        accounts: What was listed and found, by split.
    """

    class_names: tuple[str, ...]
    records: Mapping[str, RecordTable]
    accounts: Mapping[str, Account]


class Entry(NamedTuple):
    """One line of a list.

    Args:
        name: Path relative to the videos' root, ``/`` between folders; or the id alone, where the data set says no
            more.
        classes: Name of the class as the class index spells it; a tuple of names for a multi-label data set; None when
            the list does not tell.
        group: Leakage unit; None makes the video a group of its own.
        start: First second of the segment, counted from the file's first frame; None for the file's start.
        end: Last second of the segment, likewise; None for the file's end.
        frames: Frames that the list speaks of, None where it does not.
    """

    name: str
    classes: str | tuple[str, ...] | None
    group: str | None = None
    start: float | None = None
    end: float | None = None
    frames: int | None = None

    @property
    def id(self) -> str:
        """The name without its suffix, and the segment's seconds."""
        stem = stem_of(self.name)
        if self.start is None and self.end is None:
            return stem
        start, end = ("" if time is None else f"{time!r}" for time in (self.start, self.end))
        return f"{stem}@{start}-{end}"

    @property
    def class_tuple(self) -> tuple[str, ...]:
        """Names of all its classes."""
        return _as_tuple(self.classes)


def build_catalogue(
    parts: Mapping[str, Iterable[Entry]],
    find: Callable[[Entry], str | None],
    known: Sequence[str],
    wanted: Sequence[str] | None,
    split: Callable[[Mapping[str, RecordTable]], Mapping[str, RecordTable]],
) -> Catalogue:
    """What lists and disk make of a data set.

    Args:
        parts: Entries of ``train``, ``val`` and ``test``, as far as the data set tells them apart, else of ``all``.
        find: Path of an entry on disk, None where it is missing.
        known: Class names in the data set's own order.
        wanted: Names to use, in label order; None takes those with videos on disk.
        split: Makes ``train``, ``val`` and ``test`` of the records of each part.

    Raises:
        UserError: A wanted class is not known, or two entries of a part are one file.
    """
    names = tuple(known) if wanted is None else choose_classes(wanted, known, ())
    located = {part: locate(_of_classes(entries, names), find) for part, entries in parts.items()}
    present = {
        name for paths in located.values() for entry, path in paths.items() if path for name in entry.class_tuple
    }
    class_names = choose_classes(wanted, known, present)
    records = split({part: label_records(paths, class_names) for part, paths in located.items()})
    accounts = {part: take_account(paths, names) for part, paths in located.items()}
    if "val" not in accounts and "train" in accounts:  # then the one was taken from the other
        accounts["val"] = accounts["train"]
    rest = accounts.get("all", take_account({}, names))
    return Catalogue(
        class_names,
        {name: records[name] for name in _SPLITS},
        {name: accounts.get(name, rest) for name in _SPLITS},
    )


def locate(entries: Iterable[Entry], find: Callable[[Entry], str | None]) -> dict[Entry, str | None]:
    """Path on disk of each listed video, None where it is missing.

    Raises:
        UserError: Two entries are the same seconds of one file.
    """
    located = {entry: find(entry) for entry in entries}
    first: dict[tuple[str, float | None, float | None], Entry] = {}
    for entry, path in located.items():
        if path is not None and first.setdefault((path, entry.start, entry.end), entry) is not entry:
            other = first[path, entry.start, entry.end]
            raise UserError(f"{path}: listed twice, as {other.name} and as {entry.name}; delete one of the lines")
    return located


def label_records(located: Mapping[Entry, str | None], class_names: Sequence[str]) -> RecordTable:
    """Records of the listed videos that are on disk, in the list's order.

    Args:
        located: From `locate`.
        class_names: Names in label order. Videos of other classes are left out; of several classes, the others are.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    return RecordTable(
        VideoRecord(entry.id, path, _label(entry, label_of), entry.group or stem_of(entry.name), entry.start, entry.end)
        for entry, path in located.items()
        if path is not None and _concerns(entry, label_of)
    )


def take_account(located: Mapping[Entry, str | None], class_names: Sequence[str]) -> Account:
    """What became of a list that names videos of these classes."""
    missing = tuple(entry.id for entry, path in located.items() if path is None)
    present = {name for entry, path in located.items() if path is not None for name in entry.class_tuple}
    empty = tuple(name for name in class_names if name not in present)
    return Account(len(located), len(located) - len(missing), missing, len(class_names), empty)


def choose_classes(wanted: Sequence[str] | None, known: Sequence[str], present: Container[str]) -> tuple[str, ...]:
    """Class names in label order: those that the user wants, or else the known ones that have clips.

    Raises:
        UserError: A wanted name is not known, or appears twice.
    """
    if wanted is None:
        return tuple(name for name in known if name in present)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UserError(f"classes: {', '.join(unknown)} unknown; choose from {', '.join(known)}")
    if len(set(wanted)) < len(wanted):
        raise UserError(f"classes: a name appears twice in {', '.join(wanted)}")
    return tuple(wanted)


def in_order(parts: Mapping[str, Iterable[Entry]]) -> tuple[str, ...]:
    """All class names that appear in lists: by their number if each is one, else by the alphabet."""
    names = {name for entries in parts.values() for entry in entries for name in entry.class_tuple}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _of_classes(entries: Iterable[Entry], names: Sequence[str]) -> Iterable[Entry]:
    chosen = set(names)
    return (entry for entry in entries if _concerns(entry, chosen))


def _concerns(entry: Entry, names: Container[str]) -> bool:
    """Whether a video is one of some classes; one whose classes are unknown, or that has none, always is."""
    return not entry.class_tuple or any(name in names for name in entry.class_tuple)


def _label(entry: Entry, label_of: Mapping[str, int]) -> int | tuple[int, ...] | None:
    if isinstance(entry.classes, str):
        return label_of[entry.classes]
    if entry.classes is None:
        return None
    return tuple(sorted(label_of[name] for name in entry.classes if name in label_of))


def _as_tuple(classes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if classes is None else (classes,) if isinstance(classes, str) else classes
