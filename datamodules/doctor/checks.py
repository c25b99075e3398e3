"""The checks: from what a data set names and what its files hold to a list of problems. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from datamodules.examination import Examination
from datamodules.fingerprint import FINGERPRINT_BYTES, alike_pairs

__all__ = ["Clip", "Inventory", "Problem", "find_problems"]

_HARMLESS = ("misnumbered", "over-reported")
_IMBALANCE = 10.0
_NAMED = 5


@dataclass(frozen=True)
class Clip:
    """A file and what the data set says of it.

    Args:
        path: The file.
        label: Names of its classes; None where nothing says.
        split: ``train``, ``val`` or ``test``; None where nothing says.
        group: Leakage unit, None where nothing says.
    """

    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Inventory:
    """All videos that a data set names, or that lie in its folder.

    Args:
        clips: Those that it names and that are on disk. A file in two lists is two clips.
        strays: Files that it does not name; their label is their folder.
        missing: Ids that it names, of files that are not on disk.
        empty_classes: Classes that it names, without any clip on disk.
    """

    clips: tuple[Clip, ...]
    strays: tuple[Clip, ...] = ()
    missing: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Args:
        kind: What, in a word.
        severity: ``error`` or ``warning``.
        path: The file, or the id or class, that it is about.
        other: The file on the other side, empty where there is none.
        detail: The rest, in words.
    """

    kind: str
    severity: Literal["error", "warning"]
    path: str
    other: str = ""
    detail: str = ""


def find_problems(
    inventory: Inventory, examinations: Mapping[str, Examination], min_frames: int, strict: bool = False
) -> list[Problem]:
    """All that is wrong, errors first.

    Args:
        inventory: The data set.
        examinations: What its files hold, by their paths in the inventory.
        min_frames: Videos with fewer frames count as too short.
        strict: Whether warnings are errors.
    """
    problems = [
        *_broken_files(examinations),
        *_leaks(inventory.clips),
        *_duplicates(inventory, examinations),
        *_short_videos(examinations, min_frames),
        *_missing_videos(inventory),
        *(Problem("unlisted", "warning", clip.path, detail="on disk, but in no list") for clip in inventory.strays),
        *_unequal_classes(inventory.clips),
    ]
    if strict:
        problems = [replace(problem, severity="error") for problem in problems]
    return sorted(problems, key=lambda problem: (problem.severity, problem.kind, problem.path, problem.other))


def _broken_files(examinations: Mapping[str, Examination]) -> Iterator[Problem]:
    for path, found in examinations.items():
        if found.problem:
            severity: Literal["error", "warning"] = "warning" if found.problem in _HARMLESS else "error"
            yield Problem(found.problem, severity, path, detail=found.reason)


def _short_videos(examinations: Mapping[str, Examination], min_frames: int) -> Iterator[Problem]:
    for path, found in examinations.items():
        if found.is_readable and found.frames < min_frames:
            detail = f"{found.frames} frames; a clip of {min_frames} repeats or pads them"
            yield Problem("too-short", "warning", path, detail=detail)


def _missing_videos(inventory: Inventory) -> Iterator[Problem]:
    """One line a video, but one in all for the classes that are not there at all."""
    absent = set(inventory.empty_classes)
    missing = [name for name in inventory.missing if name.split("/")[0] not in absent]
    yield from (Problem("missing", "warning", name, detail="listed, but not on disk") for name in missing)
    if absent:
        names = sorted(absent)
        listed = len(inventory.missing) - len(missing)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        files = f" ({listed:,} listed files)" if listed else ""  # names that are ids do not tell their class
        detail = f"{len(names)} listed classes have no clip on disk{files}"
        yield Problem("empty-class", "warning", ", ".join(names[:_NAMED]) + more, detail=detail)


def _unequal_classes(clips: Sequence[Clip]) -> Iterator[Problem]:
    counts = Counter(label for path, label in {(clip.path, clip.label) for clip in clips} if label is not None)
    if not counts:
        return
    (most, largest), (fewest, smallest) = counts.most_common(1)[0], counts.most_common()[-1]
    if largest >= _IMBALANCE * smallest:
        detail = f"{smallest} clips, {most} has {largest}: weigh the classes, or balance what is drawn"
        yield Problem("imbalance", "warning", fewest, most, detail)


def _leaks(clips: Sequence[Clip]) -> Iterator[Problem]:
    """Groups on several sides: each clip on a side that has fewer of them is named."""
    sides: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        if clip.group is not None and clip.split is not None:
            sides[clip.group][clip.split].append(clip)
    for group, by_split in sides.items():
        if len(by_split) < 2:
            continue
        ranked = sorted(by_split.values(), key=lambda side: (-len(side), side[0].split))
        for clip in (clip for side in ranked[1:] for clip in side):
            other = next((mate for mate in ranked[0] if mate.path == clip.path), ranked[0][0])
            what = "the same file" if other.path == clip.path else f"another clip of group {group}"
            detail = f"in {clip.split}, while {what} is in {other.split}"
            yield Problem("leakage", "error", clip.path, other.path, detail)


# Duplicates


def _duplicates(inventory: Inventory, examinations: Mapping[str, Examination]) -> Iterator[Problem]:
    """Files with the same content, and videos that look the same."""
    clips = _one_a_file(inventory)
    yield from _copies(clips, examinations)
    yield from _look_alikes(clips, examinations)


def _one_a_file(inventory: Inventory) -> dict[str, Clip]:
    """Clips by path; a file in two lists is a leak, and no duplicate of itself."""
    return {clip.path: clip for clip in (*inventory.strays, *inventory.clips)}


def _copies(clips: Mapping[str, Clip], examinations: Mapping[str, Examination]) -> Iterator[Problem]:
    by_digest: dict[bytes, list[Clip]] = defaultdict(list)
    for path, found in examinations.items():
        if found.digest and found.size:
            by_digest[found.digest].append(clips[path])
    for same in by_digest.values():
        for place, clip in enumerate(same):
            before = same[:place]
            conflicts = [other for other in before if _conflict(clip, other)]
            if conflicts:
                yield _duplicate(clip, conflicts[0], "the same bytes")
            elif before:
                detail = "the same bytes, twice in one class and split"
                yield Problem("duplicate", "warning", clip.path, before[0].path, detail)


def _look_alikes(clips: Mapping[str, Clip], examinations: Mapping[str, Examination]) -> Iterator[Problem]:
    paths = [path for path, found in examinations.items() if len(found.print) == FINGERPRINT_BYTES]
    if not paths:
        return
    found = [examinations[path] for path in paths]
    prints = np.frombuffer(b"".join(row.print for row in found), np.uint8).reshape(len(paths), -1)
    pairs, distances = alike_pairs(prints, [row.seconds for row in found], [row.frames for row in found])
    unlike = {
        (one, other): float(distance) + _length_differs(found[one], found[other])
        for (one, other), distance in zip(pairs.tolist(), distances, strict=True)
    }
    within: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for one, other in sorted(_nearest(unlike, [clips[path].group or path for path in paths])):
        clip, mate = clips[paths[one]], clips[paths[other]]
        if found[one].digest == found[other].digest:
            continue
        if _conflict(clip, mate):
            yield _duplicate(clip, mate, "looks the same")
        else:
            detail = "looks the same, but is of another group of that class"
            yield Problem("look-alike", "warning", clip.path, mate.path, detail)
    for one, other in unlike:
        clip, mate = clips[paths[one]], clips[paths[other]]
        if clip.group is not None and clip.group == mate.group and found[one].digest != found[other].digest:
            within[clip.group].append((clip.path, mate.path))
    for group, alike in within.items():
        count = len({path for pair in alike for path in pair})
        yield Problem("look-alike", "warning", *alike[0], f"{count} clips of group {group} look the same")


def _length_differs(one: Examination, other: Examination) -> float:
    """By which share of their length two videos differ: in frames or in seconds, whichever is less."""
    sides = ((one.frames, other.frames), (one.seconds, other.seconds))
    return min(abs(a - b) / max(a, b, 1e-6) for a, b in sides)


def _nearest(unlike: Mapping[tuple[int, int], float], groups: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs across groups of which each is the nearest that the other has in its group.

    Clips of a group look alike, so that whatever resembles one of them resembles others: only one is meant.
    """
    best: dict[tuple[int, str], float] = {}
    across = {pair: distance for pair, distance in unlike.items() if groups[pair[0]] != groups[pair[1]]}
    for (one, other), distance in across.items():
        for clip, group in ((one, groups[other]), (other, groups[one])):
            best[clip, group] = min(distance, best.get((clip, group), np.inf))
    return [
        (one, other)
        for (one, other), distance in across.items()
        if distance == best[one, groups[other]] == best[other, groups[one]]
    ]


def _conflict(clip: Clip, other: Clip) -> bool:
    """Whether the same content in both does harm: it has two labels, or stands on two sides of the split."""
    return _labels_differ(clip, other) or (None not in (clip.split, other.split) and clip.split != other.split)


def _labels_differ(clip: Clip, other: Clip) -> bool:
    if clip.label is None or other.label is None:
        return False
    return clip.label.casefold() != other.label.casefold()


def _duplicate(clip: Clip, other: Clip, how: str) -> Problem:
    """The one that is least sure to belong comes first: what is in no list, then what trains."""
    clip, other = sorted((clip, other), key=lambda side: (side.split is not None, side.split == "test", side.path))
    where = f"labelled {clip.label} and {other.label}" if _labels_differ(clip, other) else ""
    where = where or f"in {clip.split} and in {other.split}"
    return Problem("duplicate", "error", clip.path, other.path, f"{how}, {where}")
