"""The memory roof of a machine: how many bytes a second one thread can read, and copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypedDict

import torch

__all__ = ["Roof", "memory_roof"]

_LARGE = 256 * 2**20
"""Bytes of a block that no cache holds."""


class Roof(TypedDict):
    """Bytes of the block and what moved, in 10⁹ bytes a second; a copy counts what it reads and what it writes."""

    block_bytes: int
    read_gb_s: float
    copy_gb_s: float


def memory_roof(block_bytes: int = _LARGE, rounds: int = 10) -> Roof:
    """Measure with the threads that torch has; the best round counts, because a roof is what is possible.

    Args:
        block_bytes: Size of what is read and copied: larger than all caches for the roof of the memory, as large as
            the maps of a layer for that of the cache that they fit in.
        rounds: How often each is done.
    """
    source = torch.zeros(block_bytes // 4)
    target = torch.zeros_like(source)
    size = source.numel() * 4
    return Roof(
        block_bytes=size,
        read_gb_s=1e-9 * size / _best(source.sum, rounds),
        copy_gb_s=1e-9 * 2 * size / _best(lambda: target.copy_(source), rounds),
    )


def _best(call: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])
