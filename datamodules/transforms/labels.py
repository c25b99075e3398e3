"""Labels that change with the picture: a mirrored "swipe left" is a "swipe right"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from temporal_attn.types import UserError

__all__ = ["class_positions", "exchange_labels", "exchanged_classes"]


def class_positions(names: Sequence[str], class_names: Sequence[str], option: str) -> list[int]:
    """Class indices by name.

    Args:
        names: To look up.
        class_names: The K classes in order.
        option: What the user set, for the message.

    Raises:
        UserError: A name is none of the classes.
    """
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise UserError(f"{option} names {', '.join(unknown)}; the classes are {', '.join(class_names)}")
    return [list(class_names).index(name) for name in names]


def exchanged_classes(pairs: Sequence[Sequence[str]], class_names: Sequence[str], option: str) -> Tensor:
    """What becomes of each class when the two of every pair change places.

    Args:
        pairs: Of class names, each name in one pair only.
        class_names: The K classes in order.
        option: What the user set, for the message.

    Returns:
        (K,) int64 class indices, a permutation that undoes itself.

    Raises:
        UserError: A name is none of the classes.
    """
    becomes = torch.arange(len(class_names))
    for pair in pairs:
        one, other = class_positions(pair, class_names, option)
        becomes[one], becomes[other] = other, one
    return becomes


def exchange_labels(label: Tensor, becomes: Tensor, where: Tensor) -> Tensor:
    """Labels after the change of some clips.

    Args:
        label: (B,) int64, of which those below 0 are unknown and stay so; or (B, K), a column for each class.
        becomes: (K,) from `exchanged_classes`.
        where: (B,) bool, the clips that change.
    """
    if label.ndim == 2:
        return torch.where(where[:, None], label[:, becomes], label)
    return torch.where(where & (label >= 0), becomes[label.clamp(min=0)], label)
