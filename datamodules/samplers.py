"""Which frames of a video make a clip, and in which order an epoch visits the videos.

The two index functions are pure numpy. Both answer with T ascending frame indices and a mask; where a video has too
few frames, the last one fills the rest and the mask says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

__all__ = ["EpochSampler", "dense_indices", "uniform_indices"]

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def uniform_indices(
    length: int, num_frames: int, rng: np.random.Generator | None = None, *, repeat_short: bool = False
) -> tuple[Indices, Mask]:
    """One frame from each of T equal segments of the video.

    Paper: Wang et al., "Temporal Segment Networks", ECCV 2016. https://arxiv.org/abs/1608.00859

    Args:
        length: Frames of the video.
        num_frames: T.
        rng: Draws the frame within its segment; None takes the segment's middle.
        repeat_short: Whether a video of fewer than T frames repeats them evenly instead of being padded at the end.

    Returns:
        Indices (T,) int64 ascending in [0, length), and mask (T,) bool, True = a frame of its own.

    Raises:
        ValueError: length or num_frames is not positive.

    Example:
        >>> uniform_indices(8, 4)[0].tolist()
        [1, 3, 5, 7]
    """
    _check(length, num_frames)
    if length < num_frames and not repeat_short:
        return _padded(np.arange(length), num_frames)
    bounds = np.arange(num_frames + 1, dtype=np.int64) * length // num_frames
    first, size = bounds[:-1], np.maximum(np.diff(bounds), 1)  # a repeated frame's segment is empty
    offset = size // 2 if rng is None else rng.integers(size)
    return first + offset, np.ones(num_frames, dtype=np.bool_)


def dense_indices(
    length: int,
    num_frames: int,
    stride: int,
    rng: np.random.Generator | None = None,
    *,
    repeat_short: bool = False,
) -> tuple[Indices, Mask]:
    """T frames that lie `stride` apart, from one window of the video.

    Args:
        length: Frames of the video.
        num_frames: T.
        stride: Frames from one sample to the next.
        rng: Draws the window's place; None takes the video's middle.
        repeat_short: Whether a video shorter than the window counts its last frame again instead of being padded.

    Returns:
        Indices (T,) int64 ascending in [0, length), and mask (T,) bool, True = a real frame.

    Raises:
        ValueError: length, num_frames or stride is not positive.

    Example:
        >>> dense_indices(10, 3, 4)[0].tolist()
        [0, 4, 8]
    """
    _check(length, num_frames, stride)
    count = min(num_frames, (length - 1) // stride + 1)
    spare = length - 1 - (count - 1) * stride  # frames that the window leaves free
    start = spare // 2 if rng is None else int(rng.integers(spare + 1))
    indices, mask = _padded(start + np.arange(count) * stride, num_frames)
    return indices, mask | repeat_short


class EpochSampler(DistributedSampler[Any]):
    """Visits every video once an epoch, in an order that only (seed, epoch) decide, and says which epoch it is.

    It yields (index, epoch), so that a dataset can draw all randomness of a sample from its key: workers need no
    state, and the same epoch is the same whatever their number, also after a resume. Each rank gets its own equal
    share; the remainder is left out (a different one each epoch), unless there are fewer videos than ranks. Lightning
    sets the epoch of this sampler and does not replace it, because it already is a distributed one.

    Args:
        dataset: Anything with a length.
        seed: Not negative.
        num_replicas: Processes that share an epoch; None asks the process group, 1 without one.
        rank: Which of them this is; None likewise.
    """

    def __init__(self, dataset: Sized, seed: int, num_replicas: int | None = None, rank: int | None = None) -> None:
        grouped = dist.is_available() and dist.is_initialized()
        replicas = num_replicas if num_replicas is not None else dist.get_world_size() if grouped else 1
        own_rank = rank if rank is not None else dist.get_rank() if grouped else 0
        drop_last = len(dataset) >= replicas
        super().__init__(dataset, replicas, own_rank, shuffle=True, seed=seed, drop_last=drop_last)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(index, epoch) of this rank's videos in this epoch's order."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.dataset))  # type: ignore[arg-type]
        own = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        return ((int(index), self.epoch) for index in own)


def _padded(indices: NDArray[np.integer[Any]], num_frames: int) -> tuple[Indices, Mask]:
    missing = num_frames - len(indices)
    return np.pad(indices.astype(np.int64), (0, missing), mode="edge"), np.arange(num_frames) < len(indices)


def _check(*positive: int) -> None:
    if min(positive) < 1:
        raise ValueError(f"length, num_frames and stride have to be positive, not {positive}")
