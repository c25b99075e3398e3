"""The command: inventory, scan, checks, and the reports of what they found."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Literal

from datamodules.doctor.checks import Inventory, Problem, find_problems
from datamodules.doctor.image_folders import examine_folders
from datamodules.doctor.inventory import take_inventory
from datamodules.doctor.report import Diagnosis, print_table, write_html, write_json
from datamodules.examination import Examination
from datamodules.exclusion import write_exclusions
from datamodules.manifest import scan
from temporal_attn.types import UserError

__all__ = ["run_doctor"]

_QUARANTINED = (*("crashing", "damaged", "duplicate", "hanging", "leakage", "mixed-size", "truncated", "unreadable"),)


def run_doctor(
    root: str,
    splits: str | None = None,
    fold: int = 1,
    layout: Literal["ucf101", "hmdb51", "ssv2", "diving48", "jester", "kinetics", "table", "mmaction", "lists"]
    | None = None,
    json: str | None = None,
    html: str | None = None,
    quarantine: str | None = None,
    strict: bool = False,
    min_frames: int = 8,
    workers: int | None = None,
    timeout: float = 60.0,
    cache_dir: str | None = None,
    allow_outside: bool = False,
) -> int:
    """Say what is wrong with a data set, before it costs a training run.

    Errors are files that cannot be read, hang or crash their decoder, are cut off or damaged; the same content under
    two labels or on two sides of the split, re-encoded too; and groups of clips on two sides of the split. Folders of
    images are videos too: unreadable images and sizes that change are errors. Warnings are gaps in their numbers,
    videos that are listed but missing, in no list or too short, classes without clips or far smaller than others, and
    clips of one class that look the same.

    Args:
        root: Folder of the videos.
        splits: Folder of the annotation files, or the file where it is one: the official ones of UCF101, HMDB51,
            Kinetics, Something-Something v2, Diving48 or Jester, mmaction2's lists, plain ``train.txt``, ``val.txt``
            and ``test.txt``, or a table (.csv, .tsv, .parquet); None takes the split from the folders.
        fold: Of UCF101's or HMDB51's official lists.
        layout: Of the splits; found out by their files if not given.
        json: File for all problems, machine-readable.
        html: File for a page with pictures.
        quarantine: File for the list of videos to leave out, for ``loader.exclude``: those with errors, and of two that
            are the same, one.
        strict: Whether warnings are errors.
        min_frames: Videos with fewer frames are too short.
        workers: Files that are decoded at a time; None for one a processor.
        timeout: Seconds without progress after which a decoder counts as hanging; a long video may take longer.
        cache_dir: Folder for the manifest: give it to the datamodule too, and training trusts it. None takes a folder
            of the data set's own in the user's cache.
        allow_outside: Whether links and lists may lead out of the root.

    Returns:
        Exit status: 1 when there is an error.

    Raises:
        UserError: The layout is not understood, a list is malformed, or a file cannot be written.
    """
    for path in (json, html, quarantine):
        _check_writable(path)
    inventory = take_inventory(root, splits, fold, layout, allow_outside)
    found = _examine(inventory, cache_dir or _user_cache(root), workers, timeout)
    problems = find_problems(inventory, found, min_frames, strict)
    diagnosis = Diagnosis(root, splits, fold, inventory, found, tuple(problems))
    print_table(diagnosis)
    if json is not None:
        write_json(diagnosis, json)
    if html is not None:
        write_html(diagnosis, html)
    if quarantine is not None:
        write_exclusions(quarantine, _reasons(problems, found))
    return int(any(problem.severity == "error" for problem in problems))


def _examine(inventory: Inventory, cache_dir: str, workers: int | None, timeout: float) -> dict[str, Examination]:
    """What the files and the folders of images hold, by path."""
    paths = sorted({clip.path for clip in (*inventory.clips, *inventory.strays)})
    folders = [path for path in paths if os.path.isdir(path)]
    files = sorted(set(paths) - set(folders))
    found = dict(zip(files, scan(files, cache_dir, workers, timeout), strict=True))
    return {**found, **dict(zip(folders, examine_folders(folders, workers), strict=True))}


def _reasons(problems: list[Problem], found: dict[str, Examination]) -> dict[str, str]:
    named = [problem for problem in problems if problem.kind in _QUARANTINED and problem.severity == "error"]
    return {problem.path: f"{problem.kind}: {problem.detail}" for problem in named if problem.path in found}


def _check_writable(path: str | None) -> None:
    folder = None if path is None else Path(path).absolute().parent
    if path is not None and os.path.isdir(path):
        raise UserError(f"{path}: is a folder; choose a file")
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f"{path}: its folder does not exist or cannot be written; choose another file")


def _user_cache(root: str) -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return str(Path(cache) / "temporal_attn" / "data" / name)
