"""What a user sets on a datamodule, in three groups that read alike in Python and in YAML.

Example:
    >>> ClipOptions(num_frames=16, sampling="dense", stride=2).spec()["num_frames"]
    16
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from temporal_attn.types import ClipSpec, UserError

__all__ = ["AugmentOptions", "ClipOptions", "LoaderOptions"]


@dataclass(frozen=True)
class ClipOptions:
    """How frames are picked from a video and how large they are.

    Args:
        num_frames: Frames T of a clip.
        sampling: ``uniform``: the video is cut into T equal segments and each gives one frame (TSN, Wang et al., ECCV
            2016, https://arxiv.org/abs/1608.00859). ``dense``: one window of T frames, `stride` apart.
        stride: Frames from one sample of ``dense`` to the next.
        resize: Short side in pixels to which the reader scales a frame.
        crop: Side in pixels of the square that the model sees: centred in evaluation, random in training.
        repeat_short: Whether a video with fewer frames than T repeats frames, instead of being padded and masked.

    Raises:
        UserError: A number is not positive, `crop` exceeds `resize`, or `sampling` is unknown.
    """

    num_frames: int = 8
    sampling: Literal["uniform", "dense"] = "uniform"
    stride: int = 4
    resize: int = 224
    crop: int = 224
    repeat_short: bool = False

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "resize", "crop"):
            _require(getattr(self, name) >= 1, f"clip.{name}", getattr(self, name), "a positive whole number")
        _require(self.sampling in ("uniform", "dense"), "clip.sampling", self.sampling, "uniform or dense")
        _require(self.crop <= self.resize, "clip.crop", self.crop, f"at most clip.resize = {self.resize}")

    def spec(self) -> ClipSpec:
        """The same as a dict of primitives, as it travels in checkpoints."""
        return ClipSpec(
            num_frames=self.num_frames,
            sampling=self.sampling,
            stride=self.stride,
            resize=self.resize,
            crop=self.crop,
            repeat_short=self.repeat_short,
        )


@dataclass(frozen=True)
class AugmentOptions:
    """What training does to a clip: the same to each of its frames.

    Args:
        scale: Smallest and largest share of a frame's area that the random crop covers.
        ratio: Smallest and largest width / height of the crop, before it is scaled to a square.
        flip: Probability of a horizontal flip.
        brightness: Factor is drawn from [1 - x, 1 + x]; 0 switches off.
        contrast: Likewise.
        saturation: Likewise.
        hue: Shift is drawn from [-x, x], in turns of the colour circle, at most 0.5.

    Raises:
        UserError: A value lies outside its range.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        _require(_ascending(*self.scale, 1.0), "augment.scale", self.scale, "0 < smallest <= largest <= 1")
        _require(_ascending(*self.ratio), "augment.ratio", self.ratio, "0 < smallest <= largest")
        _require(0 <= self.flip <= 1, "augment.flip", self.flip, "a probability")
        for name in ("brightness", "contrast", "saturation"):
            _require(getattr(self, name) >= 0, f"augment.{name}", getattr(self, name), "0 or more")
        _require(0 <= self.hue <= 0.5, "augment.hue", self.hue, "between 0 and 0.5")


@dataclass(frozen=True)
class LoaderOptions:
    """How clips are loaded beside the training process.

    Args:
        batch_size: Clips in a batch, on each device.
        num_workers: Decoding processes on each device; 0 decodes in the training process.
        multiprocessing_context: How workers start. A forked worker inherits the locks of decoder threads and may hang,
            therefore ``spawn``, or the faster ``forkserver`` where the system has it; ``fork`` at your own risk.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked memory for copies to the GPU; None: exactly when CUDA is available.
        sandbox: Whether files are decoded in a process of their own, which is killed when the decoder hangs: ``auto``
            for those that no scan has found to be good (`temporal-attn doctor` scans), ``true`` for all, ``false`` for
            none.
        decode_timeout: Seconds after which a decoder in such a process counts as hanging.
        exclude: Text file of videos to leave out, as ``temporal-attn doctor --quarantine`` writes it; None leaves out
            nothing.

    Raises:
        UserError: A number is too small, or a word is unknown.
    """

    batch_size: int = 8
    num_workers: int = 0
    multiprocessing_context: Literal["spawn", "forkserver", "fork"] = "spawn"
    prefetch_factor: int = 2
    pin_memory: bool | None = None
    sandbox: bool | Literal["auto"] = "auto"
    decode_timeout: float = 60.0
    exclude: str | None = None

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "loader.batch_size", self.batch_size, "1 or more")
        _require(self.num_workers >= 0, "loader.num_workers", self.num_workers, "0 or more")
        _require(self.prefetch_factor >= 1, "loader.prefetch_factor", self.prefetch_factor, "1 or more")
        contexts = ("spawn", "forkserver", "fork")
        context = self.multiprocessing_context
        _require(context in contexts, "loader.multiprocessing_context", context, ", ".join(contexts))
        _require(self.sandbox in (True, False, "auto"), "loader.sandbox", self.sandbox, "true, false or auto")
        _require(self.decode_timeout > 0, "loader.decode_timeout", self.decode_timeout, "a positive number of seconds")

    @property
    def pins_memory(self) -> bool:
        """Whether batches are copied through page-locked memory."""
        return torch.cuda.is_available() if self.pin_memory is None else self.pin_memory


def _ascending(low: float, high: float, limit: float = math.inf) -> bool:
    return 0 < low <= high <= limit


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value!r}; it has to be {expected}")
