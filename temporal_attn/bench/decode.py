"""`temporal-attn bench decode`: what 8 frames of a video cost, by who reads them and what kind of file it is.

Every reader opens every file anew and takes the same frames. All of them take turns on each file in each round, in an
order that is drawn, so that whatever else the machine does hits all alike; ratios are of pairs from one round. CPU time
is that of all threads: a reader that is quick because it takes more cores has gained a training run nothing.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.files import scan_videos
from datamodules.readers import scan_video
from temporal_attn.bench.decode_workers import compare_workers
from temporal_attn.bench.results import check_writable, write_json
from temporal_attn.bench.stores import store_rows
from temporal_attn.bench.timing import machine, paired_ratio
from temporal_attn.bench.video_files import encode_files, kind_of
from temporal_attn.bench.video_readers import Clip, Frames, Reference, contestants, mean_cells, sequential_reference
from temporal_attn.types import UserError, VideoError

__all__ = ["SCHEMA", "bench_decode", "shows_right_frames"]

SCHEMA = "temporal-attn/bench-decode/1"

_FRAMES = 8
_SHORT_SIDE = 128
_MOST_FILES = 200
_BASELINE = "decord at target size"
_ALL = "all"


class _Cost(NamedTuple):
    """CPU seconds of one reader on one file in one round."""

    kind: str
    reader: str
    file: int
    round: int
    seconds: float


def bench_decode(root: str | None = None, json: str | None = None, rounds: int = 5, seed: int = 0) -> int:
    """Compare readers of video: CPU time for 8 uniform frames at short side 128, and whether they are the right ones.

    Args:
        root: Folder of videos, of which up to 200 are drawn; without it files of several kinds are encoded first.
        json: File for the results, as JSON.
        rounds: How often each reader reads each file.
        seed: Draws files, the order of turns and the bootstrap.

    Returns:
        Exit status: 1 where a reader of this package gave a wrong frame, or none.

    Raises:
        UserError: rounds is not positive, root holds no video that can be read, or the JSON file cannot be written.
    """
    if rounds < 1:
        raise UserError(f"rounds: {rounds}; give a positive number")
    if json is not None:
        check_writable(json)
    with tempfile.TemporaryDirectory() as folder:
        paths = encode_files(Path(folder), seed=seed) if root is None else _draw_files(Path(root), seed)
        clips = _clips(paths)
        if not clips:
            raise UserError(f"root: no video in {root} can be read")
        readers = contestants()
        costs, exact = _measure(clips, readers, rounds, seed)
        rows = _rows(costs, exact, seed)
        rows.append(compare_workers(clips, rounds, seed))
        rows += store_rows(clips, rounds, seed)
    _print_table(rows)
    if json is not None:
        described = machine("av", "decord", "numpy", "opencv-python", "torch", "torchvision")
        write_json(json, SCHEMA, machine=described, rows=rows)
    return int(any(row["exact"] is False for row in rows if row["reader"].startswith(("auto", "pyav"))))


def shows_right_frames(frames: Frames, reference: Reference, wanted: Sequence[int]) -> bool:
    """Whether frames are those wanted, and not others of the video.

    Readers convert colours and round differently, so frames need not be equal: no other frame of the video may be
    closer than the wanted one.

    Args:
        frames: (T, H, W, 3) uint8 of the reader.
        reference: Of the file, at the same size.
        wanted: T display indices.
    """
    if np.array_equal(frames, reference.frames):
        return True
    if frames.shape != reference.frames.shape:
        return False
    for cells, index in zip(mean_cells(frames), wanted, strict=True):
        distances = ((reference.cells - cells) ** 2).mean(axis=(1, 2, 3))
        if distances[index] > distances.min():
            return False
    return True


def _clips(paths: Sequence[Path]) -> list[Clip]:
    clips = []
    for path in paths:
        try:
            index = scan_video(path)
        except VideoError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        wanted = [int((place + 0.5) * len(index) / _FRAMES) for place in range(_FRAMES)]
        clips.append(Clip(str(path), index, wanted, _SHORT_SIDE))
    return clips


def _draw_files(root: Path, seed: int) -> list[Path]:
    names = scan_videos(root)
    if len(names) > _MOST_FILES:
        names = sorted(random.Random(seed).sample(names, _MOST_FILES))
    return [root / name for name in names]


def _measure(
    clips: Sequence[Clip], readers: dict[str, Callable[[Clip], Frames | None]], rounds: int, seed: int
) -> tuple[list[_Cost], dict[tuple[str, str], bool]]:
    """Costs, and whether each reader was exact on all files of each kind; readers that give no frames are not in it."""
    draw = random.Random(seed)
    costs: list[_Cost] = []
    exact: dict[tuple[str, str], bool] = {}
    for clip in clips:
        kind, whole = kind_of(clip.index), replace(clip, short_side=None)  # readers scale in ways of their own
        reference = sequential_reference(whole)
        for name, reader in readers.items():
            try:
                frames = reader(whole)
                right = frames is None or shows_right_frames(frames, reference, clip.wanted)
            except Exception as error:  # whatever other libraries raise
                print(f"{name}: {clip.path}: {type(error).__name__}", file=sys.stderr)
                frames, right = None, False
            if frames is not None or not right:
                exact[kind, name] = exact.get((kind, name), True) and right
    for turn in range(-1, rounds):  # the first turn warms up
        for file, clip in enumerate(clips):
            for name in draw.sample(sorted(readers), len(readers)):
                start = _cpu_seconds()
                try:
                    readers[name](clip)
                except Exception:  # named above
                    continue
                if turn >= 0:
                    costs.append(_Cost(kind_of(clip.index), name, file, turn, _cpu_seconds() - start))
    return costs, exact


def _cpu_seconds() -> float:
    """Of all threads of this process and, where the system tells, of children that have ended."""
    try:
        import resource
    except ImportError:  # Windows
        return time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _rows(costs: Sequence[_Cost], exact: dict[tuple[str, str], bool], seed: int) -> list[dict[str, Any]]:
    table: dict[str, dict[str, dict[tuple[int, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for cost in costs:
        table[cost.kind][cost.reader][cost.file, cost.round] = cost.seconds
        table[_ALL][cost.reader][cost.file, cost.round] = cost.seconds
    for kind, name in list(exact):
        exact[_ALL, name] = exact.get((_ALL, name), True) and exact[kind, name]
    rows = []
    for kind, readers in sorted(table.items(), key=lambda item: (item[0] == _ALL, item[0])):
        mean = {name: float(np.mean(list(seconds.values()))) for name, seconds in readers.items()}
        for name in sorted(readers, key=mean.__getitem__):
            rivals = [other for other in readers if other != name and exact.get((kind, other))]
            best = min(rivals, key=mean.__getitem__, default=None)
            ratio, interval = paired_ratio(readers.get(_BASELINE, {}), readers[name], seed)
            ratio_to_best, interval_to_best = paired_ratio(readers[best] if best else {}, readers[name], seed)
            rows.append(
                {
                    "kind": kind,
                    "reader": name,
                    "files": len({file for file, _ in readers[name]}),
                    "cpu_ms": 1e3 * mean[name],
                    "ratio_to_decord": ratio,
                    "ratio_ci": interval,
                    "exact": exact.get((kind, name)),
                    "best_other_exact": best,
                    "ratio_to_best": ratio_to_best,
                    "ratio_to_best_ci": interval_to_best,
                }
            )
    return rows


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{_FRAMES} uniform frames at short side {_SHORT_SIDE}, file opened anew")
    for name in ("kind", "reader"):
        table.add_column(name)
    for name in ("files", "CPU ms", "× decord", "95 %", "exact"):
        table.add_column(name, justify="right")
    for row in rows:
        ratio = row["ratio_to_decord"] or row.get("ratio_to_one_worker")
        low, high = row["ratio_ci"] or (None, None)
        table.add_row(
            row["kind"],
            row["reader"],
            str(row["files"]),
            "" if row["cpu_ms"] is None else f"{row['cpu_ms']:.1f}",
            "" if ratio is None else f"{ratio:.2f}",
            "" if low is None else f"{low:.2f} to {high:.2f}",
            {True: "yes", False: "no", None: ""}[row["exact"]],
        )
    Console(width=120 if not sys.stdout.isatty() else None).print(table)
