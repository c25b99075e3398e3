"""What a frozen part of a backbone made of each video, stored once and read instead of decoding.

One safetensors file a video, in a folder that is named after everything that went into it. A file appears only when
it is complete, and belongs to one size and modification time of its video; so filling can be interrupted and resumed,
folds share their files, and a video that changes is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from temporal_attn.types import UserError, VideoError, VideoRecord

__all__ = ["CachedFeatures", "FeatureStore"]


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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "settings.json").exists():
                (self.folder / "settings.json").write_text(json.dumps(settings, sort_keys=True, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cache_dir {root}: cannot be written ({error.strerror}); choose another folder") from None

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
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.safetensors"

    def __contains__(self, record: VideoRecord) -> bool:
        """Whether a whole file is there; a damaged one counts as absent."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(record), "pt"):  # reads the header and compares it with the size
                return True
        except (FileNotFoundError, SafetensorError):
            return False

    def write(self, record: VideoRecord, tensors: Mapping[str, Tensor]) -> None:
        """Store a video's views, all or nothing.

        Args:
            record: The video.
            tensors: features (V, T, ...), mask (V, T), pts (V, T), frame_index (V, T) for V views.
        """
        from safetensors.torch import save_file

        path = self.path(record)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def read(self, record: VideoRecord, rng: np.random.Generator) -> dict[str, Tensor]:
        """One view of a video, drawn when there are several: features (T, ...), mask, pts, frame_index (T,)."""
        from safetensors import SafetensorError, safe_open

        path = self.path(record)
        try:
            with safe_open(path, "pt") as file:
                view = int(rng.integers(file.get_slice("mask").get_shape()[0]))
                return {name: file.get_slice(name)[view] for name in ("features", "mask", "pts", "frame_index")}
        except (FileNotFoundError, SafetensorError) as error:
            raise VideoError(record.path, f"its cached features {path.name} cannot be read: {error}") from None


class CachedFeatures:
    """Clip source of a `VideoDataset`: features from a store instead of decoded frames.

    Args:
        store: Filled for every record, but for those that cannot be read.
        failed: Why the other videos could not be read, by id.
    """

    def __init__(self, store: FeatureStore, failed: Mapping[str, str]) -> None:
        self.store = store
        self.failed = dict(failed)

    def __call__(self, record: VideoRecord, rng: np.random.Generator) -> dict[str, Tensor]:
        """Features and their mask, pts and frame_index.

        Raises:
            VideoError: The video could not be read when the cache was filled.
        """
        if record.id in self.failed:
            raise VideoError(record.path, self.failed[record.id])
        return self.store.read(record, rng)
