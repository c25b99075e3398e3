"""Clips that run backwards, where the class allows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from datamodules.transforms.labels import class_positions, exchange_labels, exchanged_classes
from temporal_attn.types import VideoBatch

__all__ = ["TimeReversal"]


class TimeReversal:
    """Plays clips backwards: opening becomes closing, and clapping stays clapping.

    Paper: Price and Damen, "Retro-Actions: Learning 'Close' by Time-Reversing 'Open' Videos", ICCV Workshops 2019.
    https://arxiv.org/abs/1909.09422

    Args:
        probability: Of each clip whose class may be reversed; a clip of several classes needs all of them to be.
        pairs: Of class names: one of them reversed is the other.
        symmetric: Classes that stay what they are, or ``all`` that are in no pair.
        class_names: The K classes in order.

    Raises:
        UserError: A name is none of the classes.

    Shape:
        In a reversed clip frames and ``frame_index`` stand in opposite order, padding still at the end, and ``pts`` are
        mirrored between its first and last moment: time goes on running forwards.
    """

    def __init__(
        self,
        probability: float,
        pairs: Sequence[Sequence[str]],
        symmetric: Sequence[str] | Literal["all"],
        class_names: Sequence[str],
    ) -> None:
        self.probability = probability
        self.becomes = exchanged_classes(pairs, class_names, "augment.reverse_pairs")
        self.reversible = self.becomes != torch.arange(len(class_names))
        if symmetric == "all":
            self.reversible[:] = True
        else:
            self.reversible[class_positions(symmetric, class_names, "augment.reverse_symmetric")] = True

    def __call__(self, batch: VideoBatch, draws: Tensor) -> VideoBatch:
        """A new batch, in which some clips run backwards.

        Args:
            batch: With ``video`` (B, T, C, H, W), ``mask``, ``pts``, ``frame_index`` (B, T), and ``label``.
            draws: (B,) uniform in [0, 1), one a clip.
        """
        label = batch["label"]
        where = (draws.to(label.device) < self.probability) & self._allows(label)
        count = batch["mask"].sum(1, keepdim=True)
        steps = torch.arange(batch["mask"].shape[1], device=label.device).expand_as(batch["mask"])
        backwards = (count - 1 - steps).clamp(min=0)  # padding repeats what is now the last frame
        order = torch.where(where[:, None], backwards, steps)
        first, last = batch["pts"][:, :1], batch["pts"].gather(1, count - 1)
        pts = batch["pts"].gather(1, order)
        video = batch["video"][torch.arange(len(label), device=label.device)[:, None], order]
        if video.shape[2] == 6:  # a frame and the one after it change places
            video = torch.where(where[:, None, None, None, None], video.roll(3, 2), video)
        changed = {
            "video": video,
            "frame_index": batch["frame_index"].gather(1, order),
            "pts": torch.where(where[:, None], first + last - pts, pts),
            "label": exchange_labels(label, self.becomes.to(label.device), where),
        }
        return cast(VideoBatch, {**batch, **changed})

    def _allows(self, label: Tensor) -> Tensor:
        """Which clips (B,) may be reversed."""
        reversible = self.reversible.to(label.device)
        if label.ndim == 2:
            return ((label == 0) | reversible).all(1)
        return (label >= 0) & reversible[label.clamp(min=0)]
