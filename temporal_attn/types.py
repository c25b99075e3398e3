"""The shapes that everything passes: records, clips, batches, features and outputs.

B is the batch, T the frames of a clip, C channels, H × W pixels (h × w cells of a feature map), K classes.
This module imports nothing of the project, so that both packages can share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict

if TYPE_CHECKING:  # processes that only decode start without torch
    from torch import Tensor
    from typing_extensions import NotRequired  # in typing from Python 3.11 on

__all__ = [
    "ClipSpec",
    "FailedVideo",
    "FrameFeatures",
    "ModelOutput",
    "UnavailableVideo",
    "UserError",
    "VideoBatch",
    "VideoError",
    "VideoRecord",
]


class UserError(Exception):
    """Wrong use (exit status 2): one line that names the file or argument, and the remedy."""


class VideoError(Exception):
    """A video that cannot be read: what is wrong with which file. The command line exits with status 1.

    Args:
        path: The file.
        reason: What is wrong with it, in words; one line.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = str(path)
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        """Survive the way from a loader worker to the main process."""
        return (VideoError, (self.path, self.reason))


class UnavailableVideo(VideoError):
    """A video that cannot be had just now, whatever it holds: its file is missing or locked, or memory is short.

    It is no verdict on the content, so that nobody stores it.
    """

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        """As `VideoError`, and stay what it is."""
        return (UnavailableVideo, (self.path, self.reason))


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One labelled video of a data set.

    Args:
        id: Unique name within the data set, e.g. ``Archery/v_Archery_g08_c01``.
        path: The file.
        label: Class index into the data set's class names; several of them for a multi-label data set, where () says
            that none holds; None when unknown (prediction on files).
        group: Leakage unit: clips of one group come from one source and never cross a split.
        start: First second that belongs to the sample, counted from the first frame whatever the container's clock
            says; None for the file's start.
        end: Last second that belongs to the sample, likewise; None for the file's end.
    """

    id: str
    path: str
    label: int | tuple[int, ...] | None
    group: str
    start: float | None = None
    end: float | None = None


class ClipSpec(TypedDict):
    """How a clip is cut out of a video in evaluation. Primitives only: it travels in checkpoints.

    Keys:
        num_frames: T.
        sampling: ``uniform`` (TSN segments over the whole video), ``symmetric`` (segments that a reversed video
            shares), ``dense`` (one window with a stride) or ``seconds`` (one window with a frame rate).
        stride: Frames between two samples of ``dense``.
        resize: Short side in pixels to which a frame is scaled.
        crop: What the model sees of its middle, in pixels: the side of a square, or height and width.
        repeat_short: Whether a video with fewer frames than T repeats frames (True) or is padded and masked (False).
        fps: Frames a second of ``seconds``; checkpoints from before there was such sampling do not have it.
        lag: Seconds from each frame to the one that is taken with it, see `VideoBatch`; 0, as where it is not given,
            takes none.
    """

    num_frames: int
    sampling: str
    stride: int
    resize: int
    crop: int | list[int]
    repeat_short: bool
    fps: NotRequired[float]
    lag: NotRequired[float]


class FailedVideo(TypedDict):
    """A video that could not be read. It is counted and named, never replaced."""

    id: str
    path: str
    reason: str
    label: int | tuple[int, ...]
    group: str
    index: int


class VideoBatch(TypedDict, total=False):
    """A batch of clips.

    Only ``video`` and (for training) ``label`` are required by the modules of this package; everything else has a
    default, so that batches of other loaders can be used.

    Keys:
        video: (B, T, C, H, W) uint8 RGB; a float tensor is taken as already normalised. C is 3, or 6 where each frame
            comes with the one that follows it after `ClipSpec`'s ``lag``.
        features: Instead of ``video``: what a frozen part of the backbone made of it, maps (B, T, C', h, w) or
            tokens (B, T, C').
        mask: (B, T) bool, True = a real frame.
        pts: (B, T) float32, seconds of each frame in its file.
        frame_index: (B, T) int64, display-order index of each frame in its file.
        label: (B,) int64, or (B, K) float for multi-label and for mixed clips, whose rows then sum to 1; -1 = unknown.
        label_b: Of mixed clips: the label of what was mixed in, as ``label`` was before.
        lam: (B,) float32, of mixed clips: the share of the clip itself.
        partner: (B,) int64, of mixed clips: the row that was mixed in.
        video_id: B names.
        view_id: (B,) int64, which clip and crop of the video this is.
        index: (B,) int64, position of the video in its data set.
        group: B names of leakage groups.
        seed: (B,) int64, the source of randomness for each clip's augmentation.
        failed: Videos of this batch that could not be read; they have no row in the tensors.
    """

    video: Tensor
    features: Tensor
    mask: Tensor
    pts: Tensor
    frame_index: Tensor
    label: Tensor
    label_b: Tensor
    lam: Tensor
    partner: Tensor
    video_id: list[str]
    view_id: Tensor
    index: Tensor
    group: list[str]
    seed: Tensor
    failed: list[FailedVideo]


class FrameFeatures(NamedTuple):
    """What the backbone says of each frame, before any trainable projection.

    Args:
        tokens: (B, T, C').
        maps: (B, T, C', h, w), or None when not asked for.
    """

    tokens: Tensor
    maps: Tensor | None = None


class ModelOutput(NamedTuple):
    """Answer of a video classifier.

    Args:
        logits: (B, K).
        frame_weights: (B, T), each row sums to 1 over real frames; 0 on padding.
    """

    logits: Tensor
    frame_weights: Tensor
