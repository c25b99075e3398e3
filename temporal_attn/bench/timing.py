"""What code costs beside other code: paired, interleaved, by the CPU time of the process, with an interval.

On a machine that others use too, wall-clock time measures the others, and two runs one after the other compare two
moments. So contestants take turns within each round, in an order that is drawn, and what counts is the CPU time of all
threads of this process and the ratio within a round.
"""

from __future__ import annotations

import math
import os
import platform
import random
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Ratio",
    "Times",
    "cpp_compiler",
    "interleave",
    "machine",
    "paired_ratio",
    "ratio",
]

Times = npt.NDArray[np.float64]

_DRAWS = 2000
_LEAST_ROUNDS = 5
"""Rounds that are measured however little time there is; with fewer an interval says nothing."""


class Ratio(NamedTuple):
    """How many times the cost of another something costs, and the 95 % interval of that."""

    value: float
    low: float
    high: float


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    seed: int,
    within: AbstractContextManager[object] | None = None,
    seconds: float = math.inf,
) -> dict[str, Times]:
    """CPU milliseconds of each call in each round; a first round warms up and does not count.

    Args:
        calls: What is measured, by name.
        rounds: How often each is called at most.
        seed: Of the order within each round.
        within: A context that all of it runs in, such as ``torch.no_grad()``.
        seconds: Wall-clock time after which no round begins, once there are five.

    Returns:
        Name to (number of rounds,) milliseconds of process CPU time.
    """
    if within is not None:
        with within:
            return interleave(calls, rounds, seed, seconds=seconds)
    draw = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = math.inf
    for turn in range(-1, rounds):
        if turn >= _LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name in draw.sample(sorted(calls), len(calls)):
            start = time.process_time_ns()
            calls[name]()
            spent = time.process_time_ns() - start
            if turn >= 0:
                times[name].append(1e-6 * spent)
        if turn < 0:  # what compiles has compiled now
            end = time.perf_counter() + seconds
    return {name: np.array(spent) for name, spent in times.items()}


def ratio(ours: Times, others: Times, seed: int) -> Ratio:
    """Median over rounds of ours / others, with a bootstrap interval over rounds.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (the percentile interval).

    Args:
        ours: (rounds,) of one contestant.
        others: (rounds,) of the other, from the same rounds.
        seed: Of the bootstrap.

    Raises:
        ValueError: The rounds differ in number, or there is none.
    """
    if len(ours) != len(others) or len(ours) == 0:
        raise ValueError(f"pairs need as many of one as of the other, and at least one: {len(ours)} and {len(others)}")
    ratios = ours / others
    return Ratio(float(np.median(ratios)), *_interval(np.median(_redrawn(ratios, seed), axis=1)))


def paired_ratio(
    others: Mapping[tuple[int, int], float], own: Mapping[tuple[int, int], float], seed: int
) -> tuple[float | None, list[float] | None]:
    """How many times the cost of `own` the cost of `others` is, over what both have read, with its 95 % interval.

    The interval is a bootstrap over pairs of the same file and round: it tells what timing noise leaves open on these
    files.

    Args:
        others: Seconds by (file, round).
        own: Likewise.
        seed: Of the bootstrap.

    Returns:
        The ratio of the sums, and the edges of its interval; None and None where there is no pair.
    """
    both = sorted(set(others) & set(own))
    if not both:
        return None, None
    pairs = np.array([(others[key], own[key]) for key in both])
    sums = _redrawn(pairs, seed).sum(axis=1)
    return float(pairs[:, 0].sum() / pairs[:, 1].sum()), list(_interval(sums[:, 0] / sums[:, 1]))


def _redrawn(pairs: Times, seed: int) -> Times:
    """(draws, N, …): as many of N pairs, drawn with replacement, again and again."""
    return pairs[np.random.default_rng(seed).integers(0, len(pairs), (_DRAWS, len(pairs)))]


def _interval(drawn: Times) -> tuple[float, float]:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def cpp_compiler() -> str | None:
    """The C++ compiler that `torch.compile` takes on a CPU, or None where there is none."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def machine(*packages: str) -> dict[str, Any]:
    """What the figures were measured on: processor, cores, system, and versions of packages.

    Args:
        packages: Names of distributions; those that are not installed are left out.
    """
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
