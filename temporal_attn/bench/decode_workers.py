"""Two decoding processes against one: whether workers of a loader stand in each other's way."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Sequence
from multiprocessing.pool import Pool
from typing import Any

import numpy as np

from datamodules.readers import VideoIndex, open_reader
from temporal_attn.bench.timing import paired_ratio
from temporal_attn.bench.video_readers import Clip

__all__ = ["compare_workers"]

_LEAST_CLIPS = 40
"""Clips of one measurement; few files are read several times."""

_Job = tuple[str, bytes, tuple[int, ...], int | None]


def compare_workers(clips: Sequence[Clip], rounds: int, seed: int) -> dict[str, Any]:
    """Wall-clock time of one process against two that share the files, while nobody consumes what they decode.

    Args:
        clips: What is read.
        rounds: Pairs of measurements.
        seed: Shuffles the clips, and draws the bootstrap.

    Returns:
        A row for the table of `bench_decode`.
    """
    jobs = [(clip.path, clip.index.to_bytes(), tuple(clip.wanted), clip.short_side) for clip in clips]
    jobs = (jobs * (_LEAST_CLIPS // len(jobs) + 1))[: max(_LEAST_CLIPS, len(jobs))]
    random.Random(seed).shuffle(jobs)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as first, context.Pool(1) as second:
        _seconds_of([first, second], jobs)  # imports are done, files are cached
        pairs = {}
        for turn in range(rounds):
            alone = _seconds_of([first], jobs)
            pairs[0, turn] = (alone, _seconds_of([first, second], jobs))
    ratio, interval = paired_ratio(
        {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}, seed
    )
    return {
        "kind": "two workers against one",
        "reader": "auto (stored index)",
        "files": len(clips),
        "cpu_ms": None,
        "ratio_to_decord": None,
        "ratio_ci": interval,
        "exact": None,
        "wall_ms": 1e3 * float(np.mean([pair[1] for pair in pairs.values()])) / len(jobs),
        "ratio_to_one_worker": ratio,
    }


def _seconds_of(workers: Sequence[Pool], jobs: Sequence[_Job]) -> float:
    start = time.perf_counter()
    shares = [jobs[place :: len(workers)] for place in range(len(workers))]
    running = [worker.apply_async(_decode_all, (share,)) for worker, share in zip(workers, shares, strict=True)]
    for result in running:
        result.get()
    return time.perf_counter() - start


def _decode_all(jobs: Sequence[_Job]) -> None:
    for path, stored, wanted, short_side in jobs:
        with open_reader(path, "auto", short_side, VideoIndex.from_bytes(stored)) as reader:
            reader.get_batch(wanted)
