"""What a reader of video frames is, whatever decodes them."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["VIDEO_SUFFIXES", "BaseReader", "Reader", "scaled_size"]

VIDEO_SUFFIXES = (
    *(".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"),
    *(".ts", ".m2ts", ".mts", ".wmv", ".asf", ".flv", ".3gp", ".ogv"),
)
"""Lower-case file suffixes that are taken for videos when a folder is searched."""

Self = TypeVar("Self", bound="BaseReader")


@runtime_checkable
class Reader(Protocol):
    """Frames of one video by display-order index.

    Attributes:
        path: The file.
        engine: What decodes it: ``decord``, ``pyav``, ``torchcodec``, ``frames`` or ``array``.
        note: Why another engine than the wanted one reads the file, in words; empty where the wanted one does.
        fps: Average frames per second.
        pts: (N,) float64, second at which each frame is shown, ascending.
        size: (height, width) of the frames that `get_batch` returns.
    """

    path: str
    engine: str
    note: str
    fps: float
    pts: npt.NDArray[np.float64]
    size: tuple[int, int]

    def __len__(self) -> int:
        """Frames that decode."""
        ...

    def get_batch(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Frames by index, see `BaseReader.get_batch`."""
        ...

    def close(self) -> None:
        """Give memory and file back."""
        ...

    def __enter__(self) -> Reader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BaseReader(ABC):
    """What all engines share: checks of indices, the context manager, and the refusal to be pickled.

    Args:
        path: The file.
        pts: (N,) second at which each frame is shown, ascending.
        fallback_fps: Frames per second where one frame alone does not tell.
        size: (height, width) of the frames that `get_batch` returns.
        note: Why another engine than the wanted one reads the file.
    """

    engine: str

    def __init__(
        self, path: str, pts: npt.NDArray[np.float64], fallback_fps: float, size: tuple[int, int], note: str = ""
    ) -> None:
        self.path = path
        self.pts = pts
        self.size = size
        self.note = note
        span = float(pts[-1] - pts[0])
        self.fps = (len(pts) - 1) / span if span > 0 else fallback_fps

    def __len__(self) -> int:
        return len(self.pts)

    def get_batch(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Frames by display-order index.

        Args:
            indices: In any order, with repeats; none at all is allowed.

        Returns:
            (len(indices), height, width, 3) uint8 RGB, upright, in the order asked.

        Raises:
            IndexError: An index is negative or not below the number of frames.
            VideoError: The file is damaged where a wanted frame should be.
        """
        wanted = [operator.index(index) for index in indices]
        for index in wanted:
            if not 0 <= index < len(self):
                raise IndexError(f"{self.path}: frame {index} of {len(self)}: valid are 0 to {len(self) - 1}")
        if not wanted:
            return np.empty((0, *self.size, 3), np.uint8)
        return self._read(wanted)

    @abstractmethod
    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        """Frames of valid indices, at least one, in the order asked."""

    @abstractmethod
    def close(self) -> None:
        """Give memory and file back; the reader cannot be used any more."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        height, width = self.size
        return f"{type(self).__name__}({self.path!r}, {len(self)} frames, {width}×{height}, {self.fps:.3g} fps)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds an open decoder and cannot be pickled: pass the path, and open the reader "
            "in the process that reads"
        )


def scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Size with the given short side and the same aspect ratio, up or down.

    Args:
        height: Pixels of the upright frame.
        width: Pixels of the upright frame.
        short_side: Pixels wanted, None for the size as it is.

    Returns:
        (height, width); the long side is rounded to the nearest pixel.
    """
    if short_side is None:
        return height, width
    short = min(height, width)
    return (height * short_side + short // 2) // short, (width * short_side + short // 2) // short
