"""Flat shapes drawn into all frames of a clip at once, with smooth edges.

A shape is a signed distance: how many pixels a point lies outside of it (negative inside). One pixel of distance is
blended linearly, so that a shape that moves by a fraction of a pixel also changes by a fraction.

Coordinates are pixels, x to the right, y down; N is the number of frames, S the side of the square frame.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = ["GLYPHS", "SHAPES", "Array", "draw"]

Array = NDArray[np.float32]
Distance = Callable[[Array, Array, Array], Array]
"""(dx, dy, radius) -> pixels outside the shape; dx and dy count from its centre, and the three broadcast."""


def _bars(dx: Array, dy: Array, radius: Array) -> Array:
    """Three bars, one above the other, in the place of a square."""
    nearest: Array = np.minimum(abs(dy), abs(abs(dy) - 0.67 * radius))
    return np.maximum(abs(dx) - 0.87 * radius, nearest - 0.2 * radius)


SHAPES: dict[str, Distance] = {
    "disc": lambda dx, dy, radius: np.hypot(dx, dy) - radius,
    "square": lambda dx, dy, radius: np.maximum(abs(dx), abs(dy)) - 0.87 * radius,
    "diamond": lambda dx, dy, radius: np.maximum(abs(dx + dy), abs(dx - dy)) / sqrt(2) - 0.88 * radius,
    "triangle": lambda dx, dy, radius: np.maximum(sqrt(3) / 2 * abs(dx) - dy / 2, dy) - 0.62 * radius,
    "bars": _bars,
}
"""Filled shapes."""


def _bar(along: Array, across: Array, half_length: Array, radius: Array) -> Array:
    """A glyph's stroke, with round ends."""
    distance: Array = np.hypot(np.maximum(abs(along) - half_length, 0), across) - 0.17 * radius
    return distance


def _glyph_x(dx: Array, dy: Array, radius: Array) -> Array:
    falling, rising = (dx + dy) / sqrt(2), (dx - dy) / sqrt(2)
    return np.minimum(_bar(falling, rising, radius, radius), _bar(rising, falling, radius, radius))


def _glyph_t(dx: Array, dy: Array, radius: Array) -> Array:
    top = _bar(dx, dy + 0.8 * radius, 0.8 * radius, radius)
    return np.minimum(top, _bar(dy, dx, 0.8 * radius, radius))


def _glyph_h(dx: Array, dy: Array, radius: Array) -> Array:
    uprights = _bar(dy, abs(dx) - 0.7 * radius, 0.8 * radius, radius)
    return np.minimum(uprights, _bar(dx, dy, 0.7 * radius, radius))


def _glyph_v(dx: Array, dy: Array, radius: Array) -> Array:
    # Both strokes at once: mirrored at the middle, the left one is the right one.
    side: Array = abs(dx) - 0.45 * radius
    slope = np.float32(0.5)
    return _bar((dy - slope * side) / sqrt(1.25), (side + slope * dy) / sqrt(1.25), 0.95 * radius, radius)


GLYPHS: dict[str, Distance] = {
    "X": _glyph_x,
    "O": lambda dx, dy, radius: abs(np.hypot(dx, dy) - 0.8 * radius) - 0.17 * radius,
    "T": _glyph_t,
    "H": _glyph_h,
    "V": _glyph_v,
    "I": lambda dx, dy, radius: _bar(dy, dx, 0.9 * radius, radius),
}
"""Signs made of strokes."""


def draw(frames: Array, shape: Distance, x: Array, y: Array, radius: Array, colour: Array, rim: float = 0.0) -> None:
    """Paint one shape into every frame, in place.

    Args:
        frames: (N, S, S, 3), any scale of colour.
        shape: One of `SHAPES` or `GLYPHS`.
        x: (N,) centre in each frame.
        y: (N,) centre in each frame.
        radius: (N,) size in each frame; 0 leaves the shape out of that frame.
        colour: (3,).
        rim: Pixels by which the shape is drawn larger; draw it again without, and this becomes its outline.
    """
    shown = np.flatnonzero(radius > 0)
    grid = np.arange(frames.shape[1], dtype=np.float32)
    dx = grid[None, None, :] - x[shown, None, None]
    dy = grid[None, :, None] - y[shown, None, None]
    outside = shape(dx, dy, radius[shown, None, None]) - rim
    alpha = np.clip(0.5 - outside, 0, 1)[..., None]
    frames[shown] += alpha * (colour - frames[shown])
