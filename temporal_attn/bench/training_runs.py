"""Runs of the table: each is trained once, goes on where it was stopped, and leaves its answers and figures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import yaml  # type: ignore[import-untyped]

from datamodules.dataset import load_clip
from temporal_attn.bench.results import write_json
from temporal_attn.bench.timing import machine
from temporal_attn.bench.training_costs import Costs, measure_costs
from temporal_attn.bench.training_rows import Row
from temporal_attn.evaluation.predictions import is_right, read_judged, write_judged
from temporal_attn.evaluation.table import VideoTable
from temporal_attn.inference import load_classifier
from temporal_attn.lightning_cli import TemporalCLI, run
from temporal_attn.types import UserError, VideoRecord

__all__ = ["ANSWERS", "Finished", "Place", "RunRecorder", "finished_runs", "train", "work"]

RESULT_SCHEMA = "temporal-attn/bench-training-run/1"
ANSWERS = "val_predictions.jsonl"
"""What the model said of each validation video after the last epoch; `temporal-attn compare` reads it too."""

_SETTINGS, _RESULT = "settings.json", "result.json"
_TIMED_CLIPS = 8


class Place(NamedTuple):
    """What is trained, and where it lies.

    Args:
        config: The configuration that rows differ from.
        root: The videos.
        splits: The lists.
        runs: Folder of the runs.
        cache: Folder of the features, shared by all runs; what depends on other settings lies apart by itself.
        options: Further options of every run.
    """

    config: str
    root: str
    splits: str
    runs: Path
    cache: str
    options: tuple[str, ...] = ()

    def folder(self, row: Row, seed: int) -> Path:
        """Of one run."""
        return self.runs / f"{row.name}-{seed}"

    def settings(self, row: Row) -> dict[str, Any]:
        """What a row's runs depend on, but for the seed and where things lie.

        Raises:
            UserError: The configuration cannot be read.
        """
        try:
            config = yaml.safe_load(Path(self.config).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"config {self.config}: cannot be read ({' '.join(str(error).split())})") from None
        return {"config": config, "options": [*row.options, *self.options]}


class Finished(NamedTuple):
    """A run that is done.

    Args:
        answers: Video id to whether it was classified correctly.
        groups: Video id to its leakage group.
        costs: What its model costs.
        fit_cpu_s: Seconds of CPU time, of all threads of the process, in training; features that were cached before the
            first epoch, and decoding in processes of its own, are not in it.
        date: Day on which it was done, as in 2025-12-31.
        threads: Of torch.
        machine: As `temporal_attn.bench.timing.machine` describes it.
    """

    answers: dict[str, bool]
    groups: dict[str, str]
    costs: Costs
    fit_cpu_s: float
    date: str
    threads: int
    machine: dict[str, Any]


class RunRecorder(pl.Callback):
    """Writes what the model says of the validation videos after each epoch, and takes the CPU time of training.

    A later epoch replaces an earlier one, so that in the end the last one stands there, and no epoch is chosen.

    Args:
        path: The file of answers.

    Attributes:
        cpu_seconds: Of training, those of the runs that this one goes on from included.
        videos: The first validation videos.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cpu_seconds = 0.0
        self.videos: list[VideoRecord] = []
        self._before = 0.0
        self._began: float | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember which videos there are to time the model on."""
        source: Any = trainer
        records = source.datamodule.catalogue.records["val"]
        self.videos = [records[number] for number in range(min(_TIMED_CLIPS, len(records)))]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock: whatever is cached has been cached."""
        self._began = time.process_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the answers of this epoch."""
        if trainer.sanity_checking:
            return
        module: Any = pl_module
        evaluation = module.recorder.merge(trainer.world_size)
        rows = evaluation.rows(module.scoring)
        table = VideoTable.of(rows, len(module.class_names), evaluation.failed)
        reasons = {video["id"]: video["reason"] for video in evaluation.failed}
        write_judged(self.path, table, module.class_names, module.scoring, reasons)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self.cpu_seconds, self._began = self._spent(), None

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far, for the checkpoint."""
        return {"cpu_seconds": self._spent()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up again."""
        self._before = self.cpu_seconds = state_dict["cpu_seconds"]

    def _spent(self) -> float:
        return self.cpu_seconds if self._began is None else self._before + time.process_time() - self._began


def work(rows: Sequence[Row], seeds: int | None) -> Iterator[tuple[Row, int]]:
    """What is to be trained, in the order of doing it.

    Seed by seed, what is cheap before what is dear, so that a suite that is stopped leaves comparisons and not one row
    with all its seeds. Rows of a single seed are the dearest, and come last.

    Args:
        rows: In the order of the table.
        seeds: Most seeds of a row; None for as many as belong to it.
    """
    rank = {"frozen": 0, "partial": 1, "full": 2}
    jobs = [(row, seed) for row in rows for seed in row.seeds if seeds is None or seed < seeds]
    yield from sorted(jobs, key=lambda job: (len(job[0].seeds) == 1, job[1], rank[job[0].kind]))


def train(row: Row, seed: int, place: Place) -> int:
    """Train one run unless it is done, from where it was stopped.

    Returns:
        Exit status of `temporal-attn fit`.

    Raises:
        UserError: The run's folder holds one of other settings.
    """
    folder = place.folder(row, seed)
    settings = place.settings(row)
    _claim(folder, settings)
    if (folder / _RESULT).is_file():
        return 0
    recorder = RunRecorder(folder / ANSWERS)
    words = [
        f"--config={place.config}",
        f"--data.root={place.root}",
        f"--data.splits={place.splits}",
        f"--data.cache_dir={place.cache}",
        f"--seed_everything={seed}",
        f"--trainer.default_root_dir={folder}",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--checkpoint.monitor=null",  # best.ckpt is the last epoch
        *(f"--{option}" for option in settings["options"]),
    ]
    checkpoints = folder / "checkpoints"
    if (checkpoints / "last.ckpt").is_file():
        words.append(f"--ckpt_path={checkpoints / 'last.ckpt'}")
    print(f"{row.name}, seed {seed}", file=sys.stderr)
    with redirect_stdout(sys.stderr):
        status = run(["fit", *words], _recorded_by(recorder))
    if status:
        return status
    loaded = load_classifier(checkpoints / "best.ckpt")
    clips = [load_clip(record.path, loaded.clip, record=record) for record in recorder.videos]
    costs = measure_costs(loaded, clips)
    write_json(
        str(folder / _RESULT),
        RESULT_SCHEMA,
        row=row.name,
        seed=seed,
        **costs._asdict(),
        fit_cpu_s=recorder.cpu_seconds,
        date=datetime.now(timezone.utc).date().isoformat(),
        threads=torch.get_num_threads(),
        machine=machine("temporal-attn", "torch", "torchvision", "timm", "pytorch-lightning"),
    )
    (checkpoints / "last.ckpt").unlink()  # best.ckpt is the same, and there are many runs
    return 0


def finished_runs(row: Row, place: Place) -> dict[int, Finished]:
    """The runs of a row that are done, by seed.

    Raises:
        UserError: A run has other settings than these.
    """
    found = {}
    for seed in row.seeds:
        folder = place.folder(row, seed)
        if (folder / _RESULT).is_file():
            _claim(folder, place.settings(row))
            found[seed] = _read(folder)
    return found


def _read(folder: Path) -> Finished:
    result = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    judged = {str(row["video_id"]): row for row in read_judged(folder / ANSWERS)}
    return Finished(
        answers={video: is_right(row) for video, row in judged.items()},
        groups={video: str(row["group"]) for video, row in judged.items()},
        costs=Costs(*(result[key] for key in Costs._fields)),
        fit_cpu_s=result["fit_cpu_s"],
        date=result["date"],
        threads=result["threads"],
        machine=result["machine"],
    )


def _recorded_by(recorder: RunRecorder) -> type[TemporalCLI]:
    """The program with a recorder in its Trainer."""

    class RecordedCLI(TemporalCLI):
        def after_instantiate_classes(self) -> None:
            super().after_instantiate_classes()
            callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            callbacks.insert(0, recorder)  # answers are written before the checkpoint that they belong to

    return RecordedCLI


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Remember which settings the run of a folder has.

    Raises:
        UserError: Other ones, or the folder cannot be made.
    """
    path = folder / _SETTINGS
    try:
        if path.is_file():
            if json.loads(path.read_text(encoding="utf-8")) != settings:
                raise UserError(
                    f"{folder}: holds a run of other settings, see {path}; delete it, or choose another folder with "
                    "--runs"
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"runs: {folder} cannot be used ({error.strerror})") from None
