"""Which frames of a video make a clip.

Pure numpy. Each function answers with T ascending frame indices and a mask; where a video has too few frames, the last
one fills the rest and the mask says so. A generator draws the place of the frames, as in training; without one they
stand in the middle, or where a `View` says, as in evaluation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from temporal_attn.types import ClipSpec

__all__ = [
    "View",
    "clip_indices",
    "dense_indices",
    "jittered_indices",
    "lagged_indices",
    "seconds_indices",
    "symmetric_indices",
    "uniform_indices",
]

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Seconds = NDArray[np.float64]

_TOLERANCE = 1e-6  # seconds; decoders round time stamps


class View(NamedTuple):
    """Which of several clips of one video this is.

    Args:
        number: From 0.
        total: Clips of the video.
    """

    number: int = 0
    total: int = 1

    @property
    def place(self) -> float:
        """Where its window stands on the way from the video's start, 0, to its end, 1; a single one in the middle."""
        return 0.5 if self.total == 1 else self.number / (self.total - 1)


CENTRE = View()


def uniform_indices(
    length: int,
    num_frames: int,
    rng: np.random.Generator | None = None,
    *,
    repeat_short: bool = False,
    view: View = CENTRE,
) -> tuple[Indices, Mask]:
    """One frame from each of T equal segments of the video.

    Paper: Wang et al., "Temporal Segment Networks", ECCV 2016. https://arxiv.org/abs/1608.00859

    Args:
        length: Frames of the video.
        num_frames: T.
        rng: Draws the frame within its segment; None takes the segment's middle.
        repeat_short: Whether a video of fewer than T frames repeats them evenly instead of being padded at the end.
        view: Without `rng`: cuts each segment into as many parts as there are views, and takes the middle of one.

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
    offset = size * (2 * view.number + 1) // (2 * view.total) if rng is None else rng.integers(size)
    return first + offset, np.ones(num_frames, dtype=np.bool_)


def symmetric_indices(
    length: int,
    num_frames: int,
    rng: np.random.Generator | None = None,
    *,
    repeat_short: bool = False,
    view: View = CENTRE,
) -> tuple[Indices, Mask]:
    """One frame from each of T segments that are equal to the fraction of a frame: the reversed video's are the same.

    Segments of `uniform_indices` are whole frames, and theirs of the reversed video lie up to a frame elsewhere, which
    tells a direction where there is none. Here frame t of the reversed video is frame T - 1 - t of the video; only the
    middle one of an odd T has to choose where the length is even. With a generator the same holds for the probability
    of each draw; two neighbours may draw the frame across whose inside their border runs.

    Args:
        length: Frames of the video.
        num_frames: T.
        rng: Draws the place within its segment; None takes the segment's middle.
        repeat_short: Whether a video of fewer than T frames repeats them evenly instead of being padded at the end.
        view: As in `uniform_indices`. The last view of the reversed video is the first one of the video.

    Returns:
        Indices (T,) int64 ascending in [0, length), and mask (T,) bool, True = a real frame.

    Raises:
        ValueError: length or num_frames is not positive.

    Example:
        >>> symmetric_indices(8, 4)[0].tolist()
        [1, 3, 4, 6]
    """
    _check(length, num_frames)
    if length < num_frames and not repeat_short:
        return _padded(np.arange(length), num_frames)
    segment = np.arange(num_frames, dtype=np.int64)
    real = np.ones(num_frames, dtype=np.bool_)
    if rng is not None:
        place = (segment + rng.random(num_frames)) * length / num_frames
        return np.minimum(place.astype(np.int64), length - 1), real
    # The place is above / below, in frames; in whole numbers, because the ties between two frames have to be exact.
    above, below = (2 * (segment * view.total + view.number) + 1) * length, 2 * view.total * num_frames
    tie_in_second_half = (above % below == 0) & (2 * above >= length * below)
    return above // below - tie_in_second_half, real


def dense_indices(
    length: int,
    num_frames: int,
    stride: int,
    rng: np.random.Generator | None = None,
    *,
    repeat_short: bool = False,
    view: View = CENTRE,
) -> tuple[Indices, Mask]:
    """T frames that lie `stride` apart, from one window of the video.

    Args:
        length: Frames of the video.
        num_frames: T.
        stride: Frames from one sample to the next.
        rng: Draws the window's place; None takes the video's middle.
        repeat_short: Whether a video shorter than the window counts its last frame again instead of being padded.
        view: Without `rng`: windows are spread evenly, the first one at the video's start and the last one at its end.

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
    start = int(spare * view.place) if rng is None else int(rng.integers(spare + 1))
    indices, mask = _padded(start + np.arange(count) * stride, num_frames)
    return indices, mask | repeat_short


def seconds_indices(
    pts: Seconds,
    num_frames: int,
    fps: float,
    rng: np.random.Generator | None = None,
    *,
    repeat_short: bool = False,
    view: View = CENTRE,
) -> tuple[Indices, Mask]:
    """The frames that a viewer sees at T moments, 1 / fps seconds apart: a window of T / fps seconds.

    The same for videos of any frame rate, also one that varies. A frame that stands longer than 1 / fps is taken
    several times.

    Args:
        pts: (length,) seconds at which each frame appears, ascending.
        num_frames: T.
        fps: Moments a second.
        rng: Draws the window's place; None takes the video's middle.
        repeat_short: Whether a video shorter than the window counts its last frame again instead of being padded.
        view: As in `dense_indices`.

    Returns:
        Indices (T,) int64 ascending in [0, length), and mask (T,) bool, True = the video lasts that long.

    Raises:
        ValueError: There is no frame, or num_frames or fps is not positive.

    Example:
        >>> seconds_indices(np.arange(30) / 10, 4, fps=2.0)[0].tolist()
        [7, 12, 17, 22]
    """
    _check(len(pts), num_frames)
    if not fps > 0:
        raise ValueError(f"fps has to be positive, not {fps}")
    lasts = float(pts[-1] - pts[0]) + _TOLERANCE
    count = min(num_frames, int(lasts * fps) + 1)
    spare = max(0.0, lasts - _TOLERANCE - (count - 1) / fps)
    if rng is None:
        start = spare * view.place
    else:  # up to the last frame's end, as far as one can tell, so that it is as likely as any other
        last_stands = min(float(pts[-1] - pts[-2]), 1 / fps) if len(pts) > 1 else 0.0
        start = (spare + last_stands) * rng.random()
    moments = pts[0] + start + np.arange(count) / fps
    shown = np.searchsorted(pts, moments + _TOLERANCE, side="right") - 1
    indices, mask = _padded(shown, num_frames)
    return indices, mask | repeat_short


def lagged_indices(pts: Seconds, indices: Indices, lag: float) -> tuple[Indices, Indices]:
    """Each frame and the one that is shown `lag` seconds later.

    Near the end, where none is, the pair is moved back as far as it has to; in a video that is shorter than `lag` it is
    the first frame and the last.

    Args:
        pts: (length,) seconds at which each frame appears, ascending.
        indices: Frames, of any shape.
        lag: Seconds, not negative. Where no frame is as much later, the next one after it counts.

    Returns:
        The frames, and those after them, both of the shape of `indices`.

    Example:
        >>> lagged_indices(np.arange(5) / 10, np.array([0, 2, 4]), lag=0.1)
        (array([0, 2, 3]), array([1, 3, 4]))
    """
    latest = max(0, int(np.searchsorted(pts, pts[-1] - lag + _TOLERANCE, side="right")) - 1)
    first = np.minimum(indices, latest)
    second = np.searchsorted(pts, pts[first] + lag - _TOLERANCE, side="left")
    return first, np.minimum(second, len(pts) - 1)


def jittered_indices(indices: Indices, mask: Mask, length: int, reach: float, rng: np.random.Generator) -> Indices:
    """Each frame moved at random by up to a share of the way to its nearer neighbour, so that their order stays.

    Args:
        indices: (T,) ascending in [0, length), from one of the functions above.
        mask: (T,) bool, True = a real frame; padding goes on repeating the last one.
        length: Frames of the video.
        reach: Share, in [0, 0.5].
        rng: Draws.

    Returns:
        Indices (T,) ascending in [0, length).

    Raises:
        ValueError: reach is out of range.
    """
    if not 0 <= reach <= 0.5:
        raise ValueError(f"reach has to be in [0, 0.5], not {reach}")
    real = indices[mask]
    if len(real) < 2:
        return indices
    gaps = np.diff(real)
    nearer = np.minimum(np.append(gaps[:1], gaps), np.append(gaps, gaps[-1:]))
    far = (reach * nearer).astype(np.int64)
    moved = np.clip(real + rng.integers(-far, far, endpoint=True), 0, length - 1)
    return np.pad(moved, (0, len(indices) - len(real)), mode="edge")


def clip_indices(
    pts: Seconds, clip: ClipSpec, rng: np.random.Generator | None = None, *, jitter: float = 0.0, view: View = CENTRE
) -> tuple[Indices, Mask]:
    """The frames of a clip, by the sampling that its `ClipSpec` names.

    Args:
        pts: (length,) seconds at which each frame of the video appears, ascending.
        clip: How the clip is cut.
        rng: Draws the frames' places; None takes those of evaluation.
        jitter: Reach of `jittered_indices`; with a generator only.
        view: Which of the clips of evaluation.

    Returns:
        Indices (T,) int64 ascending in [0, length), and mask (T,) bool, True = a real frame.
    """
    num_frames, repeat_short, sampling = clip["num_frames"], clip["repeat_short"], clip["sampling"]
    if sampling == "seconds":
        indices, mask = seconds_indices(pts, num_frames, clip["fps"], rng, repeat_short=repeat_short, view=view)
    elif sampling == "dense":
        stride = clip["stride"]
        indices, mask = dense_indices(len(pts), num_frames, stride, rng, repeat_short=repeat_short, view=view)
    else:
        segments = {"uniform": uniform_indices, "symmetric": symmetric_indices}[sampling]
        indices, mask = segments(len(pts), num_frames, rng, repeat_short=repeat_short, view=view)
    if rng is not None and jitter > 0:
        indices = jittered_indices(indices, mask, len(pts), jitter, rng)
    return indices, mask


def _padded(indices: NDArray[np.integer[Any]], num_frames: int) -> tuple[Indices, Mask]:
    missing = num_frames - len(indices)
    return np.pad(indices.astype(np.int64), (0, missing), mode="edge"), np.arange(num_frames) < len(indices)


def _check(*positive: int) -> None:
    if min(positive) < 1:
        raise ValueError(f"length, num_frames and stride have to be positive, not {positive}")
