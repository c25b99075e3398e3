"""What a frozen part of a backbone made of each video, stored once and read instead of decoding.

One safetensors file a video, in a folder that is named after everything that went into it. A file appears only when
it is complete, carries a checksum, and belongs to one size and modification time of its video; so filling can be
interrupted and resumed, several processes can fill one folder, folds share their files, and a video that changes is
computed anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.atomic import remove_abandoned, write_atomically
from temporal_attn.types import UserError, VideoError, VideoRecord

__all__ = ["CachedFeatures", "FeatureStore", "StoredFeatures"]

_log = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_CHECKSUM = "crc32"
_FIELDS = ("features", "mask", "pts", "frame_index")
_KEPT_OPEN = 4096
"""Files that a process keeps mapped: the system allows some 65,000 maps."""


class DamagedFeatures(Exception):
    """A file that is cut off, or that holds other bytes than were written."""


class StoredFeatures:
    """What is stored of one video; its checksum has been verified.

    Args:
        tensors: features (V, T, ...), mask (V, T), pts (V, T), frame_index (V, T) for V views.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        rows = zip(*(tensor.unbind() for tensor in tensors.values()), strict=True)
        self._views = [dict(zip(tensors, row, strict=True)) for row in rows]

    def __len__(self) -> int:
        """Number of views."""
        return len(self._views)

    def view(self, number: int) -> dict[str, Tensor]:
        """One view: features (T, ...), mask, pts and frame_index (T,), in place: they are not to be changed."""
        return dict(self._views[number])


class FeatureStore:
    """A folder of features, one file a video.

    Args:
        root: Folder for all caches, e.g. ``cache``.
        settings: Everything that the features depend on besides the video: primitives only. They name the sub-folder
            and stand in its ``settings.json``.

    Raises:
        UserError: The folder cannot be written.
    """

    def __init__(self, root: str, settings: Mapping[str, Any]) -> None:
        text = json.dumps(settings, sort_keys=True)
        self.folder = Path(root) / f"features-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        described = self.folder / "settings.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)
            if not described.exists():
                write_atomically(described, (json.dumps(settings, sort_keys=True, indent=2) + "\n").encode())
        except OSError as error:
            raise UserError(f"cache_dir {root}: cannot be written ({error.strerror}); choose another folder") from None

    @property
    def num_bytes(self) -> int:
        """Size of all its files."""
        return sum(path.stat().st_size for path in self.folder.glob(f"*{_SUFFIX}"))

    def path(self, record: VideoRecord) -> Path:
        """The file for a video in its present state.

        Raises:
            VideoError: The video does not exist.
        """
        try:
            status = os.stat(record.path)
        except OSError as error:
            raise VideoError(record.path, error.strerror or "cannot be read") from None
        key = (os.path.abspath(record.path), status.st_size, status.st_mtime_ns, record.start, record.end)
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}{_SUFFIX}"

    def __contains__(self, record: VideoRecord) -> bool:
        """Whether a whole and undamaged file is there. It is read for that; a damaged one is named in the log."""
        try:
            _load(self.path(record))
        except FileNotFoundError:
            return False
        except DamagedFeatures as error:
            _log.warning("features of %s are computed anew: %s", record.path, error)
            return False
        return True

    def write(self, record: VideoRecord, tensors: Mapping[str, Tensor]) -> None:
        """Store a video's views, all or nothing.

        Args:
            record: The video.
            tensors: features (V, T, ...), mask (V, T), pts (V, T), frame_index (V, T) for V views.

        Raises:
            UserError: The folder cannot be written any more.
            VideoError: The video does not exist any more.
        """
        from safetensors.torch import save

        whole = {name: tensors[name].contiguous() for name in _FIELDS}
        try:
            write_atomically(self.path(record), save(whole, {_CHECKSUM: str(_checksum(whole))}))
        except OSError as error:
            reason = "the disk is full" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror})"
            raise UserError(
                f"cache_dir {self.folder.parent}: {reason}; what is stored stays, and another run goes on: free room, "
                "or choose another folder"
            ) from None

    def open(self, record: VideoRecord) -> StoredFeatures:
        """What is stored of a video, mapped into memory, after its checksum has been verified.

        Raises:
            VideoError: It is not stored, or damaged.
        """
        path = self.path(record)
        try:
            return StoredFeatures(_load(path))
        except FileNotFoundError:
            raise VideoError(record.path, f"its features are not in the cache ({path.name} is missing)") from None
        except DamagedFeatures as error:
            raise VideoError(record.path, f"its cached features are damaged: {error}; run again to renew") from None

    def read(self, record: VideoRecord, rng: np.random.Generator) -> dict[str, Tensor]:
        """One view of a video, drawn when there are several, see `StoredFeatures.view`.

        Raises:
            VideoError: It is not stored, or damaged.
        """
        stored = self.open(record)
        return stored.view(int(rng.integers(len(stored))))


class CachedFeatures:
    """Clip source of a `VideoDataset`: features from a store instead of decoded frames.

    Args:
        store: Filled for every record, but for those that cannot be read.
        failed: Why the other videos could not be read, by id.
    """

    def __init__(self, store: FeatureStore, failed: Mapping[str, str]) -> None:
        self.store = store
        self.failed = dict(failed)
        self._open: dict[str, StoredFeatures] = {}

    def __call__(self, record: VideoRecord, rng: np.random.Generator) -> dict[str, Tensor]:
        """Features and their mask, pts and frame_index.

        Raises:
            VideoError: The video could not be read when the cache was filled, or its features are damaged.
        """
        if record.id in self.failed:
            raise VideoError(record.path, self.failed[record.id])
        stored = self._open.get(record.id)
        if stored is None:
            stored = self._open[record.id] = self.store.open(record)
            if len(self._open) > _KEPT_OPEN:
                self._open.pop(next(iter(self._open)))
        return stored.view(int(rng.integers(len(stored))))

    def __reduce__(self) -> tuple[type[CachedFeatures], tuple[FeatureStore, dict[str, str]]]:
        """A worker opens the files itself: memory maps do not travel."""
        return (CachedFeatures, (self.store, self.failed))


def _load(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, mapped into memory.

    Raises:
        FileNotFoundError: There is none.
        DamagedFeatures: It is cut off, or its checksum differs.
    """
    while True:
        before = os.stat(path)
        try:
            return _load_once(path)
        except DamagedFeatures:
            after = os.stat(path)
            if (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns):
                raise
            # Another process has replaced it between the header and the values: safetensors opens a file twice.


def _load_once(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in _FIELDS}
            written = (file.metadata() or {}).get(_CHECKSUM)
    except SafetensorError as error:
        raise DamagedFeatures(f"{path.name} is cut off, or its header is damaged ({error})") from None
    if written != str(_checksum(tensors)):
        raise DamagedFeatures(f"{path.name}: the checksum differs")
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of types, shapes and values."""
    crc = 0
    for name in _FIELDS:
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc
