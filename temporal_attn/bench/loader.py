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
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from datamodules.base import VideoDataModule
from datamodules.cache import CachedFeatures
from datamodules.dataset import DecodedClips, VideoDataset
from datamodules.decoding import SafeOpener
from datamodules.frame_store import FrameSettings, FrameStore, fill_frame_store
from temporal_attn.bench.results import check_writable, write_json
from temporal_attn.bench.timing import machine, paired_ratio
from temporal_attn.experiment import Experiment, load_experiment
from temporal_attn.model import VideoClassifier
from temporal_attn.types import UserError, VideoBatch

__all__ = ["SCHEMA", "bench_loader"]

SCHEMA = "temporal-attn/bench-loader/1"

_PHASES = ("decode", "transfer", "transform", "forward", "backward")
_Times = dict[tuple[int, int], float]


class _Change(NamedTuple):
    """Something that may make a step shorter.

    Args:
        name: In a word or two.
        advice: How to have it.
        made: Makes it, and takes it back.
    """

    name: str
    advice: str
    made: Callable[[], AbstractContextManager[object]]


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
    bench = _Bench(load_experiment(config, [*options, *no_epoch]), steps)
    with tempfile.TemporaryDirectory() as folder:
        base, rows = _compare(bench, _changes(bench, Path(folder)), rounds)
    count = (os.cpu_count() or 1) if workers is None else workers
    if count:
        rows.append(_compare_workers(bench, count, rounds))
    phases = [
        {"phase": name, "ms": 1e3 * bench.mean(name), "share": bench.mean(name) / sum(map(bench.mean, _PHASES))}
        for name in _PHASES
    ]
    _print(phases, base, rows)
    if json is not None:
        size = {"batch_size": len(bench.batches[0]), "steps": len(bench.batches), "step_ms": base}
        write_json(json, SCHEMA, machine=machine("torch", "av", "decord"), **size, phases=phases, changes=rows)
    return 0


@dataclass
class _Bench:
    """A training that can take one step at a time.

    Args:
        experiment: What is trained.
        steps: Batches, fewer if the data set is smaller.
    """

    experiment: Experiment
    steps: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _PHASES})

    def __post_init__(self) -> None:
        module, data, trainer = self.experiment.module, self.experiment.data, self.experiment.trainer
        if not isinstance(data, VideoDataModule):
            raise UserError(f"data is a {type(data).__name__}; `bench loader` measures datamodules of this package")
        trainer.callbacks.clear()  # type: ignore[attr-defined]  # a feature cache would be filled for all videos
        trainer.fit(module, datamodule=data)  # no epoch: everything is set up, and nothing trained
        self.module: pl.LightningModule = module
        self.data: VideoDataModule = data
        self.dataset: VideoDataset = data.train_dataset
        self.device = trainer.strategy.root_device
        self.optimizer = trainer.optimizers[0]
        self.precision: Callable[[], AbstractContextManager[object]] = trainer.precision_plugin.forward_context
        loader = data.train_dataloader()
        self.collate: Any = loader.collate_fn
        self.batches: list[list[Any]] = list(islice(loader.batch_sampler or (), self.steps))
        module.trainer = None  # what the module logs goes nowhere, and Lightning need not say so
        warnings.filterwarnings("ignore", r".*`self\.log\(\)`.*")
        module.to(self.device).train()

    @property
    def model(self) -> VideoClassifier | None:
        """The classifier, None for a module that has none of ours."""
        model = getattr(self.module, "model", None)
        return model if isinstance(model, VideoClassifier) else None

    def mean(self, phase: str) -> float:
        """Seconds of a phase."""
        return float(np.mean(self.seconds[phase]))

    def load(self, number: int) -> VideoBatch:
        """A batch as the loader gives it."""
        batch: VideoBatch = self.collate([self.dataset[key] for key in self.batches[number]])
        return batch

    def step(self, number: int) -> None:
        """One step, noting what its phases take."""
        with self._timed("decode"):
            batch = self.load(number)
        with self._timed("transfer"):
            batch = self.module.transfer_batch_to_device(batch, self.device, 0)
        with self._timed("transform"):
            batch = self.data.augment(batch)
        self.learn(batch, number)

    def learn(self, batch: VideoBatch, number: int) -> None:
        """Forward and backward."""
        with self._timed("forward"), self.precision():
            loss: Any = self.module.training_step(batch, number)
        with self._timed("backward"):
            (loss["loss"] if isinstance(loss, Mapping) else loss).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase].append(time.perf_counter() - start)


def _compare(bench: _Bench, changes: Sequence[_Change], rounds: int) -> tuple[float, list[dict[str, Any]]]:
    """Milliseconds of a step as it is, and a row for each change."""
    as_it_is = _Change("as it is", "", nullcontext)
    times: dict[str, _Times] = {change.name: {} for change in (as_it_is, *changes)}
    noted = bench.seconds
    for turn in range(-1, rounds):  # the first turn warms up
        for number in range(len(bench.batches)):
            for change in (as_it_is, *changes):
                is_counted = change is as_it_is and turn >= 0
                bench.seconds = noted if is_counted else {name: [] for name in _PHASES}
                with change.made():
                    start = time.perf_counter()
                    bench.step(number)
                    spent = time.perf_counter() - start
                if turn >= 0:
                    times[change.name][number, turn] = spent
    bench.seconds = noted
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


# Changes


def _changes(bench: _Bench, folder: Path) -> list[_Change]:
    changes = []
    if isinstance(bench.dataset.source, DecodedClips) and not isinstance(bench.dataset.source.open_video, FrameStore):
        changes += [_frame_store(bench, folder, "jpeg"), _frame_store(bench, folder, "uint8")]
    features = _feature_cache(bench, folder)
    if features is not None:
        changes.append(features)
    changes.append(
        _Change(
            "channels_last",
            "module.to(memory_format=torch.channels_last) before fit",
            lambda: _channels_last(bench.module),
        )
    )
    if str(bench.experiment.trainer.precision) == "32-true":
        changes.append(_Change("bf16", "--trainer.precision bf16-mixed", lambda: _bfloat16(bench)))
    return changes


def _frame_store(bench: _Bench, folder: Path, encoding: Literal["jpeg", "uint8"]) -> _Change:
    options, short_side = bench.data.loader, bench.dataset.clip["resize"]
    paths = sorted({bench.dataset.records[_position(key)].path for batch in bench.batches for key in batch})
    settings = FrameSettings(short_side, encoding, reader=bench.dataset.reader)
    fill_frame_store(paths, folder / encoding, settings, lambda: SafeOpener(options.sandbox, options.decode_timeout))
    store = FrameStore.open(folder / encoding, otherwise=bench.dataset.open_video)
    advice = f"temporal-attn cache frames --short_side {short_side} --encoding {encoding}, then data.loader.frames"

    @contextmanager
    def made() -> Iterator[None]:
        source = bench.dataset.source
        assert isinstance(source, DecodedClips)
        before, source.open_video = source.open_video, store
        yield
        source.open_video = before

    return _Change(f"frame store, {encoding}", advice, made)


def _feature_cache(bench: _Bench, folder: Path) -> _Change | None:
    """None where nothing is frozen for good."""
    model, features = bench.model, bench.experiment.features
    if model is None or model.backbone.frozen == "none" or bench.module.hparams.get("unfreeze_epoch") is not None:
        return None
    before = bench.data.cache_dir
    bench.data.cache_dir = str(folder)
    store = features.store(bench.data, bench.dataset, model)
    bench.data.cache_dir = before
    failed: dict[str, str] = {}
    model.eval()
    for batch in bench.batches:
        records = [bench.dataset.records[_position(key)] for key in batch]
        features.compute(records, bench.data, bench.dataset, store, model, failed)
    model.train()
    cached = CachedFeatures(store, failed)

    @contextmanager
    def made() -> Iterator[None]:
        source, bench.dataset.source = bench.dataset.source, cached
        yield
        bench.dataset.source = source

    return _Change("feature cache", "data.cache_dir, filled once by temporal-attn cache features", made)


@contextmanager
def _channels_last(module: pl.LightningModule) -> Iterator[None]:
    module.to(memory_format=torch.channels_last)
    yield
    module.to(memory_format=torch.contiguous_format)


@contextmanager
def _bfloat16(bench: _Bench) -> Iterator[None]:
    before, bench.precision = bench.precision, lambda: torch.autocast(bench.device.type, torch.bfloat16)
    yield
    bench.precision = before


def _compare_workers(bench: _Bench, workers: int, rounds: int) -> dict[str, Any]:
    """Whole passes over the batches, loaded by workers while the model learns, against loading as it is set."""
    options = bench.data.loader
    with ExitStack() as stack:
        loaders = [_loader(bench, count, stack) for count in (options.num_workers, workers)]
        times: list[_Times] = [{}, {}]
        for turn in range(-1, rounds):  # the first turn starts the workers
            for place, loader in enumerate(loaders):
                start = time.perf_counter()
                for number, batch in enumerate(loader):
                    batch = bench.module.transfer_batch_to_device(batch, bench.device, 0)
                    bench.learn(bench.data.augment(batch), number)
                if turn >= 0:
                    times[place][0, turn] = (time.perf_counter() - start) / len(bench.batches)
    name = f"{workers} workers" + (f" instead of {options.num_workers}" if options.num_workers else "")
    return _row(name, f"data.loader.num_workers {workers}", *times)


def _loader(bench: _Bench, workers: int, stack: ExitStack) -> DataLoader[VideoBatch]:
    options = bench.data.loader
    loader: DataLoader[Any] = DataLoader(
        bench.dataset,
        batch_sampler=bench.batches,
        num_workers=workers,
        collate_fn=bench.collate,
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


def _position(key: Any) -> int:  # noqa: ANN401 - a number, or a tuple that begins with one
    return int(key[0]) if isinstance(key, tuple) else int(key)


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
