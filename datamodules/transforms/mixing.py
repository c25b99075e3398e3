"""Mixup and cutmix: a clip of two classes, with the label to match. Cached features are mixed as clips are."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from datamodules.transforms.draws import Box
from temporal_attn.types import VideoBatch

__all__ = ["ClipMixing", "blend", "draw_cutmix_box", "paste"]

_STREAM = 1  # beside the stream of a clip's other draws, which is its bare seed


class _Mix(NamedTuple):
    """What becomes of one clip.

    Args:
        partner: Row of the clip that is mixed in.
        share: What stays of the clip itself, in [0, 1].
        box: Where the partner is pasted; None blends the two.
    """

    partner: int
    share: float
    box: Box | None = None


class ClipMixing:
    """Mixes clips of a batch with one another, each with a partner, a share and a place from its own seed.

    Mask, seconds, names and everything else remain those of the clip itself. A clip may meet itself in its partner's
    stead where the batch holds no other. Where a batch holds what a frozen part of a net made of its clips instead of
    the clips, that is blended: manifold mixup at the cut. Boxes are pasted into pictures only.

    Papers: Zhang et al., "mixup", ICLR 2018. https://arxiv.org/abs/1710.09412; Yun et al., "CutMix", ICCV 2019.
    https://arxiv.org/abs/1905.04899; Verma et al., "Manifold Mixup", ICML 2019. https://arxiv.org/abs/1806.05236

    Args:
        mixup: Parameter α of the Beta distribution from which a share is drawn; 0 never blends.
        cutmix: Likewise for clips in which a box is pasted; 0 never pastes. With both, each is as likely.
        probability: That a clip is mixed at all.
        num_classes: K.

    Shape:
        ``label`` becomes (B, K) float32, whether a clip is mixed or not: the share of each class, as `cross_entropy`
        takes it. A loss that needs two labels finds ``label_b``, the partners' labels in the form that ``label`` had,
        and ``lam`` (B,) float32, the share of the clip itself. ``partner`` (B,) int64 says which row was mixed in.
    """

    def __init__(self, mixup: float, cutmix: float, probability: float, num_classes: int) -> None:
        self.mixup = mixup
        self.cutmix = cutmix
        self.probability = probability
        self.num_classes = num_classes

    def __call__(self, batch: VideoBatch) -> VideoBatch:
        """A new batch of mixed clips, or of mixed features."""
        field = "video" if "video" in batch else "features"
        video, label = cast(dict[str, Tensor], batch)[field], batch["label"]
        height, width = video.shape[-2:]
        seeds = batch["seed"].tolist()
        mixes = [self._draw(row, seed, len(seeds), height, width) for row, seed in enumerate(seeds)]
        mixed = torch.empty_like(video)
        for row, mix in enumerate(mixes):
            own, other = video[row], video[mix.partner]
            mixed[row] = blend(own, other, mix.share) if mix.box is None else paste(own, other, mix.box)
        partners = torch.tensor([mix.partner for mix in mixes], dtype=torch.int64, device=label.device)
        lam = torch.tensor([mix.share for mix in mixes], dtype=torch.float32, device=label.device)
        target = label.float() if label.ndim == 2 else one_hot(label, self.num_classes).float()
        soft = lam[:, None] * target + (1 - lam[:, None]) * target[partners]
        changed = {field: mixed, "label": soft, "label_b": label[partners], "lam": lam, "partner": partners}
        return cast(VideoBatch, {**batch, **changed})

    def _draw(self, row: int, seed: int, size: int, height: int, width: int) -> _Mix:
        """How one clip of a batch of some size is mixed."""
        rng = np.random.default_rng((seed, _STREAM))
        partner = (row + int(rng.integers(1, size))) % size if size > 1 else row
        if rng.random() >= self.probability:
            return _Mix(row, 1.0)
        pastes = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        alpha = self.cutmix if pastes else self.mixup
        share = float(rng.beta(alpha, alpha))
        if not pastes:
            return _Mix(partner, share)
        box = draw_cutmix_box(height, width, share, rng)
        return _Mix(partner, 1 - box.height * box.width / (height * width), box)


def blend(own: Tensor, other: Tensor, share: float) -> Tensor:
    """Weighted mean share · own + (1 - share) · other, in the type that came; uint8 is rounded to the nearest.

    Args:
        own: (T, C, H, W) uint8, or features (T, ...) of any float type.
        other: The same.
        share: In [0, 1].
    """
    mean = torch.lerp(other.float(), own.float(), share)
    return (mean if own.is_floating_point() else mean.round_()).to(own.dtype)


def draw_cutmix_box(height: int, width: int, share: float, rng: np.random.Generator) -> Box:
    """A box of the frame's shape with a random centre, of which the part outside the frame is cut off.

    Args:
        height: Of the frame.
        width: Of the frame.
        share: Of the frame that should stay outside the box; what really stays is more, where the box is cut off.
        rng: Draws.
    """
    half = 0.5 * math.sqrt(1 - share)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(y - int(half * height), 0), max(x - int(half * width), 0)
    bottom, right = min(y + int(half * height), height), min(x + int(half * width), width)
    return Box(top, left, bottom - top, right - left)


def paste(own: Tensor, other: Tensor, box: Box) -> Tensor:
    """`own` with the box of `other`, at the same place in every frame.

    Args:
        own: (T, C, H, W).
        other: The same.
        box: In pixels.
    """
    pasted = own.clone()
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    pasted[..., rows, columns] = other[..., rows, columns]
    return pasted
