"""What Lightning adds to a training step, and what our steps cost beside those of torchvision's r3d_18.

Lightning and a bare loop take turns, step by step, on copies of one model with the same optimiser and batches; what
counts is the CPU time of the process, on one thread.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn.utils import clip_grad_norm_

from temporal_attn import losses
from temporal_attn.bench.results import write_json
from temporal_attn.bench.timing import Ratio, Times, interleave, machine, ratio
from temporal_attn.bench.training_costs import count_parameters
from temporal_attn.bench.training_steps import CONTESTANTS, Shape, added_memory, make_batch, make_module, make_steps
from temporal_attn.model import VideoClassifier
from temporal_attn.module import VideoClassificationModule
from temporal_attn.optim import adamw, warmup_cosine
from temporal_attn.types import VideoBatch

__all__ = ["measure_overhead", "take_turns"]

SCHEMA = "temporal-attn/bench-training-overhead/1"

_SHAPE = Shape(batch=2, frames=8, side=112)
_CLIP_NORM = 1.0
_BATCHES = 4
_WORK = ("train", "infer")


def measure_overhead(rounds: int, seed: int, json: str | None, shape: Shape = _SHAPE) -> int:
    """Measure, print and write.

    Args:
        rounds: Steps of each contestant.
        seed: Of weights, clips and the bootstrap.
        json: File for the figures.
        shape: Of the clips.

    Returns:
        Exit status 0.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # CPU time of several threads holds their waiting for each other
    try:
        module = make_module(seed)
        batches = [make_batch(shape, seed + number) for number in range(_BATCHES)]
        lightning, bare = take_turns(module, copy.deepcopy(module.model), batches, rounds)
        rows = _beside_r3d(rounds, seed, shape)
    finally:
        torch.set_num_threads(threads)
    found = ratio(lightning, bare, seed)
    step = {"lightning_ms": float(np.median(lightning)), "bare_ms": float(np.median(bare)), "ratio": list(found)}
    _print(found, step, rows, shape)
    if json is not None:
        about = machine("torch", "torchvision", "timm", "pytorch-lightning")
        write_json(json, SCHEMA, machine=about, threads=1, shape=shape._asdict(), rounds=rounds, step=step, models=rows)
    return 0


def take_turns(
    module: VideoClassificationModule, twin: VideoClassifier, batches: Sequence[VideoBatch], rounds: int
) -> tuple[Times, Times]:
    """CPU milliseconds of steps by `Trainer.fit`, and of the same steps by a bare loop, which take turns.

    Args:
        module: Trained by Lightning.
        twin: A copy of its model, trained by the loop.
        batches: They come again and again.
        rounds: Steps that are measured of each; one more goes before them.

    Returns:
        (rounds,) of each.
    """
    steps = rounds + 2  # Lightning does not come back for more after the last
    turns = _Turns(batches, steps, _bare_step(module, twin, steps))
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        gradient_clip_val=_CLIP_NORM,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    said = logging.getLogger("pytorch_lightning")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        trainer.fit(module, turns)
    finally:
        said.setLevel(level)
    return np.array(turns.others[1 : rounds + 1]), np.array(turns.own[1 : rounds + 1])


def _bare_step(module: VideoClassificationModule, model: VideoClassifier, steps: int) -> Callable[[VideoBatch], None]:
    """What one writes without Lightning: the same loss, optimiser, schedule and clipping."""
    h = module.hparams
    model.train()
    loss_of = losses.build(h["loss"], model.num_classes, h["label_smoothing"])
    optimizer = adamw(model, h["lr"], h["backbone_lr"], h["weight_decay"])
    scheduler = warmup_cosine(optimizer, int(h["warmup"] * steps), steps)

    def step(batch: VideoBatch) -> None:
        loss = loss_of(model(batch["video"], batch["mask"], batch["pts"]).logits, batch["label"])
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), _CLIP_NORM)
        optimizer.step()
        scheduler.step()

    return step


class _Turns:
    """A loader for Lightning that takes a step of its own before it hands out each batch.

    Args:
        batches: They come again and again.
        steps: How many in all.
        step: Its own.

    Attributes:
        own: Milliseconds of each own step.
        others: Milliseconds from handing out a batch to being asked for the next.
    """

    def __init__(self, batches: Sequence[VideoBatch], steps: int, step: Callable[[VideoBatch], None]) -> None:
        self.batches = batches
        self.steps = steps
        self.step = step
        self.own: list[float] = []
        self.others: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[VideoBatch]:
        for number in range(self.steps):
            batch = self.batches[number % len(self.batches)]
            start = time.process_time_ns()
            self.step(batch)
            self.own.append(1e-6 * (time.process_time_ns() - start))
            start = time.process_time_ns()
            yield batch
            self.others.append(1e-6 * (time.process_time_ns() - start))


def _beside_r3d(rounds: int, seed: int, shape: Shape) -> list[dict[str, Any]]:
    """A row for each net and work: clips a second of CPU time, its memory, and what it costs beside r3d_18."""
    batch = make_batch(shape, seed)
    nets, steps = zip(*(make_steps(contestant, seed) for contestant in CONTESTANTS), strict=True)
    rows = []
    for work in _WORK:
        calls: dict[str, Callable[[], object]] = {
            name: partial(step[work], batch) for name, step in zip(CONTESTANTS, steps, strict=True)
        }
        times = interleave(calls, rounds, seed)
        for name, net in zip(CONTESTANTS, nets, strict=True):
            rows.append(
                {
                    "model": name,
                    "work": work,
                    "parameters": count_parameters(net)[1],
                    "clips_per_s": 1e3 * shape.batch / float(np.median(times[name])),
                    "cost": list(ratio(times[name], times["r3d_18"], seed)),
                    "memory_bytes": added_memory(name, work, shape, seed),
                }
            )
    return rows


def _print(found: Ratio, step: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], shape: Shape) -> None:
    clips = f"{shape.batch} clips of {shape.frames} frames at {shape.side} pixels"
    print(f"a step of ResNet-18 with CBAM and self-attention over time, {clips}, CPU time on one thread:")
    print(f"  Lightning {step['lightning_ms']:.0f} ms, bare loop {step['bare_ms']:.0f} ms")
    print(f"  {found.value:.3f} × the bare loop, 95 % interval {found.low:.3f} to {found.high:.3f}\n")
    print(f"{'model':<14} {'':<6} {'clips/s':>8} {'of r3d_18 in time':>24} {'memory':>10}")
    for row in rows:
        cost = "{:.2f} × ({:.2f} to {:.2f})".format(*row["cost"])
        memory = f"{row['memory_bytes'] / 1e6:.0f} MB"
        print(f"{row['model']:<14} {row['work']:<6} {row['clips_per_s']:>8.2f} {cost:>24} {memory:>10}")
