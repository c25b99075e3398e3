"""A file of frames of many videos: bytes end to end, then the table that says where each frame lies.

Layout: frames | table (an Arrow stream) | trailer (magic, length and CRC-32 of the table). A shard is written under
another name and renamed when it is complete and on the disk, so that half a shard is never taken for a whole one. Each
video has a CRC-32 of its own.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.atomic import PARTIAL, sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DamagedShard", "Shard", "ShardWriter", "StoredVideo"]

_TRAILER = struct.Struct("<8sQI")
_MAGIC = b"TAFRAMES"
_SUFFIX = ".frames"
_numbers = count()


class DamagedShard(Exception):
    """A file that is no complete shard."""


@dataclass(frozen=True, eq=False)
class StoredVideo:
    """What a shard knows of one video.

    Args:
        path: The file, absolute.
        size: Its bytes.
        mtime_ns: Its time of modification in nanoseconds.
        reason: Why it cannot be read; empty for a video that is stored.
        length: Frames of the file.
        fps: Average frames per second of the file.
        height: Pixels of a stored frame.
        width: Likewise.
        index: (K,) which frames of the file are stored.
        pts: (K,) second at which each of them is shown.
        offsets: (K + 1,) where each begins in the shard, and at last where the last one ends.
        crc: CRC-32 of their bytes.
    """

    path: str
    size: int
    mtime_ns: int
    reason: str = ""
    length: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    index: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    pts: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    offsets: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    crc: int = 0

    def is_current(self) -> bool:
        """Whether the file is in the state in which it was read."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


class ShardWriter:
    """Writes one shard. Nothing of it can be seen before `finish`.

    Args:
        folder: Where it will lie.

    Attributes:
        position: Bytes written so far.
        started: When, by `time.monotonic`.
    """

    def __init__(self, folder: Path) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}{_SUFFIX}"
        self._path = folder / name
        self._unfinished = folder / f"{name}{PARTIAL}"
        self._file = open(self._unfinished, "wb")  # noqa: SIM115 - as long as the writer
        _lock(self._file.fileno())
        self._videos: list[StoredVideo] = []
        self.position = 0
        self.started = time.monotonic()

    def write(self, data: bytes) -> None:
        """Append the bytes of a frame."""
        self._file.write(data)
        self.position += len(data)

    def cut(self, position: int) -> None:
        """Take back what was written after a position."""
        self._file.seek(position)
        self._file.truncate()
        self.position = position

    def add(self, video: StoredVideo) -> None:
        """Note a video whose frames have been written."""
        self._videos.append(video)

    def finish(self) -> Path | None:
        """Make it a shard.

        Returns:
            The file, None where there is no video in it.

        Raises:
            OSError: It cannot be written; then nothing is left of it.
        """
        try:
            if not self._videos:
                return None
            table = _to_bytes(self._videos)
            self._file.write(table)
            self._file.write(_TRAILER.pack(_MAGIC, len(table), zlib.crc32(table)))
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._unfinished, self._path)
            sync_folder(self._path.parent)
            return self._path
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        try:
            self._file.close()
        except OSError:  # a full disk refuses what is in the buffer; it is not wanted any more
            pass
        finally:
            self._unfinished.unlink(missing_ok=True)


class Shard:
    """A shard, mapped into memory: workers on one machine share its pages, and no file stays open.

    Args:
        path: The file.

    Raises:
        DamagedShard: It is cut off, or its table is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        if size < _TRAILER.size:
            raise DamagedShard(f"{path}: cut off")
        self._data = torch.from_file(str(path), size=size, dtype=torch.uint8)
        magic, length, crc = _TRAILER.unpack(self._data[-_TRAILER.size :].numpy().tobytes())
        start = size - _TRAILER.size - length
        if magic != _MAGIC or start < 0:
            raise DamagedShard(f"{path}: cut off, or no shard")
        table = self._data[start : start + length].numpy()
        if zlib.crc32(table.data) != crc:
            raise DamagedShard(f"{path}: its table is damaged")
        self._table = _from_bytes(table)

    def __len__(self) -> int:
        """Number of videos."""
        return int(self._table.num_rows)

    @property
    def paths(self) -> list[str]:
        """Files of the videos."""
        return [os.fsdecode(path) for path in self._table["path"].to_pylist()]

    def video(self, row: int) -> StoredVideo:
        """What is known of a video."""
        values: dict[str, Any] = {name: self._table[name][row] for name in self._table.column_names}
        arrays = {name: values.pop(name).values.to_numpy() for name in ("index", "pts", "offsets")}
        rest = {name: value.as_py() for name, value in values.items()}
        return StoredVideo(**{**rest, "path": os.fsdecode(rest["path"])}, **arrays)

    def bytes_of(self, video: StoredVideo) -> Tensor:
        """(N,) uint8, the bytes of its frames in place."""
        return self._data[video.offsets[0] : video.offsets[-1]]

    def is_intact(self, video: StoredVideo) -> bool:
        """Whether its bytes are those that were written."""
        return zlib.crc32(self.bytes_of(video).numpy().data) == video.crc


def find_shards(folder: Path) -> list[Path]:
    """Shards of a folder, from the oldest to the latest."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def remove_abandoned(folder: Path) -> None:
    """Delete what runs that were killed have left unfinished; those that still write hold a lock on theirs."""
    for unfinished in folder.glob(f"*{_SUFFIX}{PARTIAL}"):
        with open(unfinished, "rb") as file:
            if _lock(file.fileno()):
                unfinished.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    """Whether no other process holds the file; it is ours from now on."""
    try:
        import fcntl
    except ImportError:  # Windows refuses to delete what is open
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {
            "path": pa.binary(),  # names of files may hold bytes that are no text
            "size": pa.int64(),
            "mtime_ns": pa.int64(),
            "reason": pa.string(),
            "length": pa.int64(),
            "fps": pa.float64(),
            "height": pa.int32(),
            "width": pa.int32(),
            "index": pa.list_(pa.int64()),
            "pts": pa.list_(pa.float64()),
            "offsets": pa.list_(pa.int64()),
            "crc": pa.uint32(),
        }
    )


def _to_bytes(videos: Sequence[StoredVideo]) -> bytes:
    import pyarrow as pa

    schema = _schema()
    columns = {name: [getattr(video, name) for video in videos] for name in schema.names}
    columns["path"] = [os.fsencode(path) for path in columns["path"]]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(pa.table(columns, schema=schema))
    return bytes(sink.getvalue())


def _from_bytes(data: npt.NDArray[np.uint8]) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
