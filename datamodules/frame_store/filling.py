"""Fill a frame store: each video is decoded once, several at a time, within a limit of room."""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datamodules.decoding import VideoOpener
from datamodules.frame_store.encoding import frame_encoder
from datamodules.frame_store.settings import FrameSettings
from datamodules.frame_store.shard import ShardWriter, StoredVideo, remove_abandoned
from datamodules.frame_store.store import FrameStore
from datamodules.sandbox import Incident
from temporal_attn.types import UnavailableVideo, UserError, VideoError

__all__ = ["Filling", "fill_frame_store"]

_SHARD_BYTES = 1 << 29
_SHARD_SECONDS = 120.0
"""What a run that is killed loses at most, of each of its workers."""
_CHUNK = 32
"""Frames that are decoded at a time: long videos have to fit into memory."""
_SAMPLE = 16
"""Videos that are stored before the room for all is estimated."""
_SPARE_BYTES = 1 << 26
"""Room on the disk that is left to others."""


@dataclass(frozen=True)
class Filling:
    """What became of the videos.

    Args:
        stored: Videos that are stored now and were not before.
        known: Videos that were stored already.
        failed: Why the others could not be read, by path.
    """

    stored: int
    known: int
    failed: dict[str, str]


def fill_frame_store(
    paths: Sequence[str | Path],
    folder: str | Path,
    settings: FrameSettings,
    make_opener: Callable[[], VideoOpener],
    max_bytes: int | None = None,
    workers: int = 1,
    verify: bool = False,
) -> Filling:
    """Store the frames of videos, and show progress on stderr.

    What is stored already stays; an interrupted run goes on where it was. Several processes may fill one store at the
    same time. Videos that cannot be read are stored as such, with the reason, so that training need not try them;
    those whose decoder hung or crashed, whose file could not be opened or for which memory did not suffice are tried
    again by the next run.

    Args:
        paths: The files.
        folder: The store, made if it is missing.
        settings: What is stored; they have to be those of the store.
        make_opener: Makes what opens the files, one for each worker.
        max_bytes: Most bytes that the store may take; None leaves it to the disk.
        workers: Videos that are decoded at a time.
        verify: Whether to compare all that is stored with its checksums first, and store anew what differs.

    Returns:
        What became of the videos.

    Raises:
        UserError: The store is of other settings, cannot be written, or has not enough room: that is estimated from
            the first videos, before the others are stored.
    """
    folder = Path(folder)
    settings.save(folder)
    remove_abandoned(folder)
    store = FrameStore.open(folder)
    damaged = set(store.damaged_videos()) if verify else set()
    wanted = list(dict.fromkeys(map(os.path.abspath, paths)))
    known = {path: video for path in wanted if path not in damaged and (video := store.find(path)) is not None}
    waiting = [path for path in wanted if path not in known]
    room = _Room(folder, max_bytes)
    task = _Task(folder, settings, make_opener, workers, room)
    step = -(-len(waiting) // _SAMPLE) or 1
    sample, rest = waiting[::step], [path for place, path in enumerate(waiting) if place % step]
    failed = _store_all(sample, task)
    if rest:
        room.check(_estimate(sample, rest, settings, FrameStore.open(folder)), len(rest))
        failed |= _store_all(rest, task)
    _remove_outdated(FrameStore.open(folder))
    bad = {path: video.reason for path, video in known.items() if video.reason}
    return Filling(len(waiting) - len(failed), len(known) - len(bad), bad | failed)


class _Full(Exception):
    """There is no more room."""


class _Room:
    """How much may still be written, by all workers together.

    Args:
        folder: The store.
        max_bytes: Most bytes of it, None for all that the disk has.
    """

    def __init__(self, folder: Path, max_bytes: int | None) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._used = sum(path.stat().st_size for path in folder.iterdir())
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Bytes that may still be written."""
        free = shutil.disk_usage(self.folder).free - _SPARE_BYTES
        return free if self.max_bytes is None else min(free, self.max_bytes - self._used)

    def take(self, size: int) -> None:
        """Claim room for some bytes, negative to give it back."""
        with self._lock:
            if size > 0 and size > self.left:
                raise _Full
            self._used += size

    def check(self, estimate: int, videos: int) -> None:
        """Refuse what will not fit."""
        if estimate > self.left:
            raise UserError(f"{self.folder}: {videos} more videos need about {_gb(estimate)}; {self.remedy()}")

    def remedy(self) -> str:
        """How much room is left, and how to make more of it."""
        limit = "" if self.max_bytes is None else f" of max_gb {self.max_bytes / 1e9:g}"
        return (
            f"{_gb(max(self.left, 0))}{limit} is left: raise max_gb, free the disk, or store less with max_frames, "
            "short_side or encoding jpeg in another folder"
        )


@dataclass(frozen=True)
class _Task:
    """What all workers share."""

    folder: Path
    settings: FrameSettings
    make_opener: Callable[[], VideoOpener]
    workers: int
    room: _Room


def _store_all(paths: Sequence[str], task: _Task) -> dict[str, str]:
    """Why videos could not be read, by path; all others are stored."""
    failed: dict[str, str] = {}
    try:
        for path, reason in _with_progress(_results(paths, task), len(paths)):
            if reason:
                failed[path] = reason
    except _Full:
        raise UserError(
            f"{task.folder}: full before all videos were stored; what is stored stays, and another run goes on; "
            f"{task.room.remedy()}"
        ) from None
    except OSError as error:
        raise UserError(
            f"{task.folder}: cannot be written ({error.strerror}); what is stored stays, and another run goes on"
        ) from None
    return failed


def _results(paths: Sequence[str], task: _Task) -> Iterator[tuple[str, str]]:
    """(path, reason) in whatever order they come, from threads: decoders and encoders release the interpreter."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[str, str] | BaseException] = queue.SimpleQueue()
    for path in paths:
        waiting.put(path)
    is_over = threading.Event()

    def work() -> None:
        try:
            with _Worker(task) as worker:
                while not is_over.is_set():
                    path = waiting.get_nowait()
                    results.put((path, worker.store(path)))
        except queue.Empty:
            return
        except BaseException as error:  # whatever it is, it has to end the run and not only this thread
            results.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(task.workers, len(paths)))]
    for thread in threads:
        thread.start()
    try:
        for _ in paths:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:  # what has been stored is kept
        is_over.set()
        for thread in threads:
            thread.join()
    while not results.empty():  # a shard that could not be finished
        result = results.get()
        if isinstance(result, BaseException):
            raise result


class _Worker:
    """Stores video after video in shards of its own."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._open = task.make_opener()
        self._encode = frame_encoder(task.settings.encoding, task.settings.quality)
        self._writer: ShardWriter | None = None

    def store(self, path: str) -> str:
        """Store a video. Returns why it could not be read, empty where it could.

        Raises:
            OSError: The store cannot be written.
        """
        writer = self._ready()
        try:
            status = os.stat(path)
        except OSError as error:
            return error.strerror or "cannot be read"
        video = StoredVideo(path, status.st_size, status.st_mtime_ns)
        start, reason = writer.position, ""
        try:
            video = self._write(video, writer)
        except VideoError as error:
            reason = error.reason
            self._take_back(writer, start)
            if isinstance(error, (Incident, UnavailableVideo)):  # a busy machine or a permission, and not the file
                return reason
            video = replace(video, reason=reason)
        except BaseException:
            self._take_back(writer, start)
            raise
        writer.add(video)
        return reason

    def _write(self, video: StoredVideo, writer: ShardWriter) -> StoredVideo:
        offsets, crc = [writer.position], 0
        with self._open(video.path, self._task.settings.reader, self._task.settings.short_side) as reader:
            length = len(reader)
            index = self._task.settings.choose(length)
            for first in range(0, len(index), _CHUNK):
                for frame in reader.get_batch(index[first : first + _CHUNK].tolist()):
                    data = self._encode(frame)
                    self._task.room.take(len(data))
                    writer.write(data)
                    offsets.append(writer.position)
                    crc = zlib.crc32(data, crc)
            pts, fps, (height, width) = reader.pts[index], reader.fps, reader.size
        return replace(
            video,
            length=length,
            fps=float(fps),
            height=height,
            width=width,
            index=index,
            pts=pts,
            offsets=np.array(offsets, dtype=np.int64),
            crc=crc,
        )

    def _take_back(self, writer: ShardWriter, start: int) -> None:
        self._task.room.take(start - writer.position)
        writer.cut(start)

    def _ready(self) -> ShardWriter:
        writer = self._writer
        if writer and (writer.position > _SHARD_BYTES or time.monotonic() - writer.started > _SHARD_SECONDS):
            self._writer = None
            writer.finish()
        self._writer = self._writer or ShardWriter(self._task.folder)
        return self._writer

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.finish()


def _estimate(sample: Sequence[str], rest: Sequence[str], settings: FrameSettings, store: FrameStore) -> int:
    """Bytes that videos will take, from those that a sample takes.

    Frames grow with the length of a video, and so with its file, unless there is a limit to them.
    """
    stored = [video for path in sample if (video := store.find(path)) is not None]
    taken = sum(int(video.offsets[-1] - video.offsets[0]) for video in stored)
    if settings.max_frames is not None:
        return taken * len(rest) // max(len(stored), 1)
    return taken * sum(map(_size_of, rest)) // max(sum(_size_of(video.path) for video in stored), 1)


def _size_of(path: str) -> int:
    """Bytes of a file, or of all images of a folder; 0 where it cannot be told."""
    try:
        return sum(entry.stat().st_size for entry in os.scandir(path)) if os.path.isdir(path) else os.stat(path).st_size
    except OSError:
        return 0


def _remove_outdated(store: FrameStore) -> None:
    """Delete shards of which nothing is of use any more: damaged ones, and those whose videos have all changed."""
    for path in store.damaged:
        path.unlink(missing_ok=True)
    for number, shard in enumerate(store.shards):
        if not any(store.holds(number, row) for row in range(len(shard))):
            shard.path.unlink(missing_ok=True)


def _with_progress(results: Iterator[tuple[str, str]], count: int) -> Iterator[tuple[str, str]]:
    from rich.console import Console
    from rich.progress import track

    if not count:
        return iter(())
    return iter(track(results, "storing frames", count, console=Console(stderr=True)))


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
