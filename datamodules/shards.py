"""WebDataset shards for object stores: frames of a frame store as tar files, read in one stream each.

A shard is a tar file of samples, one a video: ``json`` (what is known of the video, and the second and index of each
frame) and the frames ``0000.jpg``, ``0001.jpg``, … Reading takes a plain sequence of URLs (``http``, ``s3`` by a
``pipe:`` command, local files), which WebDataset deals out to processes and workers. It is an optional package: install
``temporal-attn[webdataset]``.

Project: https://github.com/webdataset/webdataset

Example:
    Write the training part of a data set, then read it where no file system is::

        store = FrameStore.open("frames")
        export_shards(data.train_dataset.records, store, "shards", "train")
        stream = ShardStream(["https://host/train-000000.tar"], clip.spec(), train=True)
        loader = DataLoader(stream, batch_size=8, collate_fn=collate_clips)
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import IterableDataset

from datamodules.dataset import ClipItem, VideoDataset
from datamodules.frame_store import FrameStore
from datamodules.frame_store.encoding import decode_jpeg, frame_encoder
from datamodules.readers import Reader
from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.scaling import FrameScaler
from temporal_attn.types import ClipSpec, FailedVideo, UserError, VideoError, VideoRecord

if TYPE_CHECKING:
    import webdataset

__all__ = ["ShardStream", "export_shards"]

_QUALITY = 90


def export_shards(
    records: Iterable[VideoRecord], store: FrameStore, folder: str | Path, prefix: str, shard_mb: float = 256
) -> list[Path]:
    """Write videos of a frame store into WebDataset shards; JPEG frames are copied as they are.

    Args:
        records: The videos, in the order in which they are read again: shuffle them before.
        store: Has all of them.
        folder: For the shards, made if it is missing.
        prefix: Names of the shards begin with it, e.g. ``train``.
        shard_mb: About how many 10⁶ bytes a shard takes.

    Returns:
        The shards.

    Raises:
        UserError: webdataset is not installed, the folder cannot be written, or holds such shards already.
        VideoError: A video is not in the store.
    """
    wds = _webdataset()
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    if any(target.glob(f"{prefix}-*.tar")):
        raise UserError(f"{folder}: holds shards of {prefix} already; delete them, or choose another folder")
    # No name ends in .tar before all are written: what an interrupted export leaves is never read.
    unfinished: list[str] = []
    pattern = str(target / f"{prefix}-%06d.tar.partial")
    try:
        with wds.ShardWriter(pattern, 10**9, shard_mb * 1e6, unfinished.append, verbose=0) as writer:
            for number, record in enumerate(records):
                writer.write({"__key__": f"{number:09d}", **_sample(record, store)})
    except BaseException:
        for path in target.glob(f"{prefix}-*.tar.partial"):
            path.unlink()
        raise
    return [Path(name).rename(Path(name).with_suffix("")) for name in unfinished]


class ShardStream(IterableDataset[ClipItem | FailedVideo]):
    """Clips from shards, as `collate_clips` takes them; each video once an epoch.

    Shards go to one worker of one process each, so there have to be as many as workers at least. Which frames are
    drawn depends on (seed, epoch, video id) alone, as everywhere.

    Args:
        urls: Shards; lists in braces such as ``train-{000000..000015}.tar`` are written out.
        clip: How a clip is cut; ``resize`` is at most the short side of the stored frames.
        train: Whether frames are drawn at random, and videos shuffled.
        seed: Not negative.
        shuffle: Videos among which the next one is drawn, in training.

    Raises:
        UserError: webdataset is not installed.
    """

    def __init__(
        self, urls: str | Sequence[str], clip: ClipSpec, train: bool = False, seed: int = 0, shuffle: int = 1000
    ) -> None:
        _webdataset()
        self.urls = urls if isinstance(urls, str) else list(urls)
        self.clip = clip
        self.train = train
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; Lightning does it for samplers, a stream wants it told."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[ClipItem | FailedVideo]:
        """Clips of this worker's shards."""
        wds = _webdataset()
        samples: Any = wds.WebDataset(
            self.urls,
            nodesplitter=wds.split_by_node,
            shardshuffle=100 if self.train else False,
            detshuffle=self.train,
            seed=zlib.crc32(f"{self.seed} {self.epoch}".encode()),
            empty_check=False,
        )
        if self.train:
            samples = samples.shuffle(self.shuffle, seed=zlib.crc32(f"{self.seed} {self.epoch}".encode()))
        return (self._clip(sample) for sample in samples)

    def _clip(self, sample: dict[str, Any]) -> ClipItem | FailedVideo:
        known = json.loads(sample["json"])
        record = VideoRecord(**{**known["record"], "label": _label(known["record"]["label"])})

        def open_sample(path: str, engine: str = "auto", short_side: int | None = None) -> Reader:
            return _SampleFrames(path, sample, known, short_side)

        dataset = VideoDataset([record], self.clip, self.train, "auto", self.seed, open_sample)
        item = dataset[(0, self.epoch)]
        item["index"] = int(sample["__key__"])
        return item


class _SampleFrames(BaseReader):
    """Frames of a sample, decompressed when they are asked for."""

    engine = "webdataset"

    def __init__(self, path: str, sample: dict[str, Any], known: dict[str, Any], short_side: int | None) -> None:
        stored = (known["height"], known["width"])
        if short_side is not None and short_side > min(stored):
            raise UserError(
                f"{sample['__url__']}: frames of short side {min(stored)}, but clip.resize is {short_side}; "
                "export larger frames, or lower clip.resize"
            )
        size = scaled_size(*stored, short_side)
        self.frame_index = np.array(known["frame_index"], dtype=np.int64)
        self._sample = sample
        self._scale = FrameScaler(size)
        super().__init__(path, np.array(known["pts"]), known["fps"], size)

    def close(self) -> None:
        """Let go of the sample."""
        self._sample = {}

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        return np.stack([self._scale(self._decode(place)) for place in wanted])

    def _decode(self, place: int) -> npt.NDArray[np.uint8]:
        try:
            return decode_jpeg(np.frombuffer(self._sample[_frame_name(place)], np.uint8))
        except (KeyError, ValueError):
            raise VideoError(self.path, f"frame {place} is missing in its sample, or no JPEG") from None


def _sample(record: VideoRecord, store: FrameStore) -> dict[str, Any]:
    with store.get(record) as reader:
        pictures: Iterable[bytes]
        if store.settings.encoding == "jpeg":
            pictures = reader.encoded()
        else:
            encode: Callable[[npt.NDArray[np.uint8]], bytes] = frame_encoder("jpeg", _QUALITY)
            pictures = (encode(frame) for frame in reader.get_batch(range(len(reader))))
        frames = {_frame_name(place): picture for place, picture in enumerate(pictures)}
        height, width = reader.size
        known = {
            "record": {name: getattr(record, name) for name in ("id", "path", "label", "group", "start", "end")},
            "fps": reader.fps,
            "height": height,
            "width": width,
            "frame_index": reader.frame_index.tolist(),
            "pts": reader.pts.tolist(),
        }
    return {"json": known, **frames}


def _frame_name(place: int) -> str:
    return f"{place:04d}.jpg"


def _label(value: int | list[int] | None) -> int | tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) else value  # JSON knows no tuples


def _webdataset() -> webdataset:
    try:
        import webdataset as wds
    except ImportError:
        raise UserError("shards need webdataset: pip install 'temporal-attn[webdataset]'") from None
    return wds
