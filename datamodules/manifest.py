"""What a scan of a data set found, file by file: training trusts it instead of what headers say.

The scan decodes every file once, several at a time, each in a process that is killed when it gets no further. Its
results lie as Parquet in a cache folder. They belong to a file's path, size and time of modification, so that a file
that changes is scanned anew, and an interrupted scan goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from datamodules.examination import Examination, Problem, examine_safely
from datamodules.readers.index import VideoIndex
from datamodules.sandbox import Sandbox
from temporal_attn.types import UserError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Manifest", "ManifestEntry", "load_examinations", "load_index", "scan"]

_FOLDER = "manifest-1"
"""Below the cache folder; the number is that of the columns' meaning."""
_PART_FILES = 500
_PART_SECONDS = 60.0
_INCIDENTS = ("hanging", "crashing")
"""Problems that a busy machine may make: the next scan tries such files again, and so does training, in a process."""


@dataclass(frozen=True)
class ManifestEntry:
    """What training needs to know of a file.

    Args:
        problem: What is wrong with it, see `datamodules.examination.Problem`; empty for nothing.
        reason: The same in words.
        index: Stored `VideoIndex`, None for a file that cannot be read.
    """

    problem: Problem
    reason: str
    index: bytes | None

    @property
    def is_incident(self) -> bool:
        """Whether a busy machine may be to blame, so that trying again may end otherwise."""
        return self.problem in _INCIDENTS


class Manifest:
    """What training needs of a scan, in a few arrays, so that workers share it or copy it at no cost.

    Args:
        rows: Path (absolute, without links), size, time of modification, problem, reason and index of each file; of two
            rows of one file the later holds.
    """

    def __init__(self, rows: Iterable[tuple[str, int, int, Problem, str, bytes | None]]) -> None:
        entries = {
            _key(path, size, mtime_ns): ManifestEntry(problem, reason, index)
            for path, size, mtime_ns, problem, reason, index in rows
        }
        keys = np.array(list(entries), dtype=np.uint64)
        order = np.argsort(keys)
        values = list(entries.values())
        indices = [values[place].index or b"" for place in order]
        self._keys = keys[order]
        self._offsets = np.cumsum([0, *map(len, indices)], dtype=np.int64)
        self._indices = np.frombuffer(b"".join(indices), np.uint8)
        self._problems = {
            int(keys[place]): (values[place].problem, values[place].reason) for place in order if values[place].problem
        }

    @classmethod
    def load(cls, cache_dir: str | Path) -> Manifest | None:
        """The manifest in a cache folder, None where no scan was made.

        Raises:
            UserError: Its files are damaged.
        """
        if not _parts(cache_dir):
            return None
        rows = _read(cache_dir, ["path", "size", "mtime_ns", "problem", "reason", "index"])
        return cls((os.fsdecode(row.pop("path")), *row.values()) for row in rows)

    def __len__(self) -> int:
        """Number of files."""
        return len(self._keys)

    def get(self, path: str | Path) -> ManifestEntry | None:
        """What was found in a file, None where it was not scanned in its present state."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        key = _key(os.path.realpath(path), status.st_size, status.st_mtime_ns)
        place = int(np.searchsorted(self._keys, np.uint64(key)))
        if place == len(self._keys) or int(self._keys[place]) != key:
            return None
        index = self._indices[self._offsets[place] : self._offsets[place + 1]].tobytes()
        problem, reason = self._problems.get(key, ("", ""))
        return ManifestEntry(cast(Problem, problem), reason, index or None)


def scan(
    paths: Sequence[str | Path], cache_dir: str | Path, workers: int | None = None, timeout: float = 60.0
) -> list[Examination]:
    """Examine files, store what was found, and show progress on stderr.

    Args:
        paths: The files. Those that the cache folder knows in their present state are not examined again.
        cache_dir: Folder for the manifest.
        workers: Files that are examined at a time; None for one a processor.
        timeout: Seconds that a file may take without getting any further.

    Returns:
        One for each path, in the order given.

    Raises:
        UserError: The folder cannot be written, or its files are damaged.
    """
    real = {path: os.path.realpath(path) for path in map(os.path.abspath, paths)}  # a data set may be reached by links
    wanted = list(dict.fromkeys(real.values()))
    found = {row.path: row for row in load_examinations(cache_dir)}
    waiting = [path for path in wanted if path not in found or not _holds(found[path])]
    with contextlib.closing(_examine_all(waiting, workers or _processors(), timeout)) as examined:
        unsaved: list[Examination] = []
        saved_at = time.monotonic()
        try:
            for row in _with_progress(examined, len(waiting)):
                found[row.path] = row
                unsaved.append(row)
                if len(unsaved) >= _PART_FILES or time.monotonic() - saved_at > _PART_SECONDS:
                    _write(unsaved, cache_dir)
                    unsaved, saved_at = [], time.monotonic()
        finally:  # what an interrupted scan has done is kept
            if unsaved:
                _write(unsaved, cache_dir)
    _merge(cache_dir)
    return [found[path] for path in real.values()]


def load_examinations(cache_dir: str | Path) -> list[Examination]:
    """All that scans have found in the files of a cache folder; of two of one path, the later.

    Raises:
        UserError: The folder's files are damaged.
    """
    latest = {row["path"]: row for row in _read(cache_dir)}
    return [Examination(**{**row, "path": os.fsdecode(row["path"])}) for row in latest.values()]


def load_index(data: bytes | None) -> VideoIndex | None:
    """A stored index, None where there is none or where another version of the program stored it."""
    try:
        return None if data is None else VideoIndex.from_bytes(data)
    except ValueError:
        return None


def _key(path: str, size: int, mtime_ns: int) -> int:
    text = b"%b\0%d\0%d" % (os.fsencode(path), size, mtime_ns)
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def _holds(row: Examination) -> bool:
    """Whether the file is as it was, and looking again would find the same."""
    try:
        status = os.stat(row.path)
    except OSError:
        return False
    is_same = (row.size, row.mtime_ns) == (status.st_size, status.st_mtime_ns)
    is_outdated = row.index is not None and load_index(row.index) is None
    return is_same and not is_outdated and row.problem not in _INCIDENTS


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Examining


def _examine_all(paths: Sequence[str], workers: int, timeout: float) -> Generator[Examination]:
    """Results in whatever order they come, from threads with a child process each."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    results: queue.SimpleQueue[Examination | BaseException] = queue.SimpleQueue()
    for path in paths:
        waiting.put(path)
    sandboxes = [Sandbox(timeout) for _ in range(min(workers, len(paths)))]
    is_over = threading.Event()

    def work(sandbox: Sandbox) -> None:
        with sandbox:
            try:
                while not is_over.is_set():
                    results.put(examine_safely(waiting.get_nowait(), sandbox))
            except queue.Empty:
                return
            except BaseException as error:  # whatever it is, it has to end the scan and not only this thread
                results.put(error)

    threads = [threading.Thread(target=work, args=(sandbox,), daemon=True) for sandbox in sandboxes]
    for thread in threads:
        thread.start()
    try:
        for _ in paths:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def _with_progress(rows: Iterator[Examination], count: int) -> Iterator[Examination]:
    from rich.console import Console
    from rich.progress import track

    if not count:
        return iter(())
    return iter(track(rows, "Decoding every file once", count, console=Console(stderr=True)))


# Storing


def _parts(cache_dir: str | Path) -> list[Path]:
    """Files of the manifest, from the oldest to the latest."""
    return sorted((Path(cache_dir) / _FOLDER).glob("*.parquet"))


def _read(cache_dir: str | Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in _parts(cache_dir):
        try:
            table = pq.read_table(part, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{part}: cannot be read ({error}); delete it, and scan again") from None
        for batch in table.to_batches(max_chunksize=_PART_FILES):
            yield from batch.to_pylist()


def _write(rows: Sequence[Examination], cache_dir: str | Path) -> None:
    columns = [field.name for field in fields(Examination)]
    values = zip(*((os.fsencode(row.path), *astuple(row)[1:]) for row in rows), strict=True)
    _write_part(dict(zip(columns, map(list, values), strict=True)), cache_dir)


def _write_part(columns: dict[str, list[Any]] | pa.Table, cache_dir: str | Path) -> None:
    """A file that appears only when it is complete, and that is read after all that are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = columns if isinstance(columns, pa.Table) else pa.table(columns, schema=_schema())
    part = Path(cache_dir) / _FOLDER / f"{time.time_ns():020d}-{os.getpid()}.parquet"
    unfinished = part.with_suffix(".partial")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(table, unfinished, compression="zstd")
            os.replace(unfinished, part)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cache_dir {cache_dir}: cannot be written ({reason}); choose another folder") from None


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "Problem": pa.string()}
    types = {field.name: kinds.get(str(field.type), pa.binary()) for field in fields(Examination)}
    return pa.schema({**types, "path": pa.binary()})  # names of files may hold bytes that are no text


def _merge(cache_dir: str | Path) -> None:
    """Many small files become one; rows that a later one replaces are dropped."""
    parts = _parts(cache_dir)
    if len(parts) > 1:
        _write(load_examinations(cache_dir), cache_dir)
        for part in parts:
            part.unlink(missing_ok=True)
