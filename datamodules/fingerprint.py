"""Whether two videos show the same, whatever their codec, size, frame rate or container.

A fingerprint is eight frames at fixed shares of the duration, each as the mean brightness of 8 × 8 cells. Two videos
are compared by the correlation of these numbers, each frame freed of its mean, so that brightness and contrast do not
count. The bits of a difference hash, which only say whether a cell is brighter than its neighbour, were measured too
and do not separate: on scenes with flat areas they fall as noise will have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["FINGERPRINT_BYTES", "alike_pairs", "fingerprint", "frame_places"]

_FRAMES, _CELLS = 8, 8
FINGERPRINT_BYTES = _FRAMES * _CELLS * _CELLS

ALIKE = 0.015
"""Distance, 1 - correlation, up to which two videos of one length count as the same. Measured on UCF101: re-encoded as
H.264 at CRF 35 or MPEG-4 at twice the size at most 0.004, at 96 × 72 and CRF 38 at most 0.015; the nearest two of
108,818 pairs of one length but of different classes 0.025. Clips of one group may be as near as 0.0004: the same people
do the same before the same camera."""
_FLAT = 2.0
"""Levels of brightness by which the cells of a frame differ (root mean square) in a video that shows something."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BLOCK = 2048

Prints = npt.NDArray[np.uint8]


def frame_places(length: int) -> list[int]:
    """Indices of the frames that a fingerprint is made of.

    Args:
        length: Frames of the video, at least one.
    """
    return [int((place + 0.5) / _FRAMES * length) for place in range(_FRAMES)]


def fingerprint(frames: npt.NDArray[np.uint8]) -> bytes:
    """Fingerprint of a video.

    Args:
        frames: (8, H, W, 3) uint8 RGB, those of `frame_places`; of any size.

    Returns:
        8 × 8 × 8 levels of brightness, a byte each.
    """
    grey = frames.astype(np.float32) @ _LUMA
    return np.rint(_average(_average(grey, 1), 2)).astype(np.uint8).tobytes()


def alike_pairs(
    prints: Prints, seconds: Sequence[float], frames: Sequence[int], threshold: float = ALIKE
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """All pairs of videos that show the same and are equally long, in seconds (2 % and 0.2 s) or in frames (2 % and 2).

    Videos that show nothing, such as black ones, are like no other. Time grows with the number of pairs of one length.

    Args:
        prints: (N, 512) fingerprints.
        seconds: Duration of each video.
        frames: Number of frames of each video.
        threshold: Largest distance, 1 - correlation.

    Returns:
        (M, 2) positions of the pairs, the smaller one first, ascending; and (M,) their distances.
    """
    cells = prints.reshape(len(prints), _FRAMES, _CELLS * _CELLS).astype(np.float32)
    vectors = (cells - cells.mean(2, keepdims=True)).reshape(len(prints), FINGERPRINT_BYTES)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    shown = np.flatnonzero(norms[:, 0] > _FLAT * np.sqrt(FINGERPRINT_BYTES))
    vectors = vectors[shown] / norms[shown]
    found: dict[tuple[int, int], np.float32] = {}
    for lengths, slack in ((seconds, 0.2), (frames, 2)):
        for one, other, distance in _near(vectors, np.asarray(lengths, np.float64)[shown], slack, threshold):
            found[min(shown[one], shown[other]), max(shown[one], shown[other])] = distance
    pairs = sorted(found)
    return np.array(pairs, np.int64).reshape(-1, 2), np.array([found[pair] for pair in pairs], np.float32)


def _near(
    vectors: npt.NDArray[np.float32], lengths: npt.NDArray[np.float64], slack: float, threshold: float
) -> Iterator[tuple[int, int, np.float32]]:
    """Pairs of unit vectors within a distance, whose lengths differ by no more than 2 % and some slack."""
    order = np.argsort(lengths, kind="stable")
    last = np.searchsorted(lengths[order], lengths[order] * 1.02 + slack, side="right")
    for top in range(0, len(order), _BLOCK):
        bottom = min(top + _BLOCK, len(order))
        for left in range(top, int(last[bottom - 1]), _BLOCK):
            right = min(left + _BLOCK, int(last[bottom - 1]))
            distance = 1 - vectors[order[top:bottom]] @ vectors[order[left:right]].T
            rows, columns = np.nonzero(distance <= threshold)
            kept = (rows + top < columns + left) & (columns + left < last[rows + top])
            for row, column in zip(rows[kept], columns[kept], strict=True):
                yield int(order[row + top]), int(order[column + left]), max(distance[row, column], np.float32(0))


def _average(values: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Means of eight equal parts of an axis; a pixel on a border counts for both sides by its share."""
    size = values.shape[axis]
    sums = np.insert(np.cumsum(values, axis, dtype=np.float64), 0, 0, axis)
    edges = np.linspace(0, size, _CELLS + 1)
    low = np.minimum(edges.astype(np.int64), size - 1)
    share = (edges - low).reshape([-1 if other == axis else 1 for other in range(values.ndim)])
    at_edges = np.take(sums, low, axis) * (1 - share) + np.take(sums, low + 1, axis) * share
    means: npt.NDArray[np.float64] = np.diff(at_edges, axis=axis) * _CELLS / size
    return means.astype(np.float32)
