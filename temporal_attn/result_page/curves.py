"""Training curves from what Lightning's loggers left in a run's folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["Curves", "find_log", "read_curves"]

Curves = dict[str, list[tuple[float, float]]]
"""Logged name to points (epoch from 1, value)."""

_TRAINED = "train/loss"


def find_log(folders: Iterable[Path]) -> Path | None:
    """The newest log of a training; None where there is none.

    Args:
        folders: Where a run may lie; the first that has a log is taken.

    Returns:
        A ``metrics.csv`` of the CSV logger, or the folder of TensorBoard's events, which is Lightning's logger where
        TensorBoard is installed.
    """
    for folder in folders:
        versions = [path for path in folder.glob("*/version_*") if path.name.removeprefix("version_").isdigit()]
        for version in sorted(versions, key=lambda path: int(path.name.removeprefix("version_")), reverse=True):
            log = version / "metrics.csv"
            if log.is_file():
                with log.open(encoding="utf-8", errors="replace") as file:
                    if _TRAINED in file.readline():
                        return log
            elif any(version.glob("events.out.tfevents.*")) and any(_events(version, _TRAINED)):
                return version
    return None


def read_curves(log: Path, names: Iterable[str]) -> Curves:
    """Values by epoch; what was not logged is left out.

    Args:
        log: As `find_log` found it.
        names: Of the logged values.
    """
    curves: Curves = {name: [] for name in names}
    if log.is_dir():
        epochs = dict(_events(log, "epoch"))
        for name, points in curves.items():
            points += [(epochs[step] + 1, value) for step, value in _events(log, name) if step in epochs]
    else:
        with log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, points in curves.items():
                    if row.get(name) and row.get("epoch"):
                        points.append((float(row["epoch"]) + 1, float(row[name])))
    return {name: points for name, points in curves.items() if points}


def _events(folder: Path, name: str) -> Iterator[tuple[int, float]]:
    """Step and value of what TensorBoard's events say of a name; nothing where TensorBoard is not installed."""
    try:
        accumulator = import_module("tensorboard.backend.event_processing.event_accumulator")
    except ImportError:
        return
    events: Any = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    if name in events.Tags()["scalars"]:
        yield from ((event.step, event.value) for event in events.Scalars(name))
