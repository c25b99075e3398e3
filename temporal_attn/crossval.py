"""`temporal-attn crossval`: an experiment trained and tested on every fold, and what the folds say together."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules import HMDB51DataModule, UCF101DataModule
from datamodules.atomic import write_atomically
from datamodules.base import VideoDataModule
from datamodules.records import Account, Catalogue, RecordTable
from datamodules.records.splits import fold_by_groups, split_by_groups
from temporal_attn.evaluation.calibration import calibration_interval, reliability
from temporal_attn.evaluation.intervals import Array, draw_groups, sums_by_group
from temporal_attn.evaluation.predictions import has_class, is_right, read_judged
from temporal_attn.lightning_cli import TemporalCLI, is_unsound, run
from temporal_attn.module import VideoClassificationModule
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError

__all__ = ["SCHEMA", "crossval", "mean_of_folds_interval", "pool", "refolded"]

SCHEMA = "temporal_attn/crossval/1"

_OFFICIAL = 3
_VAL_FRACTION = 0.2
_SETTINGS, _RESULT = "settings.json", "crossval.json"


def crossval(
    config: list[str] | str,
    out: str,
    folds: Literal["official", "groups"] = "official",
    k: int = 5,
    options: list[str] | str | None = None,
) -> int:
    """Train and test an experiment on every fold.

    A second call goes on where the first was stopped: with the last epoch of a fold that was being trained. A fold that
    has been tested is not run again, unless too many of its videos could not be read.

    Args:
        config: YAML of `temporal-attn fit`; of several, later ones go before earlier ones.
        out: Folder; each fold gets one in it, and crossval.json holds what they say together.
        folds: ``official`` takes the data set's own three (UCF101, HMDB51). ``groups`` makes k folds of whole groups
            out of what the data set trains and validates on, so that its own test part stays unseen.
        k: How many folds of groups.
        options: Further options of every fold, such as ``data.root=ROOT``.

    Returns:
        Exit status: that of the first fold that did not end well.

    Raises:
        UserError: A number is out of range, the data set has no such folds, the module is none of ours, or the folder
            holds folds of another experiment.
    """
    if k < 2:
        raise UserError(f"k is {k}; a cross-validation has 2 folds or more")
    files = [config] if isinstance(config, str) else config
    words = [options] if isinstance(options, str) else options or []
    settings: dict[str, Any] = {
        "config": files,
        "folds": folds,
        "k": _OFFICIAL if folds == "official" else k,
        "options": words,
    }
    settings["config_sha256"] = [_digest(file) for file in files]
    folder = writable_folder(out, "--out")
    _claim(folder / _SETTINGS, settings)
    given = [*(f"--config={file}" for file in files), *(f"--{option}" for option in words)]
    runs = [folder / f"fold-{number}" for number in range(1, settings["k"] + 1)]
    for number, own in enumerate(runs, start=1):
        tested = own / "metrics.json"
        is_trained = tested.is_file()
        if is_trained and not is_unsound(json.loads(tested.read_text(encoding="utf-8"))):
            continue
        place = [*given, f"--trainer.default_root_dir={own}"]
        if folds == "official":
            program: type[TemporalCLI] = _OfficialCLI
            place.append(f"--data.fold={number}")
        else:
            program = _folding(k, number)
        begun = (own / "checkpoints" / "last.ckpt").is_file()
        go_on = ["--ckpt_path=last"] if begun else []
        status = 0 if is_trained else run(["fit", *place, *go_on], program)
        status = status or run(["test", *place, "--ckpt_path=best"], program)
        if status:
            return status
    result = {"schema": SCHEMA, **settings, **pool(runs)}
    (folder / _RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _print(result)
    print(folder / _RESULT)
    return 0


def pool(runs: Sequence[Path]) -> dict[str, Any]:
    """What tested folds say together.

    Args:
        runs: Folder of each fold.

    Returns:
        top1, its mean over folds, their standard deviation and its interval by bootstrap over the groups of all folds;
        mean_class_accuracy, map and nll as means; ece of all videos together, with its interval; train_s in all; and
        the folds' own figures. What a fold has no figure for is the mean over the others, and None without any.
    """
    metrics = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in runs]
    rows = [read_judged(run) for run in runs]
    judged = [[row for row in own if has_class(row)] for own in rows]
    right = [np.array([float(is_right(row)) for row in own]) for own in judged]
    groups = [[str(row["group"]) for row in own] for own in judged]
    read = [row for own in rows for row in own if row["probabilities"] is not None]
    confidence = np.array([max(row["probabilities"].values()) for row in read])
    hits = np.array([float(is_right(row)) for row in read])
    top1 = [one["top1"] for one in metrics if one["top1"] is not None]
    seconds = [one["train_s"] for one in metrics]
    keys = ("top1", "top5", "mean_class_accuracy", "map", "ece", "nll", "temperature", "train_s", "videos", "groups")
    return {
        "top1": {
            "mean": _mean(top1),
            "std": statistics.stdev(top1) if len(top1) > 1 else None,
            "ci95": list(mean_of_folds_interval(right, groups)) if top1 else None,
        },
        **{key: _mean(one[key] for one in metrics) for key in ("mean_class_accuracy", "map", "nll")},
        "ece": reliability(confidence, hits).ece if read else None,
        "ece_ci95": list(calibration_interval(confidence, hits, [str(row["group"]) for row in read])) if read else None,
        "train_s": None if None in seconds else sum(seconds),
        "results": [{"fold": n, **{key: one[key] for key in keys}} for n, one in enumerate(metrics, start=1)],
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def mean_of_folds_interval(
    values: Sequence[Array], groups: Sequence[Sequence[str]], samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean over folds of the mean over videos, by bootstrap over groups.

    A group is drawn in all folds at once: the official folds of HMDB51 test some of their groups more than once.

    Args:
        values: One array (N,) a fold.
        groups: The group of each of its videos.
        samples: Bootstrap samples.
        seed: Of the draws.
    """
    place = np.repeat(np.arange(len(values)), [len(own) for own in values])
    columns = np.zeros((len(place), 2 * len(values)))  # of each fold: the sum, and how many
    columns[np.arange(len(place)), place] = np.concatenate(values)
    columns[np.arange(len(place)), len(values) + place] = 1
    sums, size = sums_by_group(columns, [name for own in groups for name in own])
    total, count = np.split(sums, 2, axis=1)

    def statistic(drawn: Array) -> Array:
        seen = drawn @ count
        with np.errstate(invalid="ignore"):
            means: Array = np.nanmean((drawn @ total) / np.where(seen > 0, seen, np.nan), axis=1)
        return means

    low, high = np.percentile(draw_groups(len(size), statistic, samples, seed), [2.5, 97.5])
    return float(low), float(high)


def refolded(catalogue: Catalogue, folds: int, fold: int, val_fraction: float, seed: int) -> Catalogue:
    """The training and validation videos of a data set, dealt anew by whole groups; its test videos are left out.

    Args:
        catalogue: The data set.
        folds: Number of folds.
        fold: The one that tests, from 1.
        val_fraction: Share of each class's other groups that validates.
        seed: Decides among groups of the same size, and who validates.

    Raises:
        UserError: There are fewer groups than folds.
    """
    known = RecordTable([*catalogue.records["train"], *catalogue.records["val"]])
    parts = fold_by_groups(known, folds, fold, seed)
    rest = split_by_groups(parts["train"], val_fraction, seed=seed)
    records = {"train": rest["train"], "val": rest["val"], "test": parts["test"]}
    whole = catalogue.accounts["train"]
    accounts = {
        split: Account(len(own), len(own), (), whole.num_classes, whole.empty_classes) for split, own in records.items()
    }
    return replace(catalogue, records=records, accounts=accounts)


class _JudgedCLI(TemporalCLI):
    """The program with a module whose tests can be pooled."""

    def after_instantiate_classes(self) -> None:
        super().after_instantiate_classes()
        if not isinstance(self.model, VideoClassificationModule):
            raise UserError(
                f"crossval pools what a test of VideoClassificationModule writes, and {type(self.model).__name__} is "
                "none: train and test its folds by themselves"
            )


class _OfficialCLI(_JudgedCLI):
    """The program on a data set that comes with folds."""

    def after_instantiate_classes(self) -> None:
        super().after_instantiate_classes()
        if not isinstance(self.datamodule, (UCF101DataModule, HMDB51DataModule)):
            raise UserError(
                f"folds: official are those of UCF101 and HMDB51, and {type(self.datamodule).__name__} has none; take "
                "--folds groups"
            )


def _folding(folds: int, fold: int) -> type[TemporalCLI]:
    """The program on one fold of groups."""

    class FoldedCLI(_JudgedCLI):
        def after_instantiate_classes(self) -> None:
            super().after_instantiate_classes()
            data = self.datamodule
            if not isinstance(data, VideoDataModule):
                raise UserError("folds: groups need a data set of the package datamodules, which knows its groups")
            plan = getattr(data, "split_plan", None)
            fraction = plan.val_fraction if plan is not None else _VAL_FRACTION
            data.catalogue = refolded(data.catalogue, folds, fold, fraction, data.seed)

    return FoldedCLI


def _digest(file: str) -> str | None:
    """What a file holds; None where there is none, which the program says better."""
    path = Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Remember whose folds lie here.

    Raises:
        UserError: Those of another experiment do.
    """
    # Where a wrong option stopped the first fold before it began, nothing lies here yet.
    begun = path.is_file() and any(path.parent.glob("fold-*"))
    if begun and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise UserError(
            f"{path.parent}: holds the folds of other settings, see {path}; choose another folder with --out"
        )
    write_atomically(path, (json.dumps(settings, indent=2) + "\n").encode())


def _print(result: dict[str, Any]) -> None:
    print("fold   top-1  mean class    ECE  videos  groups")
    for row in result["results"]:
        figures = f"{_percent(row['top1']):>6}  {_percent(row['mean_class_accuracy']):>10}  {_percent(row['ece']):>5}"
        print(f"{row['fold']:>4}  {figures}  {row['videos']:>6}  {row['groups']:>6}")
    top1 = result["top1"]
    low, high = (_percent(end) for end in top1["ci95"] or (None, None))
    found = f"mean {_percent(top1['mean'])} ± {_percent(top1['std'])}, 95 % interval {low} to {high}"
    print(f"{found}; ECE {_percent(result['ece'])}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
