"""In which order an epoch visits the videos, and how often: a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

__all__ = ["EpochSampler", "Visit", "balanced_visits", "count_copies"]

Indices = NDArray[np.int64]


class Visit(NamedTuple):
    """The key of a sample: all its randomness comes from it.

    Args:
        video: Position in the data set.
        epoch: From 0.
        copy: How often this epoch has visited the video before.
    """

    video: int
    epoch: int = 0
    copy: int = 0


class EpochSampler(DistributedSampler[Any]):
    """Visits the videos in an order that only (seed, epoch) decide, and says which epoch it is.

    It yields a `Visit`, so that a dataset can draw all randomness of a sample from its key: workers need no state, and
    the same epoch is the same whatever their number, also after a resume. Each rank gets its own equal share; the
    remainder is left out (a different one each epoch), unless there are fewer visits than ranks. Lightning sets the
    epoch of this sampler and does not replace it, because it already is a distributed one.

    Repeated augmentation: the visits of a video follow each other, so that they meet in one batch and, on several
    processes, in one step. Papers: Hoffer et al., "Augment Your Batch", CVPR 2020. https://arxiv.org/abs/1901.09335;
    Berman et al., "MultiGrain", 2019. https://arxiv.org/abs/1902.05509

    Args:
        dataset: Anything with a length.
        seed: Not negative.
        num_replicas: Processes that share an epoch; None asks the process group, 1 without one.
        rank: Which of them this is; None likewise.
        repeats: Visits of a video in an epoch, each with draws of its own.
        labels: The class of each video, for `balance`.
        balance: See `balanced_visits`; 0 visits each video equally often.

    Raises:
        ValueError: repeats is not positive, or balance is asked for without a label for each video.
    """

    def __init__(
        self,
        dataset: Sized,
        seed: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        repeats: int = 1,
        labels: Sequence[int] | None = None,
        balance: float = 0.0,
    ) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        replicas = num_replicas if num_replicas is not None else dist.get_world_size() if grouped else 1
        own_rank = rank if rank is not None else dist.get_rank() if grouped else 0
        if repeats < 1:
            raise ValueError(f"repeats has to be positive, not {repeats}")
        if balance and (labels is None or len(labels) != len(dataset)):
            raise ValueError("balance needs the label of each video")
        super().__init__(dataset, replicas, own_rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.repeats = repeats
        self.balance = balance
        self._labels = np.asarray(labels, dtype=np.int64) if balance else None
        visits = len(dataset) * repeats
        self.num_samples = max(visits // replicas, min(visits, 1))
        self.total_size = self.num_samples * replicas

    def __iter__(self) -> Iterator[Visit]:
        """This rank's visits in this epoch's order."""
        order = self._order()
        shared = np.resize(order, self.total_size)  # cut, or repeated where there are fewer visits than ranks
        copies = np.resize(count_copies(order), self.total_size)
        own = slice(self.rank, None, self.num_replicas)
        pairs = zip(shared[own].tolist(), copies[own].tolist(), strict=True)
        return (Visit(video, self.epoch, copy) for video, copy in pairs)

    def _order(self) -> Indices:
        """Videos of all ranks in the order of their visits."""
        rng = np.random.default_rng((self.seed, self.epoch))
        once = (
            rng.permutation(len(self.dataset))  # type: ignore[arg-type]
            if self._labels is None
            else balanced_visits(self._labels, self.balance, rng)
        )
        return np.repeat(once, self.repeats)


def balanced_visits(labels: Indices, balance: float, rng: np.random.Generator) -> Indices:
    """As many visits as there are videos, of which rare classes get more than their share.

    Equation: a class of n videos gets a share of the visits in proportion to n^(1 - balance), rounded up or down; each
    of its videos the same share of those, likewise rounded. One point in each of N equal steps along the videos
    (systematic sampling) draws less unevenly than N independent draws would.

    Args:
        labels: (N,) class of each video.
        balance: 0 leaves the classes as they are, 0.5 evens them by the square root, 1 visits all equally often.
        rng: Draws.

    Returns:
        (N,) positions of videos in [0, N), in random order; a video may be there several times, or not at all.
    """
    total = len(labels)
    _, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weight = counts[own] ** -float(balance)
    order = rng.permutation(total)
    order = order[np.argsort(own[order], kind="stable")]  # by class: a class is one stretch of the way
    ends = np.cumsum(weight[order])
    points = (rng.random() + np.arange(total)) / total * ends[-1] if total else np.empty(0)
    chosen = np.searchsorted(ends, points, side="right")
    return rng.permutation(order[np.minimum(chosen, total - 1)])


def count_copies(order: Indices) -> Indices:
    """How often each entry has come before.

    Args:
        order: (N,) positions, some of them several times.

    Returns:
        (N,) counts from 0.

    Example:
        >>> count_copies(np.array([3, 1, 3, 3, 1])).tolist()
        [0, 0, 1, 2, 1]
    """
    by_entry = np.argsort(order, kind="stable")
    entries = order[by_entry]
    first = np.searchsorted(entries, entries, side="left")
    copies = np.empty(len(order), dtype=np.int64)
    copies[by_entry] = np.arange(len(order)) - first
    return copies
