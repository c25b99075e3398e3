"""The frames of a segment: some seconds of a longer video."""

from __future__ import annotations

import numpy as np

from datamodules.frames import Seconds

__all__ = ["segment_frames"]

_TOLERANCE = 1e-6  # seconds; decoders round time stamps, and what is counted from the first one is rounded again


def segment_frames(pts: Seconds, fps: float, start: float | None = None, end: float | None = None) -> slice:
    """The frames that appear between two seconds of a video, both included.

    Seconds count from the first frame, as players and annotation tools count them, whatever clock the container has: a
    broadcast recording may begin at second 36,000. Where no frame appears in between, the one that is on screen at the
    start is the segment.

    Args:
        pts: (length,) seconds at which each frame appears, ascending.
        fps: Average frames per second; tells how long the last frame stands.
        start: First second, None for the video's start.
        end: Last second, None for the video's end.

    Returns:
        The frames' places in `pts`; an empty slice where the segment does not lie in the video.

    Example:
        >>> segment_frames(36000 + np.arange(30) / 10, 10.0, start=1.0, end=1.5)
        slice(10, 16, None)
    """
    shown = pts - pts[0]
    first = 0 if start is None else int(np.searchsorted(shown, start - _TOLERANCE, side="left"))
    stop = len(shown) if end is None else int(np.searchsorted(shown, end + _TOLERANCE, side="right"))
    if first < stop:
        return slice(first, stop)
    is_on_screen = start is not None and 0 <= start < shown[-1] + (1 / fps if fps > 0 else 0.0)
    on_screen = first - 1  # the last frame that appeared before the start
    return slice(on_screen, on_screen + 1) if is_on_screen and (end is None or end > 0) else slice(0, 0)
