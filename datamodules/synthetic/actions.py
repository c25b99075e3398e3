"""The task ``actions``: something happens to an actor, in a scene whose look belongs to the group.

Six classes come in pairs, each the other played backwards: a scene is rendered once and written twice, the second time
with its frames reversed. The two videos hold the same frames, so nothing that ignores order can tell them apart.
Two classes are events: any video like those above, in which a glyph flashes up in three key frames and alone decides.
Every video also shows flashes of a glyph that means nothing, small shapes that drift about, and noise.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.drawing import GLYPHS, SHAPES, Array, draw
from datamodules.synthetic.tasks import RenderedVideo, Task

__all__ = ["ACTIONS"]

SIDE = 64
FRAMES = 16
FLASHES = 3
"""Frames in which a glyph flashes up, the deciding one and the meaningless one alike."""
EVENTS = {"FlashX": "X", "FlashO": "O"}
DECOY = "T"
WHITE, BLACK = np.full(3, 245, np.float32), np.full(3, 10, np.float32)

# Light falls in from the right in every scene: where the actor is can be told from how bright it is, and so survives
# the average over the places of a feature map that most nets end in.
LIGHT = np.linspace(0.4, 1.1, SIDE, dtype=np.float32)[:, None]

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Look:
    """What all videos of a group share, and no other group has.

    Args:
        background: (S, S, 3) in 0…255.
        shape: The actor's, where the action does not say.
        colour: The actor's, (3,).
        distractors: Shape, colour and radius of each.
        noise: Standard deviation of the noise on every pixel, in grey levels.
    """

    background: Array
    shape: str
    colour: Array
    distractors: tuple[tuple[str, Array, float], ...]
    noise: float


@dataclass(frozen=True, slots=True)
class Actor:
    """Centre (x, y), radius and shape of the actor in each frame; each (N,)."""

    x: Array
    y: Array
    radius: Array
    shape: NDArray[np.str_]


def _colour(hue: float, saturation: float, value: float) -> Array:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _look(rng: Rng) -> Look:
    wall_hue = rng.random()
    background = np.tile(_colour(wall_hue, rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.6)), (SIDE, SIDE, 1))
    floor = _colour(wall_hue + rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.5))
    background[int(SIDE * rng.uniform(0.65, 0.8)) :] = floor
    distractors = tuple(
        (
            str(rng.choice(list(SHAPES))),
            _colour(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)),
            rng.uniform(2.5, 4),
        )
        for _ in range(rng.integers(2, 5))
    )
    colour = _colour(rng.random(), rng.uniform(0.6, 0.9), rng.uniform(0.7, 0.95))
    return Look(background, str(rng.choice(["disc", "diamond"])), colour, distractors, rng.uniform(2, 8))


def _idle(look: Look, rng: Rng) -> Actor:
    """An actor that drifts up or down a little, as in every class."""
    x, radius = rng.uniform(18, 46), rng.uniform(8, 10)
    return Actor(
        x=np.full(FRAMES, x, np.float32),
        y=np.linspace(rng.uniform(18, 46), rng.uniform(18, 46), FRAMES, dtype=np.float32),
        radius=np.full(FRAMES, radius, np.float32),
        shape=np.full(FRAMES, look.shape),
    )


def _ramp(low: float, high: float, rng: Rng) -> Array:
    """From one value to another, faster at one end than at the other."""
    time = np.linspace(0, 1, FRAMES) ** rng.uniform(0.7, 1.4)
    return (low + (high - low) * time).astype(np.float32)


def _move_right(look: Look, rng: Rng) -> Actor:
    return replace(_idle(look, rng), x=_ramp(rng.uniform(8, 20), rng.uniform(44, 56), rng))


def _grow(look: Look, rng: Rng) -> Actor:
    return replace(_idle(look, rng), radius=_ramp(rng.uniform(4, 6), rng.uniform(11, 14), rng))


def _square_then_bars(look: Look, rng: Rng) -> Actor:
    changes = round(FRAMES * rng.uniform(0.35, 0.65))
    return replace(_idle(look, rng), shape=np.where(np.arange(FRAMES) < changes, "square", "bars"))


PAIRS: dict[tuple[str, str], Callable[[Look, Rng], Actor]] = {
    ("MoveRight", "MoveLeft"): _move_right,
    ("Grow", "Shrink"): _grow,
    ("SquareThenBars", "BarsThenSquare"): _square_then_bars,
}
"""A class, its time reversal, and what stages the first of them."""


def _render_group(seed: int, group: int, clips: int) -> Iterator[RenderedVideo]:
    look = _look(np.random.default_rng((seed, group)))
    actions = list(PAIRS.values())
    for clip in range(1, clips + 1):
        for number, ((forward, backward), action) in enumerate(PAIRS.items()):
            rng = np.random.default_rng((seed, group, clip, number))
            frames = _render(look, action(look, rng), {DECOY: rng.permutation(FRAMES)[:FLASHES]}, rng)
            yield RenderedVideo(forward, clip, frames)
            yield RenderedVideo(backward, clip, frames[::-1])
        for number, (event, glyph) in enumerate(EVENTS.items(), start=len(PAIRS)):
            rng = np.random.default_rng((seed, group, clip, number))
            # Beneath the flashes goes on what any class of a pair shows: only the key frames speak for the event.
            actor = actions[rng.integers(len(actions))](look, rng)
            order = rng.permutation(FRAMES)
            flashes = {glyph: order[:FLASHES], DECOY: order[FLASHES : 2 * FLASHES]}
            frames, deciding = _render(look, actor, flashes, rng), order[:FLASHES]
            if rng.random() < 0.5:
                frames, deciding = frames[::-1], FRAMES - 1 - deciding
            yield RenderedVideo(event, clip, frames, tuple(sorted(deciding.tolist())))


ACTIONS = Task("actions", version=1, pairs=tuple(PAIRS), others=tuple(EVENTS), render_group=_render_group)


def _render(look: Look, actor: Actor, flashes: dict[str, NDArray[np.int64]], rng: Rng) -> NDArray[np.uint8]:
    """Paint background, distractors, actor, flashes and noise, in this order: (N, S, S, 3)."""
    frames = np.tile(look.background, (FRAMES, 1, 1, 1))
    for shape, colour, size in look.distractors:
        x, y = _drift(rng)
        draw(frames, SHAPES[shape], x, y, np.full(FRAMES, size, np.float32), colour)
    for shape in np.unique(actor.shape):
        radius = np.where(actor.shape == shape, actor.radius, np.float32(0))
        draw(frames, SHAPES[shape], actor.x, actor.y, radius, WHITE, rim=1.5)
        draw(frames, SHAPES[shape], actor.x, actor.y, radius, look.colour)
    frames *= LIGHT
    for glyph, shown in flashes.items():
        x, y = rng.uniform(16, SIDE - 16, (2, FRAMES)).astype(np.float32)
        radius = np.zeros(FRAMES, np.float32)
        radius[shown] = rng.uniform(10, 12, len(shown))
        draw(frames, GLYPHS[glyph], x, y, radius, BLACK, rim=2.0)
        draw(frames, GLYPHS[glyph], x, y, radius, WHITE)
    frames += rng.normal(0, look.noise, frames.shape)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _drift(rng: Rng) -> tuple[Array, Array]:
    """A straight path that bounces off the borders of the frame."""
    start, speed = rng.uniform(0, 2 * SIDE, (2, 1)), rng.uniform(-2.5, 2.5, (2, 1))
    x, y = SIDE - abs(SIDE - (start + speed * np.arange(FRAMES)) % (2 * SIDE))
    return x.astype(np.float32), y.astype(np.float32)
