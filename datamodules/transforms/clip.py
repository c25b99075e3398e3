"""All that training does to a batch, in order: reversal, crop, flip, policy, colour, erasing, mixing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from datamodules.options import AugmentOptions
from datamodules.transforms.draws import draw_uniform
from datamodules.transforms.labels import exchange_labels, exchanged_classes
from datamodules.transforms.mixing import ClipMixing
from datamodules.transforms.pixels import colour_jitter, draw_crop, erase, resized_crop
from datamodules.transforms.policies import rand_augment, trivial_augment
from datamodules.transforms.reversal import TimeReversal
from temporal_attn.types import UserError, VideoBatch

__all__ = ["ClipAugment"]


class ClipAugment:
    """Augments clips as the options say, on the device where they are.

    All parameters of a clip come from its own seed in the batch, so that it looks the same in whatever batch it lands;
    only its partner in mixup and cutmix is one of the batch.

    Args:
        options: Ranges of the draws.
        size: Side in pixels of the square that comes out.
        class_names: The K classes in label order; needed where labels change with the picture.

    Raises:
        UserError: The options name a class that there is not.

    Shape:
        video (B, T, C, H, W) uint8 becomes (B, T, C, size, size) uint8 on the same device. Labels keep their form, but
        for mixing, which makes them (B, K) float, see `ClipMixing`.
    """

    def __init__(self, options: AugmentOptions, size: int, class_names: Sequence[str] | None = None) -> None:
        self.options = options
        self.size = size
        self._knows_classes = False
        self._mirrored: Tensor | None = None
        self._reversal: TimeReversal | None = None
        self._mixing: ClipMixing | None = None
        if class_names is not None:
            self.set_classes(class_names)

    def set_classes(self, class_names: Sequence[str]) -> None:
        """Say which classes the labels stand for.

        Raises:
            UserError: The options name a class that is not among them.
        """
        o = self.options
        self._knows_classes = True
        if o.flip_pairs:
            self._mirrored = exchanged_classes(o.flip_pairs, class_names, "augment.flip_pairs")
        if o.reverse > 0:
            self._reversal = TimeReversal(o.reverse, o.reverse_pairs, o.reverse_symmetric, class_names)
        if o.mixes:
            self._mixing = ClipMixing(o.mixup, o.cutmix, o.mix, len(class_names))

    def __call__(self, batch: VideoBatch) -> VideoBatch:
        """A new batch with augmented clips; one without frames, such as one of cached features, is returned as is.

        Raises:
            UserError: Such a batch, and options that cannot be applied to it.
        """
        if "video" not in batch:
            self._refuse_label_changes()
            return batch
        if self.options.changes_labels and not self._knows_classes:
            raise UserError("augment: these options need the class names; pass class_names to ClipAugment")
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        if self._reversal is not None:
            draws = torch.tensor([draw_uniform(0, 1, generator) for generator in generators])
            batch = self._reversal(batch, draws)
        video = batch["video"]
        augmented = video.new_empty((*video.shape[:3], self.size, self.size))
        flipped = torch.zeros(len(video), dtype=torch.bool)
        for row, generator in enumerate(generators):
            augmented[row], flipped[row] = self._augment(video[row], generator)
        batch = cast(VideoBatch, {**batch, "video": augmented})
        if self._mirrored is not None:
            label = batch["label"]
            mirrored = self._mirrored.to(label.device)
            batch["label"] = exchange_labels(label, mirrored, flipped.to(label.device))
        return batch if self._mixing is None else self._mixing(batch)

    def clip(self, clip: Tensor, seed: int) -> Tensor:
        """One clip (T, C, H, W) without its label, augmented by its seed to (T, C, size, size).

        Raises:
            UserError: The options change labels too.
        """
        self._refuse_label_changes()
        augmented, _ = self._augment(clip, torch.Generator().manual_seed(seed))
        return augmented

    def _augment(self, clip: Tensor, generator: torch.Generator) -> tuple[Tensor, bool]:
        """The pixels of one clip, and whether it is mirrored."""
        o = self.options
        height, width = clip.shape[-2:]
        clip = resized_crop(clip, draw_crop(height, width, o.scale, o.ratio, generator), self.size)
        flip = draw_uniform(0, 1, generator) < o.flip
        if flip:
            clip = F.horizontal_flip(clip)
        if o.policy == "rand":
            clip = rand_augment(clip, o.policy_ops, o.policy_level, generator)
        elif o.policy == "trivial":
            clip = trivial_augment(clip, generator)
        clip = colour_jitter(clip, o.brightness, o.contrast, o.saturation, o.hue, generator)
        if o.erase > 0 and draw_uniform(0, 1, generator) < o.erase:
            clip = erase(clip, o.erase_scale, o.erase_ratio, o.erase_each_frame, generator)
        return clip, flip

    def _refuse_label_changes(self) -> None:
        """Clips that were augmented once and stored would keep the label of before."""
        if self.options.changes_labels:
            raise UserError(
                "augment: flip_pairs, reverse, mixup and cutmix change labels, which stored features cannot follow; "
                "leave them out, or leave out cache_dir"
            )
