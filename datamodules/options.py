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

from datamodules.views import Views, crop_size
from temporal_attn.types import ClipSpec, UserError

__all__ = ["AugmentOptions", "ClipOptions", "LoaderOptions"]


@dataclass(frozen=True)
class ClipOptions:
    """How frames are picked from a video and how large they are.

    Args:
        num_frames: Frames T of a clip.
        sampling: ``uniform``: the video is cut into T equal segments and each gives one frame (TSN, Wang et al., ECCV
            2016, https://arxiv.org/abs/1608.00859). ``symmetric``: the same, with segments that a reversed video
            shares. ``dense``: one window of T frames, `stride` apart. ``seconds``: one window of T frames, 1 / `fps`
            seconds apart, whatever the frame rate of the video.
        stride: Frames from one sample of ``dense`` to the next.
        fps: Samples of ``seconds`` in a second.
        resize: Short side in pixels to which the reader scales a frame.
        crop: What the model sees, in pixels: the side of a square, or height and width; centred in evaluation, random
            in training. Frames that it does not fit into are enlarged until it does.
        lag: Seconds from each frame to a second one that is taken with it, for models that look at what moves between
            the two (``model.two_stream``); a frame then has six channels, RGB of both. 0 takes none.
        repeat_short: Whether a video with fewer frames than T repeats frames, instead of being padded and masked.
        num_clips: Clips of a video in `test` and `predict`, spread over its time, whose scores are averaged. Validation
            and training see one.
        num_crops: Crops of each of them: 1, the centre, or 3 along the longer side.

    Raises:
        UserError: A number is not positive, the shorter side of `crop` exceeds `resize`, `num_crops` is neither 1 nor
            3, or `sampling` is unknown.
    """

    num_frames: int = 8
    sampling: Literal["uniform", "symmetric", "dense", "seconds"] = "uniform"
    stride: int = 4
    fps: float = 8.0
    resize: int = 224
    crop: int | tuple[int, int] = 224
    lag: float = 0.0
    repeat_short: bool = False
    num_clips: int = 1
    num_crops: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "resize", "num_clips"):
            _require(getattr(self, name) >= 1, f"clip.{name}", getattr(self, name), "a positive whole number")
        known = ("uniform", "symmetric", "dense", "seconds")
        _require(self.sampling in known, "clip.sampling", self.sampling, "uniform, symmetric, dense or seconds")
        _require(self.fps > 0, "clip.fps", self.fps, "a positive number")
        _require(0 <= self.lag < math.inf, "clip.lag", self.lag, "0 or a positive number of seconds")
        _require(self.num_crops in (1, 3), "clip.num_crops", self.num_crops, "1 or 3")
        shorter = min(crop_size(self.crop))
        _require(shorter >= 1, "clip.crop", self.crop, "positive: a side, or height and width")
        _require(shorter <= self.resize, "clip.crop", self.crop, f"at most clip.resize = {self.resize}")

    def spec(self) -> ClipSpec:
        """The same as a dict of primitives, as it travels in checkpoints."""
        return ClipSpec(
            num_frames=self.num_frames,
            sampling=self.sampling,
            stride=self.stride,
            resize=self.resize,
            crop=self.crop if isinstance(self.crop, int) else list(self.crop),
            repeat_short=self.repeat_short,
            fps=self.fps,
            lag=self.lag,
        )

    @property
    def views(self) -> Views:
        """The views of a video in a test."""
        return Views(self.num_clips, self.num_crops)


@dataclass(frozen=True)
class AugmentOptions:
    """What training does to a clip, in this order: the same to each of its frames.

    Args:
        jitter: Share of the way to its nearer neighbour, at most 0.5, by which a frame may be moved in time.
        reverse: Probability that a clip runs backwards, if its class is among the following.
        reverse_pairs: Classes of which one reversed is the other, e.g. ``[[Opening, Closing]]``: their labels change.
        reverse_symmetric: Classes that reversal leaves what they are; ``all`` for all that are in no pair.
        scale: Smallest and largest share of a frame's area that the random crop covers.
        ratio: Smallest and largest width / height of the random crop over that of what the model sees, so that 1 keeps
            shapes as they are.
        flip: Probability of a horizontal flip.
        flip_pairs: Classes that differ in left and right, e.g. ``[[Swiping Left, Swiping Right]]``: a flip exchanges
            their labels.
        policy: ``rand`` for RandAugment, ``trivial`` for TrivialAugment.
        policy_ops: Operations of RandAugment on a clip.
        policy_level: Strength of RandAugment, from 0 to 30.
        brightness: Factor is drawn from [1 - x, 1 + x]; 0 switches off.
        contrast: Likewise.
        saturation: Likewise.
        hue: Shift is drawn from [-x, x], in turns of the colour circle, at most 0.5.
        erase: Probability that a random rectangle is blackened.
        erase_scale: Smallest and largest share of a frame's area that it covers.
        erase_ratio: Its smallest and largest width / height.
        erase_each_frame: Whether it is elsewhere in each frame, instead of at one place through the whole clip.
        mixup: Blends clips of a batch: α of the Beta distribution of their shares, 0 switches off.
        cutmix: Pastes a box of one clip into another: likewise. With both, each is as likely.
        mix: Probability that a clip is mixed at all, where one of the two is on.

    Raises:
        UserError: A value lies outside its range, or the lists of classes contradict one another.
    """

    jitter: float = 0.0
    reverse: float = 0.0
    reverse_pairs: tuple[tuple[str, str], ...] = ()
    reverse_symmetric: Literal["all"] | tuple[str, ...] = ()
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    flip_pairs: tuple[tuple[str, str], ...] = ()
    policy: Literal["none", "rand", "trivial"] = "none"
    policy_ops: int = 2
    policy_level: int = 9
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 1 / 3)
    erase_ratio: tuple[float, float] = (0.3, 1 / 0.3)
    erase_each_frame: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    mix: float = 1.0

    def __post_init__(self) -> None:
        for name in ("scale", "erase_scale"):
            value = getattr(self, name)
            _require(_ascending(value, 1.0), f"augment.{name}", value, "0 < smallest <= largest <= 1")
        for name in ("ratio", "erase_ratio"):
            value = getattr(self, name)
            _require(_ascending(value), f"augment.{name}", value, "0 < smallest <= largest")
        for name in ("flip", "reverse", "erase", "mix"):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "a probability")
        for name in ("brightness", "contrast", "saturation", "mixup", "cutmix"):
            _require(getattr(self, name) >= 0, f"augment.{name}", getattr(self, name), "0 or more")
        for name in ("hue", "jitter"):
            _require(0 <= getattr(self, name) <= 0.5, f"augment.{name}", getattr(self, name), "between 0 and 0.5")
        known = ("none", "rand", "trivial")
        _require(self.policy in known, "augment.policy", self.policy, ", ".join(known))
        _require(self.policy_ops >= 1, "augment.policy_ops", self.policy_ops, "1 or more")
        _require(0 <= self.policy_level <= 30, "augment.policy_level", self.policy_level, "from 0 to 30")
        self._check_classes()

    @property
    def mixes(self) -> bool:
        """Whether clips of a batch are mixed with one another."""
        return self.mix > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def changes_labels(self) -> bool:
        """Whether a clip may come out with another label than it had."""
        return bool(self.flip_pairs) or self.reverse > 0 or self.mixes

    def _check_classes(self) -> None:
        symmetric = () if self.reverse_symmetric == "all" else self.reverse_symmetric
        for option, own, pairs in (
            ("flip_pairs", (), self.flip_pairs),
            ("reverse_pairs", symmetric, self.reverse_pairs),
        ):
            named = [*own, *(name for pair in pairs for name in pair)]
            _require(all(len(pair) == 2 for pair in pairs), f"augment.{option}", pairs, "pairs of class names")
            _require(len(set(named)) == len(named), f"augment.{option}", pairs, "pairs in which no class stands twice")
        names_classes = bool(self.reverse_pairs or self.reverse_symmetric)
        wanted = "0, unless reverse_pairs or reverse_symmetric say which classes may be reversed"
        _require(self.reverse == 0 or names_classes, "augment.reverse", self.reverse, wanted)


@dataclass(frozen=True)
class LoaderOptions:
    """How clips are loaded beside the training process.

    Args:
        batch_size: Videos in a batch, on each device; in a test with several views, all of them come with each.
        num_workers: Decoding processes on each device; 0 decodes in the training process.
        multiprocessing_context: How workers start. A forked worker inherits the locks of decoder threads and may hang,
            therefore ``spawn``, or the faster ``forkserver`` where the system has it; ``fork`` at your own risk.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked memory for copies to the GPU; None: exactly when CUDA is available.
        sandbox: Whether files are decoded in a process of their own, which is killed when the decoder hangs: ``auto``
            for those that no scan has found to be good (`temporal-attn doctor` scans), ``true`` for all, ``false`` for
            none.
        decode_timeout: Seconds without progress after which a decoder in such a process counts as hanging.
        exclude: Text file of videos to leave out, as ``temporal-attn doctor --quarantine`` writes it; None leaves out
            nothing.
        balance: How far rare classes are visited more often in training: their share grows from n to n^(1 - balance)
            for a class of n videos. False as often as they are, True all equally, 0.5 by the square root.
        repeats: Visits of each video in an epoch of training, each with frames and augmentation of its own.
        frames: Folder that `temporal-attn cache frames` has made, from which frames are read instead of being decoded;
            videos that are not in it are decoded. None decodes all.

    Raises:
        UserError: A number is out of range, or a word is unknown.
    """

    batch_size: int = 8
    num_workers: int = 0
    multiprocessing_context: Literal["spawn", "forkserver", "fork"] = "spawn"
    prefetch_factor: int = 2
    pin_memory: bool | None = None
    sandbox: bool | Literal["auto"] = "auto"
    decode_timeout: float = 60.0
    exclude: str | None = None
    frames: str | None = None
    balance: bool | float = False
    repeats: int = 1

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "loader.batch_size", self.batch_size, "1 or more")
        _require(self.num_workers >= 0, "loader.num_workers", self.num_workers, "0 or more")
        _require(self.prefetch_factor >= 1, "loader.prefetch_factor", self.prefetch_factor, "1 or more")
        contexts = ("spawn", "forkserver", "fork")
        context = self.multiprocessing_context
        _require(context in contexts, "loader.multiprocessing_context", context, ", ".join(contexts))
        _require(self.sandbox in (True, False, "auto"), "loader.sandbox", self.sandbox, "true, false or auto")
        _require(self.decode_timeout > 0, "loader.decode_timeout", self.decode_timeout, "a positive number of seconds")
        _require(0 <= self.balance <= 1, "loader.balance", self.balance, "true, false, or between 0 and 1")
        _require(self.repeats >= 1, "loader.repeats", self.repeats, "1 or more")

    @property
    def pins_memory(self) -> bool:
        """Whether batches are copied through page-locked memory."""
        return torch.cuda.is_available() if self.pin_memory is None else self.pin_memory


def _ascending(bounds: tuple[float, float], limit: float = math.inf) -> bool:
    return 0 < bounds[0] <= bounds[1] <= limit


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value!r}; it has to be {expected}")
