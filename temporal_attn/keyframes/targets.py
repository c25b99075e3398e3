"""What frames are asked about: a class against all others, or one class against another."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from temporal_attn.types import UserError

__all__ = ["Question", "pose", "resolve_target"]


class Question(NamedTuple):
    """A direction in the space of logits.

    Args:
        target: Class index y.
        against: Class index of a contrast, None for the mean of all other classes.
        direction: (K,) float32: worth = direction · logits. 1 at y; −1 at ``against``, or −1 / (K − 1) at every other
            class, 0 there where classes do not exclude each other.
        temperature: What logits are divided by where probabilities are asked for.
        multi_label: Whether classes are asked one by one, each with a probability of its own.
    """

    target: int
    against: int | None
    direction: Tensor
    temperature: float = 1.0
    multi_label: bool = False

    @property
    def chance(self) -> float:
        """p(y) of a model that cannot tell classes apart: 1 / K, or 0 where classes do not compete or only two do."""
        return 0.0 if self.multi_label or self.against is not None else 1 / len(self.direction)

    def worth(self, logits: Tensor) -> Tensor:
        """z_y − mean_{c ≠ y} z_c (of several labels z_y), or z_a − z_b of a contrast: logits (S, K) -> (S,)."""
        return logits @ self.direction.to(logits)

    def probability(self, logits: Tensor) -> Tensor:
        """p(y), or that of a where it is a or b, σ(z_a − z_b), in a contrast: logits (S, K) -> (S,)."""
        logits = logits / self.temperature
        if self.against is None and self.multi_label:
            return logits[:, self.target].sigmoid()
        if self.against is None:
            return logits.softmax(-1)[:, self.target]
        return logits[:, [self.target, self.against]].softmax(-1)[:, 0]

    def said(self, logits: Tensor) -> Tensor:
        """What the model answers: the class, or of several labels whether y is one: logits (S, K) -> (S,)."""
        return logits[:, self.target] > 0 if self.multi_label else logits.argmax(-1)


def pose(
    target: int | tuple[int, int] | None, logits: Tensor, temperature: float = 1.0, multi_label: bool = False
) -> Question:
    """The question behind a target.

    Args:
        target: Class index, two of them for a contrast, None for the class of the highest logit.
        logits: (K,) of the complete clip.
        temperature: Of its probabilities.
        multi_label: Whether classes are asked one by one (sigmoid), instead of against each other (softmax).

    Raises:
        UserError: Fewer than two classes, an index that is no class, or a class against itself.
    """
    classes = len(logits)
    if classes < 2:
        raise UserError("model: has one class; frame scores compare a class with the others and need two or more")
    asked = target if isinstance(target, tuple) else (int(logits.argmax()) if target is None else target,)
    for index in asked:
        if not 0 <= index < classes:
            raise UserError(f"target: {index} is not a class index; choose 0 to {classes - 1}")
    if len(asked) == 1:
        direction = torch.zeros(classes) if multi_label else torch.full((classes,), -1 / (classes - 1))
        direction[asked[0]] = 1.0
        return Question(asked[0], None, direction, temperature, multi_label)
    if asked[0] == asked[1]:
        raise UserError(f"target: class {asked[0]} against itself is always 0; contrast two different classes")
    direction = torch.zeros(classes)
    direction[asked[0]], direction[asked[1]] = 1.0, -1.0
    return Question(asked[0], asked[1], direction, temperature, multi_label)


def resolve_target(
    target: str | int | tuple[str | int, str | int], class_names: Sequence[str]
) -> int | tuple[int, int] | None:
    """Class index of a target given by name or number, or two of them for a contrast.

    Args:
        target: A class name, a class index (also as text; a class of that very name comes first), ``pred``, or a
            contrast: two of these in a tuple, or as text with a hyphen between (``Archery-Bowling``).
        class_names: K names.

    Returns:
        The index, the two indices of a contrast, or None for ``pred``: the class that the model predicts.

    Raises:
        UserError: No class has this name or number, or a contrast can be read in more than one way.
    """
    if isinstance(target, tuple):
        return _index(target[0], class_names), _index(target[1], class_names)
    if target == "pred":
        return None
    if isinstance(target, str) and not _known(target, class_names):
        cuts = [cut for cut, letter in enumerate(target) if letter == "-"]
        pairs = [(target[:cut].strip(), target[cut + 1 :].strip()) for cut in cuts]
        pairs = [pair for pair in pairs if all(_known(name, class_names) for name in pair)]
        if len(pairs) > 1:
            raise UserError(f"target: {target!r} can be read in {len(pairs)} ways; give the classes by their indices")
        if pairs:
            return _index(pairs[0][0], class_names), _index(pairs[0][1], class_names)
    return _index(target, class_names)


def _known(name: str, class_names: Sequence[str]) -> bool:
    return name in class_names or (name.isdecimal() and int(name) < len(class_names))


def _index(target: str | int, class_names: Sequence[str]) -> int:
    if target in class_names:
        return class_names.index(str(target))
    try:
        index = int(target)
    except ValueError:
        near = difflib.get_close_matches(str(target), class_names, n=3, cutoff=0.5) or list(class_names[:3])
        raise UserError(
            f"target: no class is called {target!r}; did you mean {', '.join(near)}? Give pred, one of the "
            f"{len(class_names)} class names, an index, or a contrast of two such as {class_names[0]}-{class_names[-1]}"
        ) from None
    if not 0 <= index < len(class_names):
        raise UserError(f"target: {index} is not a class index; choose 0 to {len(class_names) - 1}")
    return index
