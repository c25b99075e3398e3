from __future__ import annotations

import numpy as np
import pytest

from datamodules.segments import segment_frames


def on_screen(pts, fps, start, end):
    """Frames that a viewer sees appear in the segment, or the one that stands all through it, moment by moment."""
    ends = [*pts[1:], pts[-1] + 1 / fps]
    appear = [place for place, time in enumerate(pts) if start - 1e-9 <= time - pts[0] <= end + 1e-9]
    standing = [place for place, last in enumerate(ends) if pts[place] - pts[0] <= start < last - pts[0]]
    return appear or standing


@pytest.mark.parametrize("offset", [0.0, 5.0, 36000.0])
@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 6.0), (0.2, 0.7), (0.02, 0.08), (2.91, 2.99), (2.95, 9.0), (1.0, 1.0), (0.0, 0.05)]
)
def test_seconds_count_from_the_first_frame(offset, start, end):
    pts = offset + np.arange(30) / 10
    own = segment_frames(pts, 10.0, start, end)
    assert list(range(own.start, own.stop)) == on_screen(np.arange(30) / 10, 10.0, start, end)


def test_an_open_end_reaches_to_the_end_of_the_video():
    pts = 7 + np.array([0.0, 0.5, 4.0])
    assert segment_frames(pts, 1.0) == slice(0, 3)
    assert segment_frames(pts, 1.0, end=1.0) == slice(0, 2)
    assert segment_frames(pts, 1.0, start=0.4) == slice(1, 3)
    assert segment_frames(pts, 1.0, start=1.0, end=2.0) == slice(1, 2)


@pytest.mark.parametrize(("start", "end"), [(3.1, 4.0), (60.0, None), (60.0, 61.0)])
def test_what_lies_behind_the_video_is_empty(start, end):
    own = segment_frames(np.arange(30) / 10, 10.0, start, end)
    assert own.stop == own.start
