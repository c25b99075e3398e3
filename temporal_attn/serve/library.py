"""The videos of a server: those of a folder, and those that were uploaded.

What a client calls a video is a label and never a path: an upload lies in a private folder under a random name, and a
video of the folder is asked for by a number.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from datamodules.files import expand_paths
from datamodules.readers import open_reader
from temporal_attn.inference import LoadedClassifier
from temporal_attn.keyframes.encoded_video import EncodedVideo, encode_video
from temporal_attn.keyframes.inspect import printable
from temporal_attn.serve.limits import Limits
from temporal_attn.types import VideoError

__all__ = ["Library", "TooLarge", "Video"]


class TooLarge(Exception):
    """An upload or a video beyond the limits; the message says which."""


class Video(NamedTuple):
    """A video that can be asked about.

    Args:
        id: What a client calls it.
        name: As people call it.
        path: The file.
    """

    id: str
    name: str
    path: Path


class Library:
    """Videos by id, and their clips after the backbone, so that a further question is quick.

    Args:
        loaded: The classifier.
        limits: Bounds.
        folder: Whose videos can be chosen, None for none.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.
    """

    def __init__(
        self, loaded: LoadedClassifier, limits: Limits, folder: str | Path | None = None, reader: str = "auto"
    ) -> None:
        self._loaded, self._limits, self._reader = loaded, limits, reader
        self._private = tempfile.TemporaryDirectory(prefix="temporal-attn-")
        chosen = [] if folder is None else [Path(path) for path in expand_paths([folder])]
        root = Path(folder) if folder is not None else Path()
        self._chosen = {f"v{n}": Video(f"v{n}", _label(path, root), path) for n, path in enumerate(chosen)}
        self._uploaded: OrderedDict[str, Video] = OrderedDict()
        self._encoded: OrderedDict[str, EncodedVideo] = OrderedDict()
        self._lock = threading.Lock()

    def all(self) -> list[Video]:
        """Videos of the folder, then the uploaded ones."""
        with self._lock:
            return [*self._chosen.values(), *self._uploaded.values()]

    def get(self, video: str) -> Video | None:
        """The video of this id."""
        with self._lock:
            return self._chosen.get(video) or self._uploaded.get(video)

    async def add(self, name: str, chunks: AsyncIterator[bytes]) -> Video:
        """Keep an upload.

        Raises:
            TooLarge: It has more bytes or seconds than allowed.
            VideoError: It is no video.
        """
        from anyio import to_thread

        id_ = secrets.token_hex(12)
        path = Path(self._private.name) / id_
        try:
            size = 0
            with path.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._limits.upload:
                        raise TooLarge(f"the video has more than {self._limits.upload / 1e6:.0f} MB")
                    file.write(chunk)
            video = Video(id_, _label(Path(name.replace("\\", "/")), Path()).rpartition("/")[2][:200] or "video", path)
            await to_thread.run_sync(self._check, video)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            self._uploaded[id_] = video
            while len(self._uploaded) > self._limits.videos:
                oldest, gone = self._uploaded.popitem(last=False)
                self._encoded.pop(oldest, None)
                gone.path.unlink(missing_ok=True)
        return video

    def encoded(self, video: Video) -> EncodedVideo:
        """The clip of a video after the backbone; the last few are kept.

        Raises:
            TooLarge: It is longer than allowed.
            VideoError: It cannot be read.
        """
        with self._lock:
            if video.id in self._encoded:
                self._encoded.move_to_end(video.id)
                return self._encoded[video.id]
        self._check(video)
        try:
            encoded = encode_video(self._loaded, video.path, self._reader)
        except VideoError as error:
            raise VideoError(video.name, error.reason) from None
        with self._lock:
            self._encoded[video.id] = encoded
            while len(self._encoded) > 4:
                self._encoded.popitem(last=False)
        return encoded

    def close(self) -> None:
        """Remove all uploads."""
        self._private.cleanup()

    def _check(self, video: Video) -> None:
        try:
            with open_reader(video.path, self._reader) as reader:
                seconds = float(reader.pts[-1] - reader.pts[0])
        except VideoError as error:
            raise VideoError(video.name, error.reason) from None  # where it lies is nobody's business
        if seconds > self._limits.length:
            raise TooLarge(f"the video lasts {seconds:.0f} s, and {self._limits.length:.0f} s are allowed")


def _label(path: Path, root: Path) -> str:
    """A path as people read it, without what lies above the folder, and without control characters."""
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    return "".join(letter if letter.isprintable() else "?" for letter in printable(shown))
