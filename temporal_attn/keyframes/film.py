"""The clip as a film: each frame for as long as it stood in the video, its heat map over it, its score below."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from temporal_attn.keyframes.charts import score_bars
from temporal_attn.keyframes.pictures import Image, overlaid

if TYPE_CHECKING:
    from temporal_attn.keyframes.inspection import Inspection

__all__ = ["film_frames", "write_film"]

_SIDE, _TRACK = 448, 96
_TICKS = 90_000
_PAPER, _QUIET = (21, 21, 20), (161, 156, 147)
_FOR, _AGAINST, _CURSOR = (88, 191, 174), (229, 138, 92), (237, 235, 230)


def film_frames(inspection: Inspection) -> list[Image]:
    """One picture (544, 448, 3) uint8 a frame: the frame, and below it the bars of all frames with its own marked."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    bars = score_bars([frame.score for frame in inspection.frames], None)
    step = _SIDE / len(bars.bars)
    zero = _SIDE + 8 + (_TRACK - 16) * bars.zero / 100
    pictures = []
    for position, picture in enumerate(inspection.pictures):
        shown = picture if inspection.heatmaps is None else overlaid(picture, inspection.heatmaps[position])
        image = Pillow.fromarray(np.ascontiguousarray(shown))
        scale = _SIDE / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        sheet = Pillow.new("RGB", (_SIDE, _SIDE + _TRACK), _PAPER)
        sheet.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
        pen = ImageDraw.Draw(sheet)
        for place, bar in enumerate(bars.bars):
            left, right = place * step + min(2, step / 4), (place + 1) * step - min(2, step / 4)
            top, bottom = (_SIDE + 8 + (_TRACK - 16) * y / 100 for y in (bar.y, bar.y + bar.height))
            if place == position:
                pen.rectangle((left, _SIDE, right, _SIDE + 3), fill=_CURSOR)
            pen.rectangle((left, top, right, max(top, bottom)), fill=_FOR if bar.positive else _AGAINST)
        pen.line((0, zero, _SIDE, zero), fill=_QUIET)
        pictures.append(np.asarray(sheet))
    return pictures


def write_film(inspection: Inspection, path: Path) -> None:
    """Write an MP4 (H.264) whose frames have the times of the video's, counted from the first."""
    import av

    pictures = film_frames(inspection)
    times = [frame.pts - inspection.frames[0].pts for frame in inspection.frames]
    hold = times[-1] / (len(times) - 1) if len(times) > 1 else 1.0
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(1, 1) if hold <= 0 else Fraction(1 / hold).limit_denominator(1000)
        )
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        stream.codec_context.thread_count = 1
        # The last picture comes twice, because a frame lasts until the next one begins.
        for time, picture in zip([*times, times[-1] + hold], [*pictures, pictures[-1]], strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * _TICKS), Fraction(1, _TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
