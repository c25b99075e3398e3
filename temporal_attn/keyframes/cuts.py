"""Cut lists of the key frames, for players and editing programs.

A key frame stands for the time around it, up to the middle between it and the frames of the clip beside it; key frames
that touch make one segment. `ffconcat` is FFmpeg's script of the concat demuxer
(https://ffmpeg.org/ffmpeg-formats.html#concat-1): ``ffmpeg -safe 0 -i keyframes.ffconcat out.mp4`` plays these seconds.
The demuxer seeks to the codec's own key frame before each inpoint and gives the frames from there on as well, so that a
segment may begin earlier; it is exact where every frame is coded by itself. An edit decision list is CMX 3600's, and
exact to the frame.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from temporal_attn.keyframes.game import ClipError

if TYPE_CHECKING:
    from temporal_attn.keyframes.inspection import Inspection

__all__ = ["Segment", "check_name", "edit_decision_list", "ffconcat", "segments"]

_FALLBACK_FPS = 25.0


class Segment(NamedTuple):
    """Seconds of the file, from and to.

    Args:
        start: First second.
        end: Second after the last.
    """

    start: float
    end: float


def segments(inspection: Inspection) -> list[Segment]:
    """The seconds that the key frames stand for, in the order of time; none where there is no key frame."""
    frames = inspection.frames
    step = 1 / (inspection.file_fps or _FALLBACK_FPS)
    end = max(inspection.file_seconds, frames[-1].pts + step)
    found: list[Segment] = []
    for position, frame in enumerate(frames):
        if not frame.keyframe:
            continue
        before = frames[position - 1].pts if position else frame.pts
        after = frames[position + 1].pts if position + 1 < len(frames) else 2 * end - frame.pts
        segment = Segment((before + frame.pts) / 2, (frame.pts + after) / 2)
        if found and segment.start <= found[-1].end:
            found[-1] = Segment(found[-1].start, segment.end)
        else:
            found.append(segment)
    return found


def check_name(video: str | Path) -> None:
    """Refuse a file whose name a script of the concat demuxer cannot hold.

    Raises:
        ClipError: The name, or that of a folder above it, has a line break.
    """
    name = str(Path(video).absolute())
    if "\n" in name or "\r" in name:
        raise ClipError(
            f"formats: ffconcat cannot hold {name!r}, a name with a line break; rename it or leave that out"
        )


def ffconcat(inspection: Inspection) -> str:
    """A script of FFmpeg's concat demuxer that plays the segments one after the other.

    Raises:
        ClipError: The file's name has a line break, which the script cannot hold.
    """
    check_name(inspection.video)
    path = str(Path(inspection.video).absolute()).replace("'", "'\\''")
    lines = ["ffconcat version 1.0"]
    for segment in segments(inspection):
        lines += [f"file '{path}'", f"inpoint {segment.start:.6f}", f"outpoint {segment.end:.6f}"]
    return "\n".join(lines) + "\n"


def edit_decision_list(inspection: Inspection) -> str:
    """A CMX 3600 edit decision list of the segments, rounded to whole frames.

    Times count frames from the first one of the file, 00:00:00:00, whatever second that frame has. Timecode without
    dropped frames numbers them by whole rates: at 30000/1001 frames a second it runs 3.6 s behind the clock in an hour.
    A file of varying frame rate is counted at its mean rate.
    """
    fps = inspection.file_fps or _FALLBACK_FPS
    rate = max(1, round(fps))
    name = " ".join(PurePath(inspection.video).name.split())
    lines = [f"TITLE: KEY FRAMES OF {name}", "FCM: NON-DROP FRAME", ""]
    position = 0
    for number, segment in enumerate(segments(inspection), start=1):
        first, last = (math.floor((second - inspection.file_start) * fps + 0.5) for second in segment)
        start = max(0, first)
        end = max(start + 1, last)
        times = (start, end, position, position + end - start)
        codes = " ".join(_timecode(time, rate) for time in times)
        lines += [f"{number:03d}  AX       V     C        {codes}", f"* FROM CLIP NAME: {name}", ""]
        position += end - start
    return "\n".join(lines)


def _timecode(frame: int, rate: int) -> str:
    seconds, frames = divmod(frame, rate)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}:{frames:02d}"
