"""`temporal-attn bench loader`: where the time of a training step goes, and what would make it shorter.

A step is taken apart as if nothing overlapped: decode, transfer, transform, forward, backward. Then each change that
promises something is made for a moment, and whole steps with and without it take turns on the same batches. What is
advised has been measured on this machine, with this data and this model.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from temporal_attn.bench.loader_changes import Change, changes_of
from temporal_attn.bench.loader_steps import PHASES, TrainingSteps
from temporal_attn.bench.results import check_writable, write_json
from temporal_attn.bench.timing import machine, paired_ratio
from temporal_attn.experiment import load_experiment
from temporal_attn.types import UserError, VideoBatch

__all__ = ["SCHEMA", "bench_loader"]

SCHEMA = "temporal-attn/bench-loader/1"

_Times = dict[tuple[int, int], float]


def bench_loader(
    config: list[str] | str,
    steps: int = 8,
    rounds: int = 3,
    workers: int | None = None,
    json: str | None = None,
    options: Sequence[str] = (),
) -> int:
    """Say where the time of a training step goes, and measure what each change would gain.

    The weights are trained for these steps, and then thrown away; nothing is saved. Caches that are tried lie in a
    temporary folder, and hold only the videos of these steps.

    Args:
        config: YAML of `temporal-attn fit`; of several, later ones go before earlier ones.
        steps: Batches that are measured.
        rounds: How often each of them is.
        workers: Loader workers that are tried; None for one a processor, 0 tries none.
        json: File for the figures, as JSON.
        options: Further words of `temporal-attn fit`, such as ``--data.root ROOT``; they go before the YAML.

    Returns:
        Exit status 0.

    Raises:
        UserError: A number is out of its range, the data is none of `datamodules`, or the JSON file cannot be written.
    """
    for name, value, least in (("steps", steps, 1), ("rounds", rounds, 1), ("workers", workers or 0, 0)):
        if value < least:
            raise UserError(f"{name} is {value}; it has to be {least} or more")
    if json is not None:
        check_writable(json)
    no_epoch = ("--trainer.max_epochs=0", "--trainer.num_sanity_val_steps=0")
    training = TrainingSteps(load_experiment(config, [*options, *no_epoch]), steps)
    with tempfile.TemporaryDirectory() as folder:
        base, rows = _compare(training, changes_of(training, Path(folder)), rounds)
    count = (os.cpu_count() or 1) if workers is None else workers
    if count:
        rows.append(_compare_workers(training, count, rounds))
    phases = [
        {"phase": name, "ms": 1e3 * training.mean(name), "share": training.mean(name) / sum(map(training.mean, PHASES))}
        for name in PHASES
    ]
    _print(phases, base, rows)
    if json is not None:
        size = {"batch_size": len(training.batches[0]), "steps": len(training.batches), "step_ms": base}
        write_json(json, SCHEMA, machine=machine("torch", "av", "decord"), **size, phases=phases, changes=rows)
    return 0


def _compare(training: TrainingSteps, changes: Sequence[Change], rounds: int) -> tuple[float, list[dict[str, Any]]]:
    """Milliseconds of a step as it is, and a row for each change."""
    as_it_is = Change("as it is", "", nullcontext)
    times: dict[str, _Times] = {change.name: {} for change in (as_it_is, *changes)}
    noted = training.seconds
    for turn in range(-1, rounds):  # the first turn warms up
        for number in range(len(training.batches)):
            for change in (as_it_is, *changes):
                is_counted = change is as_it_is and turn >= 0
                training.seconds = noted if is_counted else {name: [] for name in PHASES}
                with change.made():
                    start = time.perf_counter()
                    training.step(number)
                    spent = time.perf_counter() - start
                if turn >= 0:
                    times[change.name][number, turn] = spent
    training.seconds = noted
    base = times[as_it_is.name]
    rows = [_row(change.name, change.advice, base, times[change.name]) for change in changes]
    return 1e3 * float(np.mean(list(base.values()))), rows


def _row(name: str, advice: str, base: _Times, own: _Times) -> dict[str, Any]:
    gain, interval = paired_ratio(base, own, seed=0)
    assert interval is not None
    step_ms = 1e3 * float(np.mean(list(own.values())))
    return {
        "change": name,
        "step_ms": step_ms,
        "gain": gain,
        "gain_ci": interval,
        "advised": interval[0] > 1,
        "advice": advice,
    }


def _compare_workers(training: TrainingSteps, workers: int, rounds: int) -> dict[str, Any]:
    """Whole passes over the batches, loaded by workers while the model learns, against loading as it is set."""
    options = training.data.loader
    with ExitStack() as stack:
        loaders = [_loader(training, count, stack) for count in (options.num_workers, workers)]
        times: list[_Times] = [{}, {}]
        for turn in range(-1, rounds):  # the first turn starts the workers
            for place, loader in enumerate(loaders):
                start = time.perf_counter()
                for number, batch in enumerate(loader):
                    batch = training.module.transfer_batch_to_device(batch, training.device, 0)
                    training.learn(training.data.augment(batch), number)
                if turn >= 0:
                    times[place][0, turn] = (time.perf_counter() - start) / len(training.batches)
    name = f"{workers} workers" + (f" instead of {options.num_workers}" if options.num_workers else "")
    return _row(name, f"data.loader.num_workers {workers}", *times)


def _loader(training: TrainingSteps, workers: int, stack: ExitStack) -> DataLoader[VideoBatch]:
    options = training.data.loader
    loader: DataLoader[Any] = DataLoader(
        training.dataset,
        batch_sampler=training.batches,
        num_workers=workers,
        collate_fn=training.collate,
        pin_memory=options.pins_memory,
        multiprocessing_context=options.multiprocessing_context if workers else None,
        persistent_workers=workers > 0,
        prefetch_factor=options.prefetch_factor if workers else None,
    )
    stack.callback(_stop_workers, loader)
    return loader


def _stop_workers(loader: DataLoader[Any]) -> None:
    running = getattr(loader, "_iterator", None)  # torch has no public way to end persistent workers
    if running is not None:
        running._shutdown_workers()


def _print(phases: Sequence[dict[str, Any]], step_ms: float, rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=120 if not sys.stdout.isatty() else None)
    table = Table(title=f"A training step, nothing overlapping: {step_ms:.1f} ms")
    table.add_column("phase")
    for name in ("ms", "share"):
        table.add_column(name, justify="right")
    for phase in phases:
        table.add_row(phase["phase"], f"{phase['ms']:.1f}", f"{100 * phase['share']:.0f} %")
    console.print(table)
    table = Table(title="What a change gains, measured")
    table.add_column("change")
    for name in ("ms a step", "times as fast", "95 %"):
        table.add_column(name, justify="right")
    table.add_column("how")
    for row in sorted(rows, key=lambda row: -row["gain"]):
        low, high = row["gain_ci"]
        how = row["advice"] if row["advised"] else "no gain here"
        table.add_row(row["change"], f"{row['step_ms']:.1f}", f"{row['gain']:.2f}", f"{low:.2f} to {high:.2f}", how)
    console.print(table)
