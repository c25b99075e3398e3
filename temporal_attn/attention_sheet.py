"""Draw attention over frames: one column a frame, one row a kind of weight, one colour scale a row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["Row", "bar_row", "channel_row", "draw_sheet", "frame_row", "heat", "place_row", "quadrilateral_row"]

Image = NDArray[np.uint8]
Weights = NDArray[np.float64]

CELL = 160
"""Pixels of a column's width; a frame is scaled to it."""
_MARGIN, _GAP, _LABEL = 20, 6, 176
_INK, _SOFT, _PAPER, _BLUE, _TRACK = (24, 24, 27), (104, 104, 114), (255, 255, 255), (37, 99, 235), (235, 236, 240)

# Dark to light through hues that also differ for people who see few colours; evenly spaced in lightness.
_STOPS = np.array([(13, 8, 48), (84, 15, 109), (165, 44, 96), (225, 100, 60), (250, 178, 50), (252, 255, 164)], float)


class Row(NamedTuple):
    """One kind of weight over all frames.

    Args:
        title: What it is, a few words.
        note: What the colours or bars mean.
        cells: One (h, CELL, 3) uint8 picture a frame, all of one height.
        scale: Weights at the dark and the light end, None where there are no colours.
    """

    title: str
    note: str
    cells: Sequence[Image]
    scale: tuple[float, float] | None = None


def heat(weights: Weights, low: float, high: float) -> Image:
    """Colours (…, 3) uint8 of weights: dark at low, light at high; all in the middle where the two are equal."""
    position = (weights - low) / (high - low) if high > low else np.full_like(weights, 0.5)
    position = np.clip(position, 0, 1) * (len(_STOPS) - 1)
    index = np.minimum(position.astype(int), len(_STOPS) - 2)
    part = (position - index)[..., None]
    colours: Image = (_STOPS[index] * (1 - part) + _STOPS[index + 1] * part).round().astype(np.uint8)
    return colours


def frame_row(frames: Sequence[Image], captions: Sequence[str]) -> Row:
    """The frames as the model saw them, with the second of each written below.

    Args:
        frames: T frames (H, W, 3) uint8.
        captions: T short texts.
    """
    cells = []
    for frame, caption in zip(frames, captions, strict=True):
        picture = _resized(frame, CELL)
        cells.append(np.concatenate([picture, _text_line(caption)]))
    return Row("frames", "what the model saw", cells)


def place_row(title: str, frames: Sequence[Image], weights: Weights) -> Row:
    """Weights of places as colour over each frame in grey.

    Args:
        title: What made them.
        frames: T frames (H, W, 3) uint8.
        weights: (T, h, w).
    """
    low, high = float(weights.min()), float(weights.max())
    cells = []
    for frame, weight in zip(frames, weights, strict=True):
        picture = _resized(frame, CELL)
        grey = picture.mean(-1, keepdims=True)
        colours = heat(_enlarged(weight, picture.shape[0], picture.shape[1]), low, high)
        cells.append((0.35 * grey + 0.65 * colours).round().astype(np.uint8))
    return Row(title, "where, one colour scale for all frames", cells, (low, high))


def channel_row(title: str, weights: Weights) -> Row:
    """Weights of channels, a square each, the same channel at the same place in every frame.

    Args:
        title: What made them.
        weights: (T, C).
    """
    low, high = float(weights.min()), float(weights.max())
    columns = math.ceil(math.sqrt(weights.shape[1] * 2))
    rows = math.ceil(weights.shape[1] / columns)
    square = max(1, CELL // columns)
    cells = []
    for weight in weights:
        cell = np.full((rows * square, CELL, 3), _PAPER, np.uint8)
        for channel, colour in enumerate(heat(weight, low, high)):
            top, left = channel // columns * square, channel % columns * square
            cell[top : top + square, left : left + square] = colour
        cells.append(cell)
    return Row(title, f"{weights.shape[1]} channels, a square each", cells, (low, high))


def bar_row(title: str, weights: Sequence[float]) -> Row:
    """One bar a frame, with its value.

    Args:
        title: What the weights are.
        weights: T weights that sum to 1.
    """
    height, top = 72, max(*weights, 1e-9)
    cells = []
    for weight in weights:
        cell = np.full((height, CELL, 3), _PAPER, np.uint8)
        cell[:, 8 : CELL - 8] = _TRACK
        filled = round(height * weight / top)
        cell[height - filled :, 8 : CELL - 8] = _BLUE
        cells.append(np.concatenate([cell, _text_line(f"{weight:.3f}")]))
    return Row(title, f"share of each frame; {1 / len(weights):.3f} were equal", cells)


def quadrilateral_row(title: str, frames: Sequence[Image], transforms: Weights) -> Row:
    """What a spatial transformer looks at: the outline of its output on its input.

    Args:
        title: What made them.
        frames: T frames (H, W, 3) uint8.
        transforms: (T, 2, 3) affine maps from output to input coordinates in [−1, 1].
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    corners = np.array([(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)], float)
    cells = []
    for frame, transform in zip(frames, transforms, strict=True):
        picture = Pillow.fromarray(_resized(frame, CELL))
        points = (corners @ transform.T + 1) / 2 * (picture.width, picture.height)
        outline = [tuple(point) for point in points.tolist()]
        ImageDraw.Draw(picture).line([*outline, outline[0]], fill=(250, 178, 50), width=3)
        cells.append(np.asarray(picture))
    return Row(title, "outline of what is looked at", cells)


def draw_sheet(heading: str, note: str, rows: Sequence[Row]) -> Picture:
    """Put rows under each other, their titles on the left and their colour scales below these.

    Args:
        heading: First line.
        note: Second line, smaller.
        rows: With as many cells each as there are frames.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    columns = len(rows[0].cells)
    width = 2 * _MARGIN + _LABEL + columns * (CELL + _GAP)
    labels = [_label(row) for row in rows]
    heights = [max(row.cells[0].shape[0], _height(label, row)) for label, row in zip(labels, rows, strict=True)]
    top = _MARGIN + 64
    sheet = Pillow.new("RGB", (width, top + sum(heights) + len(rows) * 2 * _GAP + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), _fitted(heading, _font(20), width - 2 * _MARGIN), _INK, _font(20))
    pen.text((_MARGIN, _MARGIN + 28), _fitted(note, _font(14), width - 2 * _MARGIN), _SOFT, _font(14))
    for row, label, height in zip(rows, labels, heights, strict=True):
        y = top
        for words, colour, size in label:
            pen.text((_MARGIN, y), words, colour, _font(size))
            y += size + 4
        if row.scale is not None:
            ramp = heat(np.linspace(0, 1, _LABEL - 24)[None].repeat(10, 0), 0, 1)
            sheet.paste(Pillow.fromarray(ramp), (_MARGIN, y + 4))
            low, high = (f"{end:.3g}" for end in row.scale)
            pen.text((_MARGIN, y + 17), low if low != high else f"{low} everywhere", _SOFT, _font(12))
            if low != high:
                pen.text((_MARGIN + _LABEL - 24, y + 17), high, _SOFT, _font(12), anchor="ra")
        for column, cell in enumerate(row.cells):
            left = _MARGIN + _LABEL + column * (CELL + _GAP)
            sheet.paste(Pillow.fromarray(np.ascontiguousarray(cell)), (left, top))
        top += height + 2 * _GAP
    return sheet


def _label(row: Row) -> list[tuple[str, tuple[int, int, int], int]]:
    """Lines of a row's title and note, with the colour and size of each."""
    return [
        (words, colour, size)
        for text, colour, size in ((row.title, _INK, 15), (row.note, _SOFT, 12))
        for words in _wrapped(text, _font(size), _LABEL - 12)
    ]


def _height(label: Sequence[tuple[str, tuple[int, int, int], int]], row: Row) -> int:
    return sum(size + 4 for _, _, size in label) + (0 if row.scale is None else 36)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _text_line(text: str) -> Image:
    """A line of centred text as high as its letters, as wide as a cell."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    line = Pillow.new("RGB", (CELL, 20), _PAPER)
    ImageDraw.Draw(line).text((CELL / 2, 3), text, _SOFT, _font(12), anchor="ma")
    return np.asarray(line)


def _resized(frame: Image, width: int) -> Image:
    from PIL import Image as Pillow

    height = max(1, round(width * frame.shape[0] / frame.shape[1]))
    return np.asarray(Pillow.fromarray(frame).resize((width, height), Pillow.Resampling.BILINEAR))


def _enlarged(weight: Weights, height: int, width: int) -> Weights:
    """A map as large as the picture, by bilinear interpolation between the middles of its cells."""
    from PIL import Image as Pillow

    picture = Pillow.fromarray(weight.astype(np.float32))
    return np.asarray(picture.resize((width, height), Pillow.Resampling.BILINEAR), np.float64)


def _wrapped(text: str, font: FreeTypeFont | ImageFont, width: float) -> list[str]:
    """Lines that fit, broken between words, and in names of modules behind a dot, or else behind an underscore."""
    parts = [f"{word} " for word in text.split()]
    for mark in "._":
        parts = [
            piece
            for part in parts
            for piece in ([part] if font.getlength(part.rstrip()) <= width else re.findall(rf"[^{mark}]*{mark}?", part))
        ]
    lines = [""]
    for part in parts:
        if lines[-1] and font.getlength(f"{lines[-1]}{part}".rstrip()) > width:
            lines.append(part)
        else:
            lines[-1] += part
    return [_fitted(line.rstrip(), font, width) for line in lines]


def _fitted(text: str, font: FreeTypeFont | ImageFont, width: float) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
