"""RandAugment and TrivialAugment for clips: the same operations with the same strength on each frame.

Operations, strengths and the order of the draws are those of torchvision's `RandAugment` and `TrivialAugmentWide`.
Where an operation looks at an image's own statistics (contrast, equalising), it looks at each frame's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["OPERATIONS", "rand_augment", "trivial_augment"]

_LEVELS = 31
_SOLARIZE_ALL = 255.0


class _Strengths(NamedTuple):
    """The largest magnitude of each kind of operation.

    Args:
        shear: Tangent of the angle.
        translate: Pixels, by the length of the side.
        rotate: Degrees.
        enhance: Change of a factor around 1.
        posterize: Bits that are taken away.
    """

    shear: float
    translate: Callable[[int], float]
    rotate: float
    enhance: float
    posterize: int


_RAND = _Strengths(0.3, lambda side: 150.0 / 331.0 * side, 30.0, 0.9, 4)
_TRIVIAL = _Strengths(0.99, lambda side: 32.0, 135.0, 0.99, 6)


def _shear(clip: Tensor, x: float, y: float) -> Tensor:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    sheared: Tensor = F.affine(clip, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0])
    return sheared


def _translate(clip: Tensor, x: float, y: float) -> Tensor:
    moved: Tensor = F.affine(clip, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])
    return moved


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "Identity": lambda clip, magnitude: clip,
    "ShearX": lambda clip, magnitude: _shear(clip, magnitude, 0.0),
    "ShearY": lambda clip, magnitude: _shear(clip, 0.0, magnitude),
    "TranslateX": lambda clip, magnitude: _translate(clip, magnitude, 0.0),
    "TranslateY": lambda clip, magnitude: _translate(clip, 0.0, magnitude),
    "Rotate": lambda clip, magnitude: F.rotate(clip, angle=magnitude),
    "Brightness": lambda clip, magnitude: F.adjust_brightness(clip, 1.0 + magnitude),
    "Color": lambda clip, magnitude: F.adjust_saturation(clip, 1.0 + magnitude),
    "Contrast": lambda clip, magnitude: F.adjust_contrast(clip, 1.0 + magnitude),
    "Sharpness": lambda clip, magnitude: F.adjust_sharpness(clip, 1.0 + magnitude),
    "Posterize": lambda clip, magnitude: F.posterize(clip, bits=int(magnitude)),
    "Solarize": lambda clip, magnitude: F.solarize(clip, threshold=_SOLARIZE_ALL * magnitude),
    "AutoContrast": lambda clip, magnitude: F.autocontrast(clip),
    "Equalize": lambda clip, magnitude: F.equalize(clip),
}
"""What a policy chooses from: a clip (T, 3, H, W) uint8 and a magnitude give a clip of the same shape."""

_SIGNED = frozenset(
    ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
)
_WITHOUT_MAGNITUDE = frozenset(("Identity", "AutoContrast", "Equalize"))


def rand_augment(clip: Tensor, num_ops: int, level: int, generator: torch.Generator) -> Tensor:
    """Operations one after the other, drawn with equal chances, all of one strength.

    Paper: Cubuk et al., "RandAugment", NeurIPS 2020. https://arxiv.org/abs/1909.13719

    Args:
        clip: (T, 3, H, W) uint8.
        num_ops: How many.
        level: Strength, from 0 to 30.
        generator: Draws.
    """
    for _ in range(num_ops):
        name = _draw_name(generator)
        clip = _apply(clip, name, _RAND, level, generator)
    return clip


def trivial_augment(clip: Tensor, generator: torch.Generator) -> Tensor:
    """One operation of random strength.

    Paper: Müller and Hutter, "TrivialAugment", ICCV 2021. https://arxiv.org/abs/2103.10158

    Args:
        clip: (T, 3, H, W) uint8.
        generator: Draws.
    """
    name = _draw_name(generator)
    level = 0 if name in _WITHOUT_MAGNITUDE else int(torch.randint(_LEVELS, (), generator=generator))
    return _apply(clip, name, _TRIVIAL, level, generator)


def _draw_name(generator: torch.Generator) -> str:
    return tuple(OPERATIONS)[int(torch.randint(len(OPERATIONS), (), generator=generator))]


def _apply(clip: Tensor, name: str, strengths: _Strengths, level: int, generator: torch.Generator) -> Tensor:
    magnitude = 0.0 if name in _WITHOUT_MAGNITUDE else _magnitude(name, strengths, level, *clip.shape[-2:])
    if name in _SIGNED and float(torch.rand((), generator=generator)) <= 0.5:
        magnitude = -magnitude
    return OPERATIONS[name](clip, magnitude)


def _magnitude(name: str, strengths: _Strengths, level: int, height: int, width: int) -> float:
    """Strength of an operation at one of 31 levels, for frames of one size."""
    if name == "Posterize":
        return float(8 - round(level / ((_LEVELS - 1) / strengths.posterize)))
    if name == "Solarize":
        return float(torch.linspace(1.0, 0.0, _LEVELS)[level])
    largest = {
        "ShearX": strengths.shear,
        "ShearY": strengths.shear,
        "TranslateX": strengths.translate(width),
        "TranslateY": strengths.translate(height),
        "Rotate": strengths.rotate,
    }
    return float(torch.linspace(0.0, largest.get(name, strengths.enhance), _LEVELS)[level])
