"""An inspection as one picture: the film strip with its bars, and the contact sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from temporal_attn.keyframes.charts import score_bars
from temporal_attn.keyframes.pictures import Image, overlaid

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from temporal_attn.keyframes.inspection import InspectedFrame, Inspection

__all__ = ["contact_sheet", "draw_strip", "film_strip"]

_CELL, _GAP, _MARGIN, _BARS = 128, 6, 24, 96
_PAPER, _INK, _QUIET, _RULE = (252, 251, 249), (28, 27, 25), (103, 99, 92), (222, 218, 210)
_FOR, _AGAINST = (15, 107, 96), (178, 78, 34)


def film_strip(inspection: Inspection) -> Image:
    """All frames in one row, each over the bar of its score, under the verdict.

    Returns:
        (H, W, 3) uint8.
    """
    return draw_strip(*_words(inspection), inspection.frames, inspection.pictures)


def draw_strip(title: str, note: str, frames: Sequence[InspectedFrame], pictures: Sequence[Image]) -> Image:
    """`film_strip` of frames that come from no file.

    Args:
        title: First line.
        note: Second line, smaller.
        frames: P frames with their scores.
        pictures: P frames (H, W, 3) uint8.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    width = 2 * _MARGIN + max(4, len(frames)) * (_CELL + _GAP) - _GAP
    height = _MARGIN + 52 + _CELL + 12 + _BARS + 40 + _MARGIN
    sheet = Pillow.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _heading(pen, title, note, width)
    bars = score_bars([frame.score for frame in frames], [frame.ci for frame in frames])
    top = _MARGIN + 52
    for position, frame in enumerate(frames):
        left = _MARGIN + position * (_CELL + _GAP)
        _paste(sheet, pen, pictures[position], frame, left, top)
        base = top + _CELL + 12
        bar = bars.bars[position]
        edges = [base + _BARS * y / 100 for y in (bar.y, bar.y + bar.height)]
        colour = _FOR if bar.positive else _AGAINST
        pen.rectangle((left + 24, edges[0], left + _CELL - 24, max(edges)), fill=colour)
        if bar.interval is not None:
            low, high = (base + _BARS * y / 100 for y in bar.interval)
            pen.line((left + _CELL / 2, low, left + _CELL / 2, high), fill=_INK, width=2)
        zero = base + _BARS * bars.zero / 100
        pen.line((left, zero, left + _CELL, zero), fill=_QUIET)
        for line, (text, ink) in enumerate(((f"{frame.score:+.2f}", _INK), (f"{frame.pts:.2f} s", _QUIET))):
            pen.text((left + _CELL / 2, base + _BARS + 4 + 16 * line), text, ink, _font(12), anchor="ma")
    return np.asarray(sheet)


def contact_sheet(inspection: Inspection, columns: int = 4) -> Image:
    """The frames in rows, the heat maps over them where there are any, with time and score below each.

    Args:
        inspection: What is drawn.
        columns: Frames in a row.

    Returns:
        (H, W, 3) uint8.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    frames = inspection.frames
    columns = min(columns, len(frames))
    cell = 2 * _CELL
    rows = math.ceil(len(frames) / columns)
    width = 2 * _MARGIN + max(2, columns) * (cell + _GAP) - _GAP
    sheet = Pillow.new("RGB", (width, 2 * _MARGIN + 52 + rows * (cell + 28)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _heading(pen, *_words(inspection), width)
    for position, frame in enumerate(frames):
        row, column = divmod(position, columns)
        left, top = _MARGIN + column * (cell + _GAP), _MARGIN + 52 + row * (cell + 28)
        picture = inspection.pictures[position]
        if inspection.heatmaps is not None:
            picture = overlaid(picture, inspection.heatmaps[position])
        _paste(sheet, pen, picture, frame, left, top, cell)
        pen.text((left, top + cell + 6), f"{frame.pts:.2f} s   {frame.score:+.2f}", _INK, _font(14))
    return np.asarray(sheet)


def _words(inspection: Inspection) -> tuple[str, str]:
    title = f"{PurePath(inspection.video).name}: {inspection.question}, p = {inspection.evidence.full:.2f}"
    return title, inspection.verdict


def _heading(pen: Pen, title: str, note: str, width: int) -> None:
    room = width - 2 * _MARGIN
    pen.text((_MARGIN, _MARGIN - 6), _fitted(title, _font(18), room), _INK, _font(18))
    pen.text((_MARGIN, _MARGIN + 20), _fitted(note, _font(13), room), _QUIET, _font(13))


def _paste(
    sheet: Picture, pen: Pen, picture: Image, frame: InspectedFrame, left: int, top: int, cell: int = _CELL
) -> None:
    """A frame in a square cell, outlined and numbered where it is a key frame."""
    from PIL import Image as Pillow

    image = Pillow.fromarray(np.ascontiguousarray(picture))
    scale = cell / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    sheet.paste(image, (left + (cell - image.width) // 2, top + (cell - image.height) // 2))
    if frame.rank is not None:
        pen.rectangle((left, top, left + cell - 1, top + cell - 1), outline=_FOR, width=3)
        pen.rectangle((left, top, left + 22, top + 20), fill=_FOR)
        pen.text((left + 11, top + 3), str(frame.rank), _PAPER, _font(13), anchor="ma")


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(text: str, font: FreeTypeFont | ImageFont, width: float) -> str:
    """The text, or as much of it as fits, with an ellipsis; letters that the font cannot write become "?"."""
    text = text.replace("−", "-").encode("latin-1", "replace").decode("latin-1")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
