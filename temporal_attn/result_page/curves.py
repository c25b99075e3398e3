"""Training curves from what Lightning's CSV logger left in a run's folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Curves", "find_log", "read_curves"]

Curves = dict[str, list[tuple[float, float]]]
"""Logged name to points (epoch from 1, value)."""


def find_log(folders: Iterable[Path]) -> Path | None:
    """The newest log of a training; None where there is none.

    Args:
        folders: Where a run may lie; the first that has a log is taken.
    """
    for folder in folders:
        logs = [path for path in folder.glob("*/version_*/metrics.csv") if _is_of_training(path)]
        if logs:
            return max(logs, key=lambda path: int(path.parent.name.removeprefix("version_")))
    return None


def _is_of_training(log: Path) -> bool:
    """Whether the CSV logger numbered the folder, and training losses stand in the log."""
    with log.open(encoding="utf-8", errors="replace") as file:
        return log.parent.name.removeprefix("version_").isdigit() and "train/loss" in file.readline()


def read_curves(log: Path, names: Iterable[str]) -> Curves:
    """Values by epoch; what was not logged is left out.

    Args:
        log: A ``metrics.csv``.
        names: Of the logged values.
    """
    curves: Curves = {name: [] for name in names}
    with log.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, points in curves.items():
                if row.get(name) and row.get("epoch"):
                    points.append((float(row["epoch"]) + 1, float(row[name])))
    return {name: points for name, points in curves.items() if points}
