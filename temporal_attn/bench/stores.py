"""What 8 frames of a video cost when they are read from a store, against decord on the original file.

What a store is for is reading many times what was written once, so the read alone is measured: the video is open, and
its checksum verified. What opening costs stands beside it. decord has no such state: it opens the file each time.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from datamodules.cache import FeatureStore
from datamodules.decoding import SafeOpener
from datamodules.frame_store import FrameSettings, FrameStore, fill_frame_store
from datamodules.readers import open_reader
from temporal_attn.bench.timing import paired_ratio
from temporal_attn.bench.video_readers import Clip, Frames, Reference, contestants, mean_cells
from temporal_attn.types import VideoRecord

__all__ = ["store_rows"]

_KIND = "store"
_DECORD = "decord at target size"
_FRAMES = 8
_STORED_FRAMES = 32
_WIDTH = 512
_LEAST_NS = 200_000
"""Of one measurement; what is quicker is read several times in it."""


class _Contestant(NamedTuple):
    """A way to get the frames.

    Args:
        read: Of each file, opened before.
        open_ms: CPU time that opening a file took, checksum included; None where that is part of the read.
        kilobytes: That a video takes; None where nothing is stored.
        exact: Whether all frames are the right ones.
    """

    read: Sequence[Callable[[], object]]
    open_ms: float | None
    kilobytes: float | None
    exact: bool | None


def store_rows(clips: Sequence[Clip], rounds: int, seed: int, short_side: int = 128) -> list[dict[str, Any]]:
    """Measure packed JPEG, uint8 and features on files, paired with decord and interleaved.

    Args:
        clips: The files; which frames are wanted is chosen here.
        rounds: How often each file is read by each.
        seed: Draws the order of turns and the bootstrap.
        short_side: Pixels of the frames.

    Returns:
        Rows for the table of `temporal_attn.bench.decode.bench_decode`, and ``open_ms`` and ``kilobytes`` in each;
        none where decord reads none of the files.
    """
    clips = _readable(clips)
    if not clips:
        return []
    paths = [clip.path for clip in clips]
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "jpeg": _frames(paths, Path(folder) / "jpeg", "jpeg", short_side),
            "uint8": _frames(paths, Path(folder) / "uint8", "uint8", short_side),
            "features": _features(paths, Path(folder)),
            **_decord(clips, short_side),
        }
        costs = _measure(contestants, rounds, seed)
    rows = []
    for name, contestant in contestants.items():
        ratio, interval = paired_ratio(costs.get(_DECORD, {}), costs[name], seed)
        rows.append(
            {
                "kind": _KIND,
                "reader": name,
                "files": len(clips),
                "cpu_ms": 1e3 * float(np.mean(list(costs[name].values()))),
                "ratio_to_decord": ratio,
                "ratio_ci": interval,
                "exact": contestant.exact,
                "open_ms": contestant.open_ms,
                "kilobytes": contestant.kilobytes,
            }
        )
    return rows


def _readable(clips: Sequence[Clip]) -> list[Clip]:
    """Files that decord reads, all where it is not installed: the others have nothing to be measured against."""
    read = contestants().get(_DECORD)
    kept = []
    for clip in clips:
        try:
            if read is not None:
                read(replace(clip, short_side=None))
        except Exception as error:  # whatever other libraries raise
            print(f"stores: without {clip.path}, which decord cannot read: {type(error).__name__}", file=sys.stderr)
        else:
            kept.append(clip)
    return kept


def _measure(contestants: dict[str, _Contestant], rounds: int, seed: int) -> dict[str, dict[tuple[int, int], float]]:
    """CPU seconds of a read, by contestant and (file, round)."""
    draw = random.Random(seed)
    costs: dict[str, dict[tuple[int, int], float]] = {name: {} for name in contestants}
    repeats: dict[str, int] = {}
    for turn in range(-1, rounds):  # the first turn warms up, and says how often a read has to be repeated
        for file in range(len(contestants["jpeg"].read)):
            for name in draw.sample(sorted(contestants), len(contestants)):
                read, times = contestants[name].read[file], repeats.get(name, 1)
                start = time.process_time_ns()
                for _ in range(times):
                    read()
                spent = time.process_time_ns() - start
                if turn < 0:
                    repeats[name] = max(times, _LEAST_NS * times // max(spent, 1_000))
                else:
                    costs[name][file, turn] = 1e-9 * spent / times
    return costs


def _frames(paths: Sequence[str], folder: Path, encoding: Literal["jpeg", "uint8"], short_side: int) -> _Contestant:
    settings = FrameSettings(short_side, encoding, max_frames=_STORED_FRAMES)
    fill_frame_store(paths, folder, settings, SafeOpener)
    store = FrameStore.open(folder)
    reads, is_exact = [], True
    start = time.process_time_ns()
    readers = [store(path) for path in paths]
    opening = time.process_time_ns() - start
    for path, reader in zip(paths, readers, strict=True):
        wanted = _middles(len(reader))
        everything = _decoded(path, _stored_indices(store, path), short_side)
        frames = reader.get_batch(wanted)
        reference = Reference(everything[wanted], mean_cells(everything))
        is_exact = is_exact and _is_right(frames, reference, wanted, encoding)
        reads.append(lambda reader=reader, wanted=wanted: reader.get_batch(wanted))
    return _Contestant(reads, 1e-6 * opening / len(paths), 1e-3 * store.num_bytes / len(paths), is_exact)


def _is_right(frames: Frames, reference: Reference, wanted: Sequence[int], encoding: str) -> bool:
    """Stored pixels have to be those of the decoder; JPEG has to be closer to the wanted frames than to all others."""
    from temporal_attn.bench.decode import shows_right_frames

    if encoding == "uint8":
        return np.array_equal(frames, reference.frames)
    return shows_right_frames(frames, reference, wanted)


def _features(paths: Sequence[str], folder: Path) -> _Contestant:
    """Tokens of a frozen backbone, of a usual width."""
    store = FeatureStore(str(folder), {"width": _WIDTH})
    draw = torch.Generator().manual_seed(0)
    records = [VideoRecord(id=path, path=path, label=None, group=path) for path in paths]
    reads, is_exact, opening = [], True, 0
    for record in records:
        features = torch.randn(1, _FRAMES, _WIDTH, generator=draw).half()
        times = torch.arange(_FRAMES)[None]
        store.write(
            record, {"features": features, "mask": times >= 0, "pts": times.float(), "frame_index": times.long()}
        )
        start = time.process_time_ns()
        stored = store.open(record)
        opening += time.process_time_ns() - start
        is_exact = is_exact and torch.equal(stored.view(0)["features"], features[0])
        reads.append(lambda stored=stored: stored.view(0)["features"].clone())
    return _Contestant(reads, 1e-6 * opening / len(paths), 1e-3 * store.num_bytes / len(paths), is_exact)


def _decord(clips: Sequence[Clip], short_side: int) -> dict[str, _Contestant]:
    """Decord on the same frames, where it is installed."""
    read = contestants().get(_DECORD)
    if read is None:
        return {}
    settings = FrameSettings(max_frames=_STORED_FRAMES)
    reads = []
    for clip in clips:
        stored = settings.choose(len(clip.index))
        own = Clip(clip.path, clip.index, stored[_middles(len(stored))].tolist(), short_side)
        reads.append(lambda own=own: read(own))
    return {_DECORD: _Contestant(reads, None, None, None)}


def _middles(length: int) -> list[int]:
    return [(2 * place + 1) * length // (2 * _FRAMES) for place in range(_FRAMES)]


def _stored_indices(store: FrameStore, path: str) -> list[int]:
    video = store.find(os.path.abspath(path))
    assert video is not None
    indices: list[int] = video.index.tolist()
    return indices


def _decoded(path: str, indices: Sequence[int], short_side: int) -> Frames:
    with open_reader(path, "auto", short_side) as reader:
        return reader.get_batch(indices)
