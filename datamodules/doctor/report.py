"""The findings as a table for the terminal, as JSON, and as a page with pictures that needs no network."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.doctor.checks import Inventory, Problem
from datamodules.examination import Examination
from temporal_attn.types import UserError

__all__ = ["SCHEMA", "Diagnosis", "print_table", "write_html", "write_json"]

SCHEMA = "temporal_attn/doctor/1"
_SHOWN = 20
_PICTURED = 60
_MEANINGS = {
    "crashing": "The decoder crashes on these files.",
    "damaged": "The decoder reports damage: some frames show what was never filmed.",
    "duplicate": "The same content twice. Under two labels or on two sides of the split it falsifies what is measured.",
    "empty-class": "Classes that the lists name, without a single clip on disk.",
    "hanging": "The decoder does not come back from these files.",
    "imbalance": "Some classes have many more clips than others.",
    "leakage": "Clips of one source on two sides of the split: the model is tested on what it has seen.",
    "look-alike": "Clips of one class that look the same: keep them on one side of the split.",
    "misnumbered": "Numbers of images are missing or appear twice: the video jumps there.",
    "missing": "Listed, but not on disk.",
    "mixed-size": "Images of one video that differ in size: no reader makes a video of them.",
    "over-reported": "The header counts one frame too many; readers that trust it go astray at the end.",
    "too-short": "Fewer frames than a clip has.",
    "truncated": "Fewer frames decode than the container claims.",
    "unlisted": "On disk, but in no list.",
    "unreadable": "Not a single frame can be read.",
}


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor knows when all is checked.

    Args:
        root: Folder of the videos.
        splits: Where the split came from, None for the folders.
        fold: Of the official lists.
        inventory: The data set.
        examinations: What its files hold, by path.
        problems: Errors first.
    """

    root: str
    splits: str | None
    fold: int
    inventory: Inventory
    examinations: Mapping[str, Examination]
    problems: tuple[Problem, ...]

    @property
    def counts(self) -> Counter[str]:
        """How many errors and warnings there are."""
        return Counter(problem.severity for problem in self.problems)

    @property
    def summary(self) -> dict[str, int | float]:
        """How much there is of it."""
        return {
            "files": len(self.examinations),
            "classes": len({clip.label for clip in self.inventory.clips if clip.label is not None}),
            "frames": sum(found.frames for found in self.examinations.values()),
            "seconds": round(sum(found.seconds for found in self.examinations.values()), 3),
            **{split: sum(clip.split == split for clip in self.inventory.clips) for split in ("train", "val", "test")},
        }

    def shorten(self, path: str) -> str:
        """A file's name below the root; anything else as it is."""
        return path.removeprefix(str(Path(self.root)) + os.sep)

    @property
    def verdict(self) -> str:
        """One line."""
        errors, warnings = self.counts["error"], self.counts["warning"]
        if not errors and not warnings:
            return "nothing is wrong"
        return f"{errors:,} error{'s' * (errors != 1)}, {warnings:,} warning{'s' * (warnings != 1)}"


def print_table(diagnosis: Diagnosis) -> None:
    """Every error and one line for each kind of warning, on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file or another program wants names in one piece
        console.width = 10_000
    table = Table(box=None, pad_edge=False, show_header=False)
    for overflow in ("ignore", "ignore", "fold", "fold"):
        table.add_column(overflow=overflow, no_wrap=overflow == "ignore")
    by_kind = Counter((problem.severity, problem.kind) for problem in diagnosis.problems)
    shown: Counter[tuple[str, str]] = Counter()
    for problem in diagnosis.problems:
        key = (problem.severity, problem.kind)
        shown[key] += 1
        if shown[key] > (_SHOWN if problem.severity == "error" else 1):
            continue
        count = f"{by_kind[key]:,} ×" if shown[key] == 1 else ""
        names = escape(_printable(diagnosis.shorten(problem.path)))
        if problem.other:
            names += f"\n[dim]{escape(_printable(diagnosis.shorten(problem.other)))}[/]"
        style = "red" if problem.severity == "error" else "yellow"
        table.add_row(count, f"[{style}]{problem.kind}[/]", names, escape(problem.detail))
    console.print(table)
    summary = diagnosis.summary
    console.print(f"{summary['files']:,} files, {summary['seconds'] / 3600:.1f} hours: {diagnosis.verdict}")


def _printable(name: str) -> str:
    """A name without the stand-ins of bytes that are not UTF-8, which no text can be written with."""
    return name.encode("utf-8", "backslashreplace").decode()


def write_json(diagnosis: Diagnosis, path: str) -> None:
    """All problems, machine-readable.

    Raises:
        UserError: The file cannot be written.
    """
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "root": diagnosis.root,
        "splits": diagnosis.splits,
        "fold": diagnosis.fold,
        **diagnosis.summary,
        "errors": diagnosis.counts["error"],
        "warnings": diagnosis.counts["warning"],
        "problems": [asdict(problem) for problem in diagnosis.problems],
    }
    _write(path, json.dumps(document, indent=2) + "\n")


def write_html(diagnosis: Diagnosis, path: str) -> None:
    """A page with pictures of the files that the problems name.

    Raises:
        UserError: The file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in diagnosis.problems:
        kinds.setdefault((problem.severity, problem.kind), []).append(problem)
    page = environment.get_template("report.html.j2").render(
        diagnosis=diagnosis,
        summary=diagnosis.summary,
        kinds=kinds,
        meanings=_MEANINGS,
        pictured=_PICTURED,
        picture=lambda name: _picture(diagnosis.examinations.get(name)),
    )
    _write(path, page)


def _picture(found: Examination | None) -> str:
    """Address of a thumbnail that carries the picture itself, empty where there is none."""
    if found is None or not found.thumbnail:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(found.thumbnail).decode()}"


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another file") from None
