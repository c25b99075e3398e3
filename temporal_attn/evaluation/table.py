"""What an evaluation knows of its videos, as arrays: the ground that all its numbers stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from temporal_attn.types import FailedVideo

__all__ = ["VideoRow", "VideoTable"]

Array = NDArray[np.float64]


class VideoRow(NamedTuple):
    """What a test knows of one video.

    Args:
        id: The video's name.
        group: Its leakage group.
        label: True class index, -1 = unknown; of several labels the indices, None = unknown.
        probabilities: K values; None for a video that could not be read.
        place: Its index in the data set.
    """

    id: str
    group: str
    label: int | tuple[int, ...] | None
    probabilities: Sequence[float] | Array | None
    place: int = -1

    @property
    def labelled(self) -> bool:
        """Whether the label is known."""
        return self.label >= 0 if isinstance(self.label, int) else self.label is not None

    @property
    def classes(self) -> tuple[int, ...]:
        """Indices of the true classes."""
        return (self.label,) if isinstance(self.label, int) else self.label or ()


@dataclass(frozen=True)
class VideoTable:
    """The videos of an evaluation whose labels are known.

    Args:
        rows: One a video; N of them.
        probabilities: (N, K), NaN where a video could not be read.
        truth: (N, K) 1 for each class that holds.
        multi_label: Whether a video may belong to several classes.
    """

    rows: Sequence[VideoRow]
    probabilities: Array
    truth: Array
    multi_label: bool

    @classmethod
    def of(cls, rows: Sequence[VideoRow], num_classes: int, failed: Sequence[FailedVideo] = ()) -> VideoTable:
        """The labelled ones among videos, and those that could not be read.

        Args:
            rows: One a video that was read.
            num_classes: K.
            failed: Videos that could not be read.
        """
        lost = (VideoRow(video["id"], video["group"], video["label"], None, video["index"]) for video in failed)
        known = [row for row in (*rows, *lost) if row.labelled]
        probabilities = np.full((len(known), num_classes), np.nan)
        truth = np.zeros((len(known), num_classes))
        for place, row in enumerate(known):
            if row.probabilities is not None:
                probabilities[place] = row.probabilities
            truth[place, list(row.classes)] = 1
        return cls(known, probabilities, truth, any(isinstance(row.label, tuple) for row in known))

    @property
    def groups(self) -> list[str]:
        """The group of each video."""
        return [row.group for row in self.rows]

    @property
    def was_read(self) -> NDArray[np.bool_]:
        """(N,) whether a video has scores, each of them a number."""
        return np.asarray(np.isfinite(self.probabilities).all(axis=1))

    @cached_property
    def read(self) -> VideoTable:
        """Only the videos that have scores, each of them a number."""
        return self._only(self.was_read)

    @cached_property
    def with_class(self) -> VideoTable:
        """Only the videos that belong to a class: all of them, unless there are several labels."""
        return self._only(np.asarray(self.truth.any(axis=1)))

    def _only(self, wanted: NDArray[np.bool_]) -> VideoTable:
        kept = np.flatnonzero(wanted)
        rows = [self.rows[place] for place in kept.tolist()]
        return VideoTable(rows, self.probabilities[kept], self.truth[kept], self.multi_label)

    @cached_property
    def rank(self) -> Array:
        """(N,) how many classes come before the first true one; of equal ones the first class comes first.

        Infinite for a failed video, a score that is no number, and a video without any class.
        """
        scores = np.where(np.isnan(self.probabilities), -np.inf, self.probabilities)
        order = np.argsort(-scores, axis=1, kind="stable")
        own = np.take_along_axis((self.truth > 0) & ~np.isnan(self.probabilities), order, axis=1)
        return np.where(own.any(1), own.argmax(1), np.inf)

    @property
    def correct(self) -> Array:
        """(N,) 1 where the most probable class is true."""
        return (self.rank < 1).astype(np.float64)

    @property
    def predicted(self) -> Array:
        """(N, K) 1 for each class that is predicted: the most probable one, of several labels those from ½ on."""
        if self.multi_label:
            return (self.probabilities >= 0.5).astype(np.float64)
        classes = np.zeros_like(self.truth)
        read = np.flatnonzero(self.was_read)
        classes[read, self.probabilities[read].argmax(1)] = 1
        return classes

    @property
    def confidence(self) -> Array:
        """(N,) the largest probability."""
        return self.probabilities.max(1)  # type: ignore[no-any-return]
