"""Read videos out of a frame store: a reader like all others, and an opener in the shape of `open_reader`."""

from __future__ import annotations

import logging
import os
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.decoding import VideoOpener
from datamodules.frame_store.encoding import decode_frames
from datamodules.frame_store.settings import FrameSettings
from datamodules.frame_store.shard import DamagedShard, Shard, StoredVideo, find_shards
from datamodules.readers import Reader
from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.scaling import FrameScaler
from datamodules.records import RecordTable
from temporal_attn.types import ClipSpec, UserError, VideoError, VideoRecord

__all__ = ["FrameStore", "StoredFrames"]

_log = logging.getLogger(__name__)


class FrameStore:
    """Frames that were stored before, by the file that they came from.

    A video counts as stored only in the state in which it was read: when its size or time of modification changes, it
    is absent. Its checksum is verified when it is first opened in a process.

    Called, the store is a `VideoOpener`: whatever reads frames from files reads them from here. Videos that are absent
    or damaged are opened by `otherwise`, and the first of them is named in the log.

    Args:
        folder: The store.
        settings: What it holds.
        otherwise: Opens the videos that the store cannot give, such as a `SafeOpener`; without it they are errors.

    Attributes:
        damaged: Files of the store that are no whole shards; their videos are absent.
    """

    def __init__(self, folder: Path, settings: FrameSettings, otherwise: VideoOpener | None = None) -> None:
        self.folder = folder
        self.settings = settings
        self.otherwise = otherwise
        self.shards: list[Shard] = []
        self.damaged: list[Path] = []
        for path in find_shards(folder):
            try:
                self.shards.append(Shard(path))
            except DamagedShard as error:
                self.damaged.append(path)
                _log.warning("%s; its videos count as absent, and `temporal-attn cache frames` stores them anew", error)
        paths = [shard.paths for shard in self.shards]
        keys = np.array([_key(path) for own in paths for path in own], dtype=np.uint64)
        places = [(number, row) for number, own in enumerate(paths) for row in range(len(own))]
        order = np.argsort(keys, kind="stable")  # of several entries of one file the latest stands last
        self._keys = keys[order]
        self._places = np.array(places, dtype=np.int64).reshape(-1, 2)[order]
        self._verified = [np.zeros(len(shard), dtype=np.bool_) for shard in self.shards]
        self._has_told = False

    @classmethod
    def open(cls, folder: str | Path, otherwise: VideoOpener | None = None) -> FrameStore:
        """Open a store that `temporal-attn cache frames` has made.

        Args:
            folder: Its folder.
            otherwise: See above.

        Raises:
            UserError: There is none.
        """
        return cls(Path(folder), FrameSettings.load(Path(folder)), otherwise)

    def __len__(self) -> int:
        """Files that the store has an entry of, in whatever state."""
        return len(np.unique(self._keys))

    @property
    def num_bytes(self) -> int:
        """Size of all its files."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def find(self, path: str | Path) -> StoredVideo | None:
        """What is known of a file in its present state, None where nothing is."""
        found = self._find(path)
        return None if found is None else found[2]

    def holds(self, shard: int, row: int) -> bool:
        """Whether a video is read from this place: its file is as it was, and no later shard has it too."""
        found = self._find(self.shards[shard].video(row).path)
        return found is not None and found[:2] == (shard, row)

    def get(self, record: VideoRecord) -> StoredFrames:
        """The stored frames of a video.

        Raises:
            VideoError: It is not stored in its present state, damaged in the store, or could not be read when the
                store was filled.
        """
        return self._open(record.path)

    def __call__(self, path: str, engine: str = "auto", short_side: int | None = None) -> Reader:
        """Open a video, see `datamodules.readers.open_reader`.

        Args:
            path: The file that it came from.
            engine: Reads what the store does not have.
            short_side: At most that of the store.

        Raises:
            VideoError: The file cannot be read.
            UserError: The store's frames are smaller than what is asked for.
        """
        try:
            return self._open(path, short_side)
        except _Absent as absence:
            if self.otherwise is None:
                raise
            if not self._has_told:
                self._has_told = True
                _log.warning("%s; it is decoded, and so are others, which are not named", absence)
        return self.otherwise(path, engine, short_side)

    def check_clip(self, clip: ClipSpec, num_clips: int = 1) -> None:
        """Find out before training whether clips can be cut from what is stored.

        Args:
            clip: How a clip is cut.
            num_clips: Clips of a video at different times.

        Raises:
            UserError: The frames are too small, or frames that the clips need are missing.
        """
        if clip["resize"] > self.settings.short_side:
            raise UserError(_too_small(self, clip["resize"]))
        most = self.settings.max_frames
        if most is None:
            return
        holds = f"frames {self.folder}: a store of at most {most} frames a video"
        if clip["sampling"] in ("dense", "seconds"):
            raise UserError(
                f"{holds} has no neighbours for clip.sampling {clip['sampling']}; store all frames, or sample uniform"
            )
        if lag := clip.get("lag", 0.0):
            raise UserError(f"{holds} has none {lag:g} s later, as clip.lag asks; store all frames, or set lag to 0")
        if most < clip["num_frames"] * num_clips:
            several = f" in each of clip.num_clips {num_clips}" if num_clips > 1 else ""
            raise UserError(
                f"{holds} is too small for clip.num_frames {clip['num_frames']}{several}; store "
                f"{clip['num_frames'] * num_clips} or more, or take fewer"
            )

    def check_records(self, records: RecordTable) -> None:
        """Find out before training whether the videos' seconds can be found in what is stored.

        Raises:
            UserError: Some are segments, and a segment may have none of a video's few stored frames.
        """
        if self.settings.max_frames is not None and records.have_seconds:
            raise UserError(
                f"frames {self.folder}: a store of at most {self.settings.max_frames} frames a video does not hold the "
                "frames of segments (start, end); store all frames, or decode the files"
            )

    def damaged_videos(self) -> list[str]:
        """Files whose stored frames are not what was written. It reads the whole store."""
        return [
            video.path
            for shard in self.shards
            for video in map(shard.video, range(len(shard)))
            if not shard.is_intact(video)
        ]

    def _find(self, path: str | Path) -> tuple[int, int, StoredVideo] | None:
        """Number of the shard, row and entry of a file in its present state."""
        absolute = os.path.abspath(path)
        place = int(np.searchsorted(self._keys, np.uint64(_key(absolute)), side="right")) - 1
        if place < 0:
            return None
        shard, row = self._places[place].tolist()
        video = self.shards[shard].video(row)
        return (shard, row, video) if video.path == absolute and video.is_current() else None

    def _open(self, path: str, short_side: int | None = None) -> StoredFrames:
        if short_side is not None and short_side > self.settings.short_side:
            raise UserError(_too_small(self, short_side))
        found = self._find(path)
        if found is None:
            raise _Absent(path, f"is not in the frame store {self.folder} in its present state")
        number, row, video = found
        if video.reason:
            raise VideoError(path, f"{video.reason} (as the frame store says)")
        shard = self.shards[number]
        if not self._verified[number][row]:
            if not shard.is_intact(video):
                raise _Absent(path, f"its frames in {shard.path} are damaged: the checksum differs")
            self._verified[number][row] = True
        return StoredFrames(shard, video, self.settings.encoding, short_side)

    def __reduce__(self) -> tuple[object, tuple[Path, VideoOpener | None]]:
        """A worker opens the store itself: memory maps do not travel."""
        return (FrameStore.open, (self.folder, self.otherwise))


class StoredFrames(BaseReader):
    """Frames of one video in a `FrameStore`; indices count the stored ones.

    Args:
        shard: Where they lie.
        video: What is known of them.
        encoding: ``jpeg`` or ``uint8``.
        short_side: Pixels of the frames returned, None for those stored.

    Attributes:
        frame_index: (K,) int64, which frame of the file each stored one is.
    """

    engine = "store"

    def __init__(self, shard: Shard, video: StoredVideo, encoding: str, short_side: int | None = None) -> None:
        self._stored_size = (video.height, video.width)
        size = scaled_size(*self._stored_size, short_side)
        self._scale = None if size == self._stored_size else FrameScaler(size)
        self._data = shard.bytes_of(video).numpy()
        self._offsets = video.offsets - video.offsets[0]
        self._encoding = encoding
        self.frame_index = video.index
        super().__init__(video.path, video.pts, video.fps, size)

    def encoded(self) -> list[bytes]:
        """All stored frames as they lie in the store."""
        return [self._data[first:last].tobytes() for first, last in pairwise(self._offsets.tolist())]

    def close(self) -> None:
        """Nothing to give back: the map belongs to the store."""

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        try:
            frames = decode_frames(self._data, self._offsets, wanted, self._encoding, self._stored_size)
        except ValueError as error:
            raise VideoError(self.path, f"a stored frame is no JPEG ({error})") from None
        return frames if self._scale is None else np.stack([self._scale(frame) for frame in frames])


class _Absent(VideoError):
    """A video that the store cannot give, while its file may be good."""


def _too_small(store: FrameStore, wanted: int) -> str:
    return (
        f"frames {store.folder}: stored at short side {store.settings.short_side}, but clip.resize is {wanted}; "
        "store larger frames, or lower clip.resize"
    )


def _key(path: str) -> int:
    return int.from_bytes(blake2b(os.fsencode(path), digest_size=8).digest(), "little")
