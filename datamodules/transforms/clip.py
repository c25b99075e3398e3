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
from datamodules.views import crop_size
from temporal_attn.types import UserError, VideoBatch

__all__ = ["ClipAugment"]


class ClipAugment:
    """Augments clips as the options say, on the device where they are.

    All parameters of a clip come from its own seed in the batch, so that it looks the same in whatever batch it lands;
    only its partner in mixup and cutmix is one of the batch.

    Args:
        options: Ranges of the draws.
        size: What comes out, in pixels: the side of a square, or height h and width w.
        class_names: The K classes in label order; needed where labels change with the picture.

    Raises:
        UserError: The options name a class that there is not.

    Shape:
        video (B, T, C, H, W) uint8 becomes (B, T, C, h, w) uint8 on the same device. Labels keep their form, but
        for mixing, which makes them (B, K) float, see `ClipMixing`.
    """

    def __init__(
        self, options: AugmentOptions, size: int | Sequence[int], class_names: Sequence[str] | None = None
    ) -> None:
        self.options = options
        self.size = crop_size(size)
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
        """A new batch with augmented clips; of one without frames, such as one of cached features, they are only mixed.

        Raises:
            UserError: Such a batch, and options that cannot be applied to it.
        """
        if self.options.changes_labels and not self._knows_classes:
            raise UserError("augment: these options need the class names; pass class_names to ClipAugment")
        if "video" not in batch:
            self._refuse_label_changes()
            return batch if self._mixing is None else self._mixing(batch)
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        if self._reversal is not None:
            draws = torch.tensor([draw_uniform(0, 1, generator) for generator in generators])
            batch = self._reversal(batch, draws)
        video = batch["video"]
        augmented = video.new_empty((*video.shape[:3], *self.size))
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
        """One clip (T, C, H, W) without its label, augmented by its seed to (T, C, h, w), and not mixed.

        Raises:
            UserError: The options change the label with the picture.
        """
        self._refuse_label_changes()
        augmented, _ = self._augment(clip, torch.Generator().manual_seed(seed))
        return augmented

    def _augment(self, clip: Tensor, generator: torch.Generator) -> tuple[Tensor, bool]:
        """The pixels of one clip, and whether it is mirrored."""
        o = self.options
        frames, channels, height, width = clip.shape
        clip = clip.reshape(-1, 3, height, width)  # frames that come in pairs are frames of one clip like all others
        shape = self.size[1] / self.size[0]
        ratio = (o.ratio[0] * shape, o.ratio[1] * shape)
        clip = resized_crop(clip, draw_crop(height, width, o.scale, ratio, generator), self.size)
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
        return clip.reshape(frames, channels, *self.size), flip

    def _refuse_label_changes(self) -> None:
        """Clips that were augmented once and stored would keep the label of before; they can be blended, not cut."""
        o = self.options
        if o.flip_pairs or o.reverse > 0 or (o.mixes and o.cutmix > 0):
            raise UserError(
                "augment: flip_pairs, reverse and cutmix change labels with the picture, which stored features cannot "
                "follow; leave them out (mixup works), or leave out cache_dir"
            )
