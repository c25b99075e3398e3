"""From annotation files and folders to lists of `VideoRecord`: pure functions, nothing is decoded.

The disk is scanned once, by `datamodules.files`; everything here works on the names it found.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.files import VideoFiles, stem_of
from temporal_attn.types import UserError, VideoRecord

__all__ = [
    "Account",
    "Catalogue",
    "Entry",
    "choose_classes",
    "label_records",
    "locate",
    "parse_ucf101_name",
    "read_class_index",
    "read_path_list",
    "read_ucf101_list",
    "split_by_groups",
    "take_account",
]

_UCF101_NAME = re.compile(r"v_(?P<class_name>.+)_g(?P<group>\d+)_c\d+$")


@dataclass(frozen=True)
class Account:
    """What became of a list of videos.

    Args:
        listed: Videos that the data set names.
        found: How many of them are on disk.
        missing: Ids of the others.
        num_classes: Classes that the data set names.
        empty_classes: Those of them without a clip on disk.
    """

    listed: int
    found: int
    missing: tuple[str, ...]
    num_classes: int
    empty_classes: tuple[str, ...]

    def __str__(self) -> str:
        """One line for the log."""
        files = f"{self.found:,} of {self.listed:,} listed files found"
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
    records: Mapping[str, tuple[VideoRecord, ...]]
    accounts: Mapping[str, Account]


class Entry(NamedTuple):
    """One line of a list.

    Args:
        name: Path relative to the videos' root, with its suffix, ``/`` between folders.
        class_name: Name as the class index spells it.
    """

    name: str
    class_name: str

    @property
    def id(self) -> str:
        """The name without its suffix."""
        return stem_of(self.name)


def parse_ucf101_name(stem: str) -> tuple[str, int]:
    """Class and number of the group in a UCF101 file name.

    Args:
        stem: E.g. ``v_Archery_g08_c01``.

    Returns:
        E.g. ``("Archery", 8)``.

    Raises:
        ValueError: The name has another form.
    """
    match = _UCF101_NAME.match(stem)
    if match is None:
        raise ValueError(f"{stem!r} is no UCF101 name like v_Archery_g08_c01")
    return match["class_name"], int(match["group"])


def read_class_index(path: Path) -> tuple[str, ...]:
    """Class names of UCF101's ``classInd.txt``, in label order.

    Args:
        path: Lines ``<number> <name>``, numbers from 1.

    Raises:
        UserError: The file is missing, a line has another form, or the numbers are not 1, 2, 3, …
    """
    names: list[str] = []
    for number, line in _lines(path):
        match = re.fullmatch(r"(\d+)\s+(\S+)", line)
        if match is None or int(match[1]) != len(names) + 1:
            raise UserError(f"{path}, line {number}: expected '{len(names) + 1} <class>', found {line!r}")
        names.append(match[2])
    if not names:
        raise UserError(f"{path}: no classes in it; expected lines '<number> <class>'")
    return tuple(names)


def read_ucf101_list(path: Path, class_names: Sequence[str]) -> list[Entry]:
    """Videos of ``trainlist01.txt``, ``testlist01.txt`` and so on.

    Args:
        path: Lines ``<class>/<video>.avi``, in train lists followed by the class number from 1.
        class_names: From `read_class_index`.

    Raises:
        UserError: The file is missing; or a line has another form, points outside the root, names an unknown class,
            carries a number that is out of range or another class's, or appears twice.
    """
    known = {name.casefold(): label for label, name in enumerate(class_names, start=1)}
    entries = []
    for where, line in _located_lines(path):
        match = re.fullmatch(r"(\S+)(?:\s+(\d+))?", line)
        name = _inside_root(match[1], where) if match else ""
        if match is None or not _UCF101_NAME.match(PurePosixPath(stem_of(name)).name):
            raise UserError(f"{where}: expected '<class>/v_<class>_gNN_cNN.avi', label optional, found {line!r}")
        label = known.get(PurePosixPath(name).parts[0].casefold())
        if label is None:
            raise UserError(f"{where}: class {PurePosixPath(name).parts[0]!r} is not in the class index")
        if match[2] is not None and not 1 <= int(match[2]) <= len(class_names):
            raise UserError(f"{where}: label {match[2]} is outside 1 … {len(class_names)}")
        if match[2] is not None and int(match[2]) != label:
            raise UserError(f"{where}: label {match[2]} is {class_names[int(match[2]) - 1]}, not the folder's class")
        entries.append(Entry(name, class_names[label - 1]))
    return _unique(entries, path)


def read_path_list(path: Path) -> list[Entry]:
    """Videos of a plain list.

    Args:
        path: Lines ``<class>/<video>``, the suffix is optional and spaces are allowed.

    Raises:
        UserError: The file is missing; or a line has another form, points outside the root or appears twice.
    """
    entries = []
    for where, line in _located_lines(path):
        name = _inside_root(line, where)
        entries.append(Entry(name, PurePosixPath(name).parts[0]))
    return _unique(entries, path)


def split_by_groups(
    records: Iterable[VideoRecord], val_fraction: float, test_fraction: float = 0.0, seed: int = 0
) -> dict[str, tuple[VideoRecord, ...]]:
    """Splits each class by whole groups, so that clips of one source never face each other.

    Groups of a class are ranked by a hash of (seed, group): the test part is taken from the front, the validation part
    from the back. A class's split therefore does not depend on other classes, and hardly on a clip that comes or goes.
    Each part that is asked for gets a group of every class as long as one is left for training; validation goes first.

    Args:
        records: Labelled videos.
        val_fraction: Share of each class's groups for validation, in [0, 1).
        test_fraction: Share for the test, in [0, 1).
        seed: Another one gives another split.

    Returns:
        ``train``, ``val`` and ``test``, each in the records' order.

    Raises:
        UserError: A fraction is out of range, or nothing would be left for training.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise UserError(f"{name} is {fraction}; it has to be at least 0 and below 1")
    if val_fraction + test_fraction >= 1:
        raise UserError(f"val_fraction + test_fraction is {val_fraction + test_fraction}; leave a part for training")
    records = tuple(records)
    groups: dict[int | None, set[str]] = defaultdict(set)
    for record in records:
        groups[record.label].add(record.group)
    split_of: dict[tuple[int | None, str], str] = {}
    for label, names in groups.items():
        ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        num_val = _share(val_fraction, len(ranked), spare=len(ranked) - 1)
        num_test = _share(test_fraction, len(ranked), spare=len(ranked) - 1 - num_val)
        for rank, name in enumerate(ranked):
            in_val = rank >= len(ranked) - num_val
            split_of[label, name] = "test" if rank < num_test else "val" if in_val else "train"
    return {
        split: tuple(record for record in records if split_of[record.label, record.group] == split)
        for split in ("train", "val", "test")
    }


def locate(entries: Iterable[Entry], files: VideoFiles) -> dict[Entry, str | None]:
    """Path on disk of each listed video, None where it is missing."""
    return {entry: files.find(entry.name) for entry in entries}


def label_records(
    located: Mapping[Entry, str | None], class_names: Sequence[str], group_of: Callable[[str], str]
) -> tuple[VideoRecord, ...]:
    """Records of the listed videos that are on disk, in the list's order.

    Args:
        located: From `locate`.
        class_names: Names in label order; videos of other classes are left out.
        group_of: Leakage group of an id such as ``Archery/v_Archery_g08_c01``.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    return tuple(
        VideoRecord(entry.id, path, labels[entry.class_name], group_of(entry.id))
        for entry, path in located.items()
        if path is not None and entry.class_name in labels
    )


def take_account(located: Mapping[Entry, str | None], class_names: Sequence[str]) -> Account:
    """What became of a list that names videos of these classes."""
    missing = tuple(entry.id for entry, path in located.items() if path is None)
    present = {entry.class_name for entry, path in located.items() if path is not None}
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


def _share(fraction: float, count: int, spare: int) -> int:
    wanted = max(1, round(fraction * count)) if fraction > 0 else 0
    return max(0, min(wanted, spare))


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines without those that are blank; any line ending, with or without a byte-order mark."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the folder or file that holds the lists") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _located_lines(path: Path) -> list[tuple[str, str]]:
    return [(f"{path}, line {number}", line) for number, line in _lines(path)]


def _inside_root(name: str, where: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise UserError(f"{where}: {name!r} points outside the videos' folder; expected '<class>/<video>'")
    if len(path.parts) < 2:
        raise UserError(f"{where}: expected '<class>/<video>', found {name!r}")
    return path.as_posix()


def _unique(entries: list[Entry], path: Path) -> list[Entry]:
    counts = Counter(entry.id.casefold() for entry in entries)
    twice = next((entry.name for entry in entries if counts[entry.id.casefold()] > 1), None)
    if twice is not None:
        raise UserError(f"{path}: {twice} is listed twice; delete one of the lines")
    return entries
