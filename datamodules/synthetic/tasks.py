"""What a synthetic task is: classes, which of them are each other's time reversal, and how a group is rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RenderedVideo", "Task"]


@dataclass(frozen=True, slots=True)
class RenderedVideo:
    """One video before encoding.

    Args:
        class_name: What it shows.
        clip: Number of the clip within its class and group, from 1.
        frames: (N, S, S, 3) uint8 RGB.
        key_frames: Indices of the frames that alone decide the class, ascending; empty where all together do.
    """

    class_name: str
    clip: int
    frames: NDArray[np.uint8]
    key_frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A family of videos with known answers.

    Args:
        name: As users choose it.
        version: Counts changes of the pictures, so that files rendered before a change are not taken for new ones.
        pairs: Classes that are each other's time reversal: both hold the same frames in opposite order.
        others: Classes that can be told from their frames in any order.
        render_group: (seed, group, clips of each class) -> the videos of one group, in a fixed order.
    """

    name: str
    version: int
    pairs: tuple[tuple[str, str], ...]
    others: tuple[str, ...]
    render_group: Callable[[int, int, int], Iterator[RenderedVideo]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in label order."""
        return tuple(sorted([name for pair in self.pairs for name in pair] + list(self.others)))

    @property
    def frame_average_bound(self) -> float:
        """Best accuracy of any model that ignores the order of frames, on the same number of videos of each class.

        The two videos of a pair are one set of frames to such a model. It gives both the same answer, which is right
        for one of them at most; the other classes may all be right: (P / 2 + E) / (P + E) for P paired, E other ones.
        """
        paired, others = 2 * len(self.pairs), len(self.others)
        return (paired / 2 + others) / (paired + others)
