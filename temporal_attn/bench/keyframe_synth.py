"""`bench keyframes --suite synth`: frame scores on videos whose key frames are known, over several training seeds.

Models are trained first, then asked, each in a process of its own; what is done is kept in a folder, and a run that was
interrupted goes on from there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import datamodules.synthetic
from temporal_attn.bench.keyframe_captum import compare_with_captum
from temporal_attn.bench.keyframe_models import Training, train_classifier
from temporal_attn.bench.keyframe_regimes import Test, evaluate_regime
from temporal_attn.bench.keyframe_rows import cross_rows, rows_of
from temporal_attn.bench.keyframe_store import recall
from temporal_attn.bench.keyframe_targets import check_sanity, check_targets

__all__ = ["Budget", "run_synth"]

MODEL_OF = {"or": "or", "set": "set", "weak": "weak", "order": "order", "event": "or"}
"""Regime to the task that its model is trained on: an event is a video of ``or`` whose key frames stand together."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of everything.

    Args:
        seeds: Training seeds.
        steps: Optimiser steps by task; tasks other than ``or`` start from its model.
        frames: T of the test clips.
        videos: Test videos of each regime and seed; a multiple of 4.
        exact: Test videos with exact Shapley values.
        permutations: Orders of frames in the comparison with Captum.
    """

    seeds: tuple[int, ...]
    steps: dict[str, int]
    frames: int
    videos: int
    exact: int
    permutations: int

    def trainings(self, seed: int) -> dict[str, Training]:
        """How each model of a seed is trained, by task."""
        return {task: Training(task, seed, steps, None if task == "or" else "or") for task, steps in self.steps.items()}

    def test(self, regime: str) -> Test:
        """What the models of a regime are asked; groups of ``order`` hold half as many classes."""
        classes = len(datamodules.synthetic.TASKS[regime].class_names)
        return Test(regime, self.frames, self.videos // 4, 4 // classes, self.exact)


BUDGETS = {
    "quick": Budget((0, 1, 2), {"or": 350, "set": 300, "weak": 200, "order": 600}, 12, 32, 32, 32),
    "full": Budget((0, 1, 2, 3, 4), {"or": 600, "set": 400, "weak": 400, "order": 600}, 16, 128, 32, 32),
}


def run_synth(budget: Budget, runs: Path) -> dict[str, Any]:
    """Train what is not trained, ask what has not been asked, and sum up.

    Args:
        budget: How much.
        runs: Folder for trained models and for answers.

    Returns:
        ``rows``, ``removals`` (cross-evaluation), ``models`` (accuracy and checks by regime), ``captum``, ``targets``.
    """
    plans = {seed: budget.trainings(seed) for seed in budget.seeds}
    # The nets are so small that threads mostly wait for each other: one thread a process.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_workers(), context, torch.set_num_threads, (1,)) as pool:
        captum = pool.submit(compare_with_captum, budget.permutations)
        trainings = [training for plan in plans.values() for training in plan.values()]
        for warm in (False, True):  # those that start from another model come second
            wave = [training for training in trainings if bool(training.warm_start) is warm]
            starts = [plans[t.seed][t.warm_start].file(runs) if t.warm_start else None for t in wave]
            jobs = [pool.submit(_train, *job, runs) for job in zip(wave, starts, strict=True)]
            _finish("trained", [(f"{t.task}, seed {t.seed}", job) for t, job in zip(wave, jobs, strict=True)])
        asked = [
            (f"{regime}, seed {seed}", pool.submit(_evaluate, plan[MODEL_OF[regime]], runs, budget.test(regime)))
            for seed, plan in plans.items()
            for regime in MODEL_OF
        ]
        results = _finish("asked", asked)
        compared = _finish("compared", [("Captum", captum)])[0]
    by_regime = {regime: [result for result in results if result["regime"] == regime] for regime in MODEL_OF}
    rows = [row for regime, found in by_regime.items() for row in rows_of(regime, found)]
    removals = [row for regime, found in by_regime.items() for row in cross_rows(regime, found)]
    models = [_describe(regime, found) for regime, found in by_regime.items()]
    return {
        "rows": rows,
        "removals": removals,
        "models": models,
        "captum": compared,
        "targets": check_targets(rows, by_regime, compared),
    }


def _train(training: Training, start: Path | None, runs: Path) -> None:
    """Leave the model in the folder; it need not travel between processes."""
    train_classifier(training, runs, start)


def _evaluate(training: Training, runs: Path, test: Test) -> dict[str, Any]:
    """What `evaluate_regime` says, now or when it was asked before."""
    about = {"training": asdict(training), "test": asdict(test)}
    name = f"{test.regime}-seed{training.seed}"
    return recall(runs, name, about, lambda: evaluate_regime(training, runs, test))


def _finish(verb: str, jobs: Sequence[tuple[str, Any]]) -> list[Any]:
    """Results in the order of the jobs; each is told on stderr when it is done."""
    names = {job: name for name, job in jobs}
    for number, job in enumerate(as_completed(names), start=1):
        job.result()
        print(f"{verb} {number} of {len(jobs)}: {names[job]}", file=sys.stderr, flush=True)
    return [job.result() for _, job in jobs]


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _describe(regime: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy, explained clips and sanity checks of a regime: means over seeds."""
    checks = {name: float(np.mean([result["checks"][name] for result in found])) for name in found[0]["checks"]}
    totals = {name: sum(result[name] for result in found) for name in ("clips", "explained")}
    return {"regime": regime, "seeds": len(found), **totals, **checks, "doubts": check_sanity(checks)}
