"""How the videos of a data set are opened: straight where a scan has shown that it is safe, else in a `Sandbox`.

Everything here has the shape of `datamodules.readers.open_reader`, so that what reads frames does not know which it is.
Torch is not imported: this module runs in the child too.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from datamodules.manifest import Manifest, load_index
from datamodules.readers import EngineChoice, Reader, open_reader, summarise_engines
from datamodules.sandbox import Incident, Sandbox, is_available
from temporal_attn.types import VideoError

__all__ = ["SafeOpener", "SandboxedReader", "VideoOpener"]


class VideoOpener(Protocol):
    """Opens a video by path, engine and short side, as `open_reader` does."""

    def __call__(self, path: str, engine: str = "auto", short_side: int | None = None) -> Reader:
        """An open reader."""
        ...


class SafeOpener:
    """Opens a video the way that is safe for it.

    A file that the manifest knows as good is read in this process, with its stored index; one that it knows as bad
    fails at once. All others are read in a child process, which is killed when it gets no further. So are files on
    which the scan's decoder hung or crashed: a busy machine may have done that. Without a child they fail at once.

    Args:
        sandbox: Whether to use the child: ``auto`` for files that the manifest does not know, True for all, False for
            none.
        timeout: Seconds that opening a file, or reading a clip, may take in the child without getting any further.
        manifest: What a scan found, None without one.

    Raises:
        UserError: The time limit is not positive, or the sandbox is wanted where the system has none.
    """

    def __init__(
        self, sandbox: bool | Literal["auto"] = "auto", timeout: float = 60.0, manifest: Manifest | None = None
    ) -> None:
        self.manifest = manifest
        wanted = is_available() if sandbox == "auto" else sandbox
        self._sandbox = Sandbox(timeout) if wanted else None
        self._trusts_manifest = sandbox == "auto" or not sandbox

    def __call__(self, path: str, engine: str = "auto", short_side: int | None = None) -> Reader:
        """Open a file, see `open_reader`.

        Raises:
            VideoError: It cannot be read, or a scan found so.
        """
        entry = None if self.manifest is None else self.manifest.get(path)
        if entry is not None and entry.index is None and not (entry.is_incident and self._sandbox):
            raise VideoError(path, f"{entry.reason} (as the manifest says)")
        index = None if entry is None else load_index(entry.index)
        if self._sandbox is not None and (index is None or not self._trusts_manifest):
            return SandboxedReader(self._sandbox, path, engine, short_side, None if entry is None else entry.index)
        return open_reader(path, engine, short_side, index=index)

    def summarise(self, paths: Sequence[str], engine: str) -> Counter[EngineChoice]:
        """How many files each engine reads, see `datamodules.readers.summarise_engines`: headers can hang too."""
        if self._sandbox is None or not paths:
            return summarise_engines(paths, engine)
        try:
            found: Counter[EngineChoice] = self._sandbox.call(paths[0], summarise_engines, list(paths), engine)
        except Incident as incident:
            return Counter({EngineChoice("none", f"one of the headers cannot be read: {incident.reason}"): len(paths)})
        return found


class _Opened(TypedDict):
    """What the child says of a file that it opened."""

    engine: str
    note: str
    fps: float
    pts: npt.NDArray[np.float64]
    size: tuple[int, int]


class SandboxedReader:
    """A `Reader` whose decoder lives in a child process.

    Args:
        sandbox: The child. It reads one file at a time: opening the next one closes this.
        path: The file.
        engine: See `open_reader`.
        short_side: Likewise.
        index: Stored index of the file, None without one.

    Raises:
        Incident: Opening hangs or crashes.
        VideoError: The file cannot be read.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        path: str,
        engine: str = "auto",
        short_side: int | None = None,
        index: bytes | None = None,
    ) -> None:
        self._sandbox = sandbox
        self.path = path
        opened: _Opened = sandbox.call(path, open_here, path, engine, short_side, index)
        self.engine = opened["engine"]
        self.note = opened["note"]
        self.fps = opened["fps"]
        self.pts = opened["pts"]
        self.size = opened["size"]

    def __len__(self) -> int:
        return len(self.pts)

    def get_batch(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Frames by index, see `datamodules.readers.base.BaseReader.get_batch`.

        Raises:
            Incident: Decoding hangs or crashes.
        """
        frames: npt.NDArray[np.uint8]
        frames, self.pts = self._sandbox.call(self.path, read_here, self.path, list(indices))
        return frames

    def close(self) -> None:
        """Let the child close the file."""
        with contextlib.suppress(VideoError):  # then the child is gone, and the file with it
            self._sandbox.call(self.path, close_here)

    def __enter__(self) -> SandboxedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# In the child

_open: dict[str, Reader] = {}
"""The file that is open, by its path: one at most."""


def open_here(path: str, engine: str, short_side: int | None, index: bytes | None) -> _Opened:
    """Open a file in this process, and close the one before it."""
    close_here()
    reader = open_reader(path, engine, short_side, index=load_index(index))
    _open[path] = reader
    return _Opened(engine=reader.engine, note=reader.note, fps=reader.fps, pts=reader.pts, size=reader.size)


def read_here(path: str, indices: list[int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Frames of the open file, and the times of all its frames as they are known after that.

    Raises:
        VideoError: The file is not open: the process that opened it is gone.
    """
    if path not in _open:
        raise VideoError(path, "its decoding process was lost between opening and reading")
    return _open[path].get_batch(indices), _open[path].pts


def close_here() -> None:
    """Close the open file."""
    while _open:
        _open.popitem()[1].close()
