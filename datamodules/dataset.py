"""From a record to a clip, and from clips to a batch.

All randomness of a sample comes from (seed, epoch, video id) and from how often the epoch has visited the video before,
so that an epoch is the same clips for any number of workers. A video that cannot be read becomes a `FailedVideo` in the
batch: it is counted, and no other takes its place.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.decoding import VideoOpener
from datamodules.frames import Indices, Mask, Seconds, clip_indices, lagged_indices
from datamodules.readers import Reader, open_reader
from datamodules.records import RecordTable
from datamodules.samplers import Visit
from datamodules.segments import segment_frames
from datamodules.views import ONE_VIEW, Views, crop_size, crop_views
from temporal_attn.types import ClipSpec, FailedVideo, VideoBatch, VideoError, VideoRecord

__all__ = ["ClipItem", "ClipSource", "DecodedClips", "VideoDataset", "collate_clips", "load_clip"]

UNKNOWN_LABEL = -1


class ClipItem(TypedDict, total=False):
    """One clip, before it joins a batch; `VideoBatch` without the leading dimension.

    Several views of one video have a leading dimension V in the tensors of their frames; all else holds for each view.

    Keys:
        video: (T, C, H, W) uint8 RGB, see `VideoBatch`; or instead of it
        features: (T, ...), what a frozen part of a backbone made of the frames.
        mask: (T,) bool, True = a real frame; padding repeats the last real one.
        pts: (T,) float32, seconds of each frame in its file.
        frame_index: (T,) int64, display-order index of each frame in its file.
        label: Class index, -1 = unknown; of a multi-label data set (K,) float, 1 for each class that holds.
        video_id: Name of the video.
        view_id: Which clip of the video this is; of several views (V,) int64.
        index: Position of the video in its data set.
        group: Leakage group.
        seed: Source of randomness for the augmentation.
    """

    video: Tensor
    features: Tensor
    mask: Tensor
    pts: Tensor
    frame_index: Tensor
    label: int | Tensor
    video_id: str
    view_id: int | Tensor
    index: int
    group: str
    seed: int


class ClipSource(Protocol):
    """Where the tensors of a clip come from: decoded frames, or what was computed from them before."""

    def __call__(self, record: VideoRecord, rng: np.random.Generator) -> dict[str, Tensor]:
        """``video`` (T, C, H, W) or ``features`` (T, ...), and ``mask``, ``pts``, ``frame_index`` (T,).

        Args:
            record: The video.
            rng: Decides all that is random.

        Raises:
            VideoError: The video cannot be read.
        """
        ...


class DecodedClips:
    """Clips decoded from their files.

    Training draws the frames at random and gives them whole, since the random crop is done on the batch on the device;
    evaluation takes the middle of each segment and the centre crop, or several views, which are decoded in one go.

    Args:
        clip: How a clip is cut.
        train: Whether frames are drawn at random.
        reader: Engine of `datamodules.readers.open_reader`.
        open_video: Opens a file: `open_reader`, or what takes more care, such as `datamodules.decoding.SafeOpener`.
        jitter: Reach of `datamodules.frames.jittered_indices` in training.
        views: Views of a video in evaluation.
    """

    def __init__(
        self,
        clip: ClipSpec,
        train: bool,
        reader: str,
        open_video: VideoOpener = open_reader,
        jitter: float = 0.0,
        views: Views = ONE_VIEW,
    ) -> None:
        self.clip = clip
        self.train = train
        self.reader = reader
        self.open_video = open_video
        self.jitter = jitter
        self.views = views

    def __call__(self, record: VideoRecord, rng: np.random.Generator) -> dict[str, Tensor]:
        """Frames and their mask, pts and frame_index; of several views with a leading dimension V."""
        with self.open_video(record.path, self.reader, self.clip["resize"]) as video:
            own = _own_frames(video, record)
            indices, mask = self._sample(video.pts[own], rng)
            together = [indices]
            if lag := self.clip.get("lag", 0.0):
                together = [*lagged_indices(video.pts[own], indices, lag)]
            indices = together[0] + own.start
            pts = video.pts[indices]
            wanted, place = np.unique(np.stack(together, -1) + own.start, return_inverse=True)
            frames = torch.from_numpy(video.get_batch(wanted.tolist())).permute(0, 3, 1, 2)
            stored = getattr(video, "frame_index", None)  # a store that holds some frames knows which they are
        crops = frames[None] if self.train else crop_views(frames, self.clip["crop"], self.views.num_crops)
        chosen = crops[:, torch.from_numpy(place.reshape(*indices.shape, len(together)))]
        frame_index = indices if stored is None else stored[indices]
        fields = {
            "video": chosen.flatten(3, 4).transpose(0, 1).flatten(0, 1).contiguous(),
            "mask": torch.from_numpy(mask).repeat_interleave(len(crops), dim=0),
            "pts": torch.from_numpy(pts).float().repeat_interleave(len(crops), dim=0),
            "frame_index": torch.from_numpy(frame_index).repeat_interleave(len(crops), dim=0),
        }
        several = not self.train and len(self.views) > 1
        return fields if several else {name: tensor[0] for name, tensor in fields.items()}

    def _sample(self, pts: Seconds, rng: np.random.Generator) -> tuple[Indices, Mask]:
        """Frames (clips, T) of the clips of a video, and which of them are real."""
        if self.train:
            clips = [clip_indices(pts, self.clip, rng, jitter=self.jitter)]
        else:
            clips = [clip_indices(pts, self.clip, view=view) for view in self.views.clips()]
        indices, mask = zip(*clips, strict=True)
        return np.stack(indices), np.stack(mask)


class VideoDataset(Dataset[ClipItem | FailedVideo]):
    """One clip a video, from `source`: `DecodedClips`, unless somebody puts another one there.

    Args:
        records: The videos.
        clip: How a clip is cut.
        train: Whether frames are drawn at random.
        reader: Engine of `datamodules.readers.open_reader`.
        seed: Not negative.
        open_video: Opens a file, see `DecodedClips`.
        multi_label: K, the number of classes, of a data set whose videos belong to several; None where each has one.
        jitter: Reach of `datamodules.frames.jittered_indices` in training.
        views: Views of a video in evaluation.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        clip: ClipSpec,
        train: bool = False,
        reader: str = "auto",
        seed: int = 0,
        open_video: VideoOpener = open_reader,
        multi_label: int | None = None,
        jitter: float = 0.0,
        views: Views = ONE_VIEW,
    ) -> None:
        self.records = records if isinstance(records, RecordTable) else RecordTable(records)
        self.clip = clip
        self.train = train
        self.reader = reader
        self.seed = seed
        self.open_video = open_video
        self.multi_label = multi_label
        self.source: ClipSource = DecodedClips(clip, train, reader, open_video, jitter, views)

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, ...]) -> ClipItem | FailedVideo:
        """The clip of one video.

        Args:
            key: Position of the video, or a `Visit`: (position, epoch, copy); what is left out is 0.
        """
        index, epoch, copy = Visit(*key) if isinstance(key, tuple) else Visit(key)
        record = self.records[index]
        rng, seed = self.randomness(record, epoch, copy)
        try:
            fields = self.source(record, rng)
        except VideoError as error:
            return FailedVideo(
                id=record.id,
                path=record.path,
                reason=error.reason,
                label=UNKNOWN_LABEL if record.label is None else record.label,
                group=record.group,
                index=index,
            )
        return self.item(record, fields, index, seed)

    def item(self, record: VideoRecord, fields: dict[str, Tensor], index: int, seed: int) -> ClipItem:
        """A source's tensors and what is known of their video."""
        known = {
            "label": self._label(record),
            "video_id": record.id,
            "view_id": torch.arange(len(fields["mask"])) if fields["mask"].ndim == 2 else 0,
            "index": index,
            "group": record.group,
            "seed": seed,
        }
        return cast(ClipItem, {**fields, **known})

    def _label(self, record: VideoRecord) -> int | Tensor:
        """Class index, or (K,) multi-hot."""
        if self.multi_label is None:
            return record.label if isinstance(record.label, int) else UNKNOWN_LABEL
        if record.label is None:
            return torch.full((self.multi_label,), float(UNKNOWN_LABEL))
        return torch.zeros(self.multi_label).index_fill(0, torch.tensor(record.label, dtype=torch.int64).reshape(-1), 1)

    def randomness(self, record: VideoRecord, epoch: int, copy: int = 0) -> tuple[np.random.Generator, int]:
        """Generator of a sample's frames, and the seed of its augmentation.

        Both depend on the video's id and not on its position, so that other videos beside it change nothing.
        """
        name = record.id.encode("utf-8", "surrogatepass")  # file names may hold bytes that are no UTF-8
        rng = np.random.default_rng((self.seed, epoch, zlib.crc32(name), copy))
        return rng, int(rng.integers(2**63))


def load_clip(path: str | Path, clip: ClipSpec, reader: str = "auto", record: VideoRecord | None = None) -> VideoBatch:
    """The clip of one video file, exactly as evaluation cuts it.

    Args:
        path: The file.
        clip: How a clip is cut.
        reader: Engine of `datamodules.readers.open_reader`.
        record: What is known of the video, such as its label and its seconds; None for a bare file.

    Returns:
        A batch of B = 1.

    Raises:
        VideoError: The file cannot be read.
    """
    record = record or VideoRecord(id=str(path), path=str(path), label=None, group=str(path))
    dataset = VideoDataset([record], clip, reader=reader)
    fields = dataset.source(record, np.random.default_rng(0))
    return collate_clips([dataset.item(record, fields, index=0, seed=0)])


def collate_clips(
    items: Sequence[ClipItem | FailedVideo], clip: ClipSpec | None = None, multi_label: int | None = None
) -> VideoBatch:
    """Clips of one length become a batch; what could not be read is listed beside it.

    Frames of a training batch share their short side but not always their shape: they are cut centrally to the smallest
    height and width of the batch. Batches of one source have one shape, and lose nothing.

    Args:
        items: From `VideoDataset`.
        clip: Gives T and the crop of a batch in which every video failed, which else has T = H = W = 0.
        multi_label: K of a multi-label data set: such a batch too has labels (B, K).

    Returns:
        A batch of B = the clips that could be read, 0 included; each view of a video is a clip.
    """
    failed = [cast(FailedVideo, item) for item in items if "reason" in item]
    clips = [clip for item in items if "reason" not in item for clip in _each_view(item)]
    num_frames, size = (clip["num_frames"], crop_size(clip["crop"])) if clip else (0, (0, 0))
    channels = 6 if clip and clip.get("lag", 0.0) else 3
    batch = VideoBatch(
        mask=_stack([item["mask"] for item in clips], torch.empty(0, num_frames).bool()),
        pts=_stack([item["pts"] for item in clips], torch.empty(0, num_frames)),
        frame_index=_stack([item["frame_index"] for item in clips], torch.empty(0, num_frames).long()),
        label=_stack_labels([item["label"] for item in clips], multi_label),
        video_id=[item["video_id"] for item in clips],
        view_id=torch.tensor([item["view_id"] for item in clips], dtype=torch.int64),
        index=torch.tensor([item["index"] for item in clips], dtype=torch.int64),
        group=[item["group"] for item in clips],
        seed=torch.tensor([item["seed"] for item in clips], dtype=torch.int64),
        failed=failed,
    )
    if clips and "features" in clips[0]:
        batch["features"] = torch.stack([item["features"] for item in clips])
    else:
        empty = torch.empty(0, num_frames, channels, *size, dtype=torch.uint8)
        batch["video"] = _stack_frames([item["video"] for item in clips], empty)
    return batch


def _each_view(item: ClipItem) -> list[ClipItem]:
    """The views of a video as items of their own; one that has no dimension for them is the only one."""
    if item["mask"].ndim == 1:
        return [item]
    of_views = [name for name in ("video", "features", "mask", "pts", "frame_index") if name in item]
    tensors: dict[str, Tensor] = {name: item[name] for name in of_views}
    return [
        cast(ClipItem, {**item, "view_id": view, **{name: tensor[view] for name, tensor in tensors.items()}})
        for view in range(len(item["mask"]))
    ]


def _own_frames(video: Reader, record: VideoRecord) -> slice:
    """The frames that belong to the record."""
    if record.start is None and record.end is None:
        return slice(0, len(video.pts))
    own = segment_frames(video.pts, video.fps, record.start, record.end)
    if own.stop <= own.start:
        length = f"the video, counted from its first frame, ends at second {video.pts[-1] - video.pts[0]:.3f}"
        raise VideoError(record.path, f"no frame between second {record.start} and second {record.end}: {length}")
    return own


def _centre_crop(frames: Tensor, height: int, width: int) -> Tensor:
    """Middle of (..., H, W)."""
    top, left = (frames.shape[-2] - height) // 2, (frames.shape[-1] - width) // 2
    return frames[..., top : top + height, left : left + width]


def _stack_labels(labels: list[int | Tensor], multi_label: int | None) -> Tensor:
    if multi_label is None:
        return torch.tensor(labels, dtype=torch.int64)
    return _stack([torch.as_tensor(label) for label in labels], torch.empty(0, multi_label))


def _stack_frames(clips: list[Tensor], empty: Tensor) -> Tensor:
    height = min((clip.shape[-2] for clip in clips), default=0)
    width = min((clip.shape[-1] for clip in clips), default=0)
    return _stack([_centre_crop(clip, height, width) for clip in clips], empty)


def _stack(tensors: list[Tensor], empty: Tensor) -> Tensor:
    return torch.stack(tensors) if tensors else empty
