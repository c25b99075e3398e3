"""What code costs beside other code: paired, interleaved, by the CPU time of the process, with an interval.

On a machine that others use too, wall-clock time measures the others, and two runs one after the other compare two
moments. So contestants take turns within each round, in an order that is drawn, and what counts is the CPU time of all
threads of this process and the ratio within a round.
"""

from __future__ import annotations

import json
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

from temporal_attn.types import UserError

__all__ = ["Ratio", "check_writable", "cpp_compiler", "interleave", "machine", "ratio", "write_json"]

Times = npt.NDArray[np.float64]

_DRAWS = 2000


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
) -> dict[str, Times]:
    """CPU milliseconds of each call in each round; a first round warms up and does not count.

    Args:
        calls: What is measured, by name.
        rounds: How often each is called.
        seed: Of the order within each round.
        within: A context that all of it runs in, such as ``torch.no_grad()``.

    Returns:
        Name to (rounds,) milliseconds of process CPU time.
    """
    if within is not None:
        with within:
            return interleave(calls, rounds, seed)
    draw = random.Random(seed)
    times = {name: np.empty(rounds) for name in calls}
    for turn in range(-1, rounds):
        for name in draw.sample(sorted(calls), len(calls)):
            start = time.process_time_ns()
            calls[name]()
            spent = time.process_time_ns() - start
            if turn >= 0:
                times[name][turn] = 1e-6 * spent
    return times


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
    pairs = ours / others
    drawn = np.random.default_rng(seed).integers(0, len(pairs), (_DRAWS, len(pairs)))
    low, high = np.quantile(np.median(pairs[drawn], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(pairs)), float(low), float(high))


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


def check_writable(path: str) -> None:
    """Find out before the work begins whether the results can be written.

    Raises:
        UserError: They cannot.
    """
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise UserError(f"json: {path} cannot be written ({error.strerror})") from None


def write_json(path: str, schema: str, **content: Any) -> None:  # noqa: ANN401
    """Write results with their schema first.

    Args:
        path: The file.
        schema: Name and version of the format.
        content: What JSON can hold.
    """
    Path(path).write_text(json.dumps({"schema": schema, **content}, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
