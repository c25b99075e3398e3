"""The tasks ``or``, ``set``, ``weak``, ``order`` and ``event``: three known frames decide, and nothing else does.

A video has 16 frames of 64 × 64 pixels. Three key frames show glyphs of the class; half of the others show glyphs that
mean nothing, and three of the others flash up bright. Everything stands somewhere else in each frame and lies in noise.
So neither motion nor brightness nor being full gives the key frames away: whoever finds them has asked the model.

The tasks differ in how the evidence of the key frames adds up, because that is what tells frame scores apart:

``or``
    The glyph of the class three times. Each is enough, so none is missed when it is left out.
``set``
    Three of four glyphs, and the class is the one that is missing. None is enough: each rules out one class.
``weak``
    As ``or``, but all glyphs are faint: no frame is sure, and what they say adds up.
``order``
    The same three glyphs in both classes, which are each other's time reversal. They follow one another, so that when
    in the video a glyph is shown says next to nothing: it takes two of them to tell the order.
``event``
    As ``or``, but the key frames follow one another, as in an event that takes its time.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.drawing import GLYPHS, Array, draw
from datamodules.synthetic.tasks import RenderedVideo, Task

__all__ = ["EVENT", "OR", "ORDER", "SET", "WEAK"]

SIDE = 64
FRAMES = 16
KEYS = 3
FLASHES = 3
CLASSES = ("H", "O", "T", "X")
MEANINGLESS = ("I", "V")
WHITE, BLACK = np.full(3, 245, np.float32), np.full(3, 10, np.float32)

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Evidence:
    """How the key frames of a task speak for a class.

    Args:
        contrast: Range that the opacity of each glyph is drawn from.
        contiguous: Whether the key frames follow one another.
    """

    contrast: tuple[float, float] = (0.9, 1.0)
    contiguous: bool = False

    def places(self, rng: Rng) -> NDArray[np.int64]:
        """Key frames first, ascending, then all other frames in random order: (N,)."""
        if not self.contiguous:
            order = rng.permutation(FRAMES)
            return np.concatenate([np.sort(order[:KEYS]), order[KEYS:]])
        first = rng.integers(FRAMES - KEYS + 1)
        others = np.setdiff1d(np.arange(FRAMES), keys := np.arange(first, first + KEYS))
        return np.concatenate([keys, rng.permutation(others)])


@dataclass(frozen=True, slots=True)
class Scene:
    """What all videos of a group share, and no other group has.

    Args:
        background: (S, S, 3) in 0…255.
        noise: Standard deviation of the noise on every pixel, in grey levels.
    """

    background: Array
    noise: float


def _scene(rng: Rng) -> Scene:
    ends = [
        255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.6)), np.float32)
        for _ in range(2)
    ]
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    slope = 0.5 + (np.cos(angle) * x[None, :] + np.sin(angle) * x[:, None]) / np.sqrt(2)
    background = ends[0] + slope[..., None].astype(np.float32) * (ends[1] - ends[0])
    return Scene(background, rng.uniform(6, 12))


def _render(
    scene: Scene, evidence: Evidence, glyphs: Sequence[str], rng: Rng
) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """A video whose key frames show the glyphs in this order: (N, S, S, 3), and its key frames."""
    places = evidence.places(rng)
    others = places[KEYS:]
    shown = dict(zip(places[:KEYS].tolist(), glyphs, strict=True))
    shown |= {int(frame): str(rng.choice(MEANINGLESS)) for frame in others[: len(others) // 2]}
    frames = np.tile(scene.background, (FRAMES, 1, 1, 1))
    for frame, glyph in sorted(shown.items()):
        one = frames[frame : frame + 1]
        painted = one.copy()
        x, y, radius = (rng.uniform(low, high, 1).astype(np.float32) for low, high in ((14, 50), (14, 50), (9, 12)))
        draw(painted, GLYPHS[glyph], x, y, radius, BLACK, rim=1.5)
        draw(painted, GLYPHS[glyph], x, y, radius, WHITE)
        one += rng.uniform(*evidence.contrast) * (painted - one)
    frames[rng.choice(others, FLASHES, replace=False)] += rng.uniform(50, 90)
    frames += rng.normal(0, scene.noise, frames.shape)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8), tuple(places[:KEYS].tolist())


@dataclass(frozen=True, slots=True)
class _Repeated:
    """Renders groups of videos that show the glyph of their class three times."""

    evidence: Evidence

    def __call__(self, seed: int, group: int, clips: int) -> Iterator[RenderedVideo]:
        scene = _scene(np.random.default_rng((seed, group)))
        for clip in range(1, clips + 1):
            for number, name in enumerate(CLASSES):
                rng = np.random.default_rng((seed, group, clip, number))
                yield RenderedVideo(name, clip, *_render(scene, self.evidence, [name] * KEYS, rng))


def _sets(seed: int, group: int, clips: int) -> Iterator[RenderedVideo]:
    scene = _scene(np.random.default_rng((seed, group)))
    for clip in range(1, clips + 1):
        for number, name in enumerate(CLASSES):
            rng = np.random.default_rng((seed, group, clip, number))
            present = [str(glyph) for glyph in rng.permutation([glyph for glyph in CLASSES if glyph != name])]
            yield RenderedVideo(f"No{name}", clip, *_render(scene, Evidence(), present, rng))


def _orders(seed: int, group: int, clips: int) -> Iterator[RenderedVideo]:
    scene = _scene(np.random.default_rng((seed, group)))
    for clip in range(1, clips + 1):
        rng = np.random.default_rng((seed, group, clip))
        frames, keys = _render(scene, Evidence(contiguous=True), "XOT", rng)
        yield RenderedVideo("XOT", clip, frames, keys)
        yield RenderedVideo("TOX", clip, frames[::-1], tuple(FRAMES - 1 - key for key in reversed(keys)))


OR = Task("or", version=1, pairs=(), others=CLASSES, render_group=_Repeated(Evidence()))
SET = Task("set", version=1, pairs=(), others=tuple(f"No{name}" for name in CLASSES), render_group=_sets)
WEAK = Task("weak", version=1, pairs=(), others=CLASSES, render_group=_Repeated(Evidence(contrast=(0.15, 0.4))))
ORDER = Task("order", version=2, pairs=(("XOT", "TOX"),), others=(), render_group=_orders)
EVENT = Task("event", version=1, pairs=(), others=CLASSES, render_group=_Repeated(Evidence(contiguous=True)))
