"""`temporal-attn cache frames` and `temporal-attn cache features`: do once what training would do in every epoch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.decoding import SafeOpener
from datamodules.files import expand_paths
from datamodules.frame_store import FrameSettings, FrameStore, fill_frame_store
from datamodules.manifest import Manifest
from temporal_attn.bench.results import check_writable, write_json
from temporal_attn.experiment import load_experiment
from temporal_attn.types import UserError

__all__ = ["cache_features", "cache_frames"]

_FRAMES_SCHEMA = "temporal-attn/cache-frames/1"
_FEATURES_SCHEMA = "temporal-attn/cache-features/1"


def cache_frames(
    videos: list[str],
    out: str,
    short_side: int = 128,
    encoding: Literal["jpeg", "uint8"] = "jpeg",
    quality: int = 90,
    max_frames: int | None = None,
    max_gb: float | None = None,
    reader: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
    workers: int | None = None,
    decode_timeout: float = 60.0,
    cache_dir: str | None = None,
    verify: bool = False,
    json: str | None = None,
) -> int:
    """Decode videos once, and store small frames of them, from which training reads with ``data.loader.frames``.

    Args:
        videos: Files, folders and glob patterns.
        out: Folder of the store. What it holds already stays, unless the videos have changed since.
        short_side: Pixels of the short side of the stored frames: at least the ``clip.resize`` of the training.
        encoding: ``jpeg``, or ``uint8``: exact, some nine times as large, and several times as fast to read.
        quality: Of the JPEG, 1 to 95.
        max_frames: Most frames of a video, evenly spread; all of them if not given. Some serve uniform and symmetric
            clips of whole videos only, of no more frames.
        max_gb: Most 10⁹ bytes that the store may take; what will not fit is refused, with an estimate, near the start.
        reader: Engine that decodes.
        workers: Videos that are decoded at a time; as many as there are processors if not given.
        decode_timeout: Seconds without progress after which a decoder counts as hanging.
        cache_dir: Where `temporal-attn doctor` has left its manifest, which spares precautions.
        verify: Compare all that is stored with its checksums first, and store anew what differs.
        json: File for the figures, as JSON.

    Returns:
        Exit status: 1 where a video could not be read.

    Raises:
        UserError: An option is out of its range, there is no video, or the store has not enough room.
    """
    if max_gb is not None and not max_gb > 0:
        raise UserError(f"max_gb is {max_gb:g}; it has to be positive")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it has to be positive")
    if json is not None:
        check_writable(json)
    settings = FrameSettings(short_side, encoding, quality, max_frames, reader)
    paths = expand_paths(videos)
    manifest = None if cache_dir is None else Manifest.load(cache_dir)
    start = time.perf_counter()
    filling = fill_frame_store(
        paths,
        out,
        settings,
        lambda: SafeOpener("auto", decode_timeout, manifest),
        None if max_gb is None else int(max_gb * 1e9),
        workers or os.cpu_count() or 1,
        verify,
    )
    for path, reason in filling.failed.items():
        print(f"not stored: {path}: {reason}", file=sys.stderr)
    size = FrameStore.open(out).num_bytes
    seconds = time.perf_counter() - start
    print(
        f"{out}: {filling.stored + filling.known} of {len(paths)} videos, {filling.stored} of them new, "
        f"{_size(size)}, {seconds:.1f} s"
    )
    figures = {"folder": out, "videos": len(paths), "stored": filling.stored, "known": filling.known}
    if json is not None:
        write_json(json, _FRAMES_SCHEMA, **figures, failed=filling.failed, bytes=size, seconds=seconds)
    return int(bool(filling.failed))


def cache_features(
    config: list[str] | str,
    views: int | None = None,
    dtype: Literal["float16", "bfloat16"] | None = None,
    cache_dir: str | None = None,
    json: str | None = None,
    options: Sequence[str] = (),
) -> int:
    """Compute what the frozen part of the backbone makes of every training and validation video, and store it.

    A later `temporal-attn fit` with the same settings trains from there at once.

    Args:
        config: YAML of `temporal-attn fit`; of several, later ones go before earlier ones.
        views: Stored views of a training video; as the YAML says if not given.
        dtype: Likewise.
        cache_dir: Folder of the cache; likewise.
        json: File for the figures, as JSON.
        options: Further words of `temporal-attn fit`, such as ``--data.root ROOT``; they go before the YAML.

    Returns:
        Exit status: 1 where a video could not be read.

    Raises:
        UserError: There is no cache folder, nothing of the backbone is frozen, or the disk is full.
    """
    if json is not None:
        check_writable(json)
    words = {"--features.views": views, "--features.dtype": dtype, "--data.init_args.cache_dir": cache_dir}
    given = [f"{name}={value}" for name, value in words.items() if value is not None]
    # What is computed is computed before the first epoch.
    no_epoch = ("--trainer.max_epochs=0", "--trainer.num_sanity_val_steps=0")
    experiment = load_experiment(config, [*options, *no_epoch, *given])
    data = experiment.data
    if not isinstance(data, VideoDataModule) or data.cache_dir is None:
        raise UserError("cache_dir is not set: give a folder with --cache_dir, or data.cache_dir in the YAML")
    start = time.perf_counter()
    experiment.trainer.fit(experiment.module, datamodule=data)
    seconds = time.perf_counter() - start
    if not experiment.trainer.is_global_zero:
        return 0
    rows = []
    for split, store in experiment.features.stores.items():
        dataset = data.dataset(split)
        failed = experiment.features.failed[split]
        rows.append(
            {
                "split": split,
                "folder": str(store.folder),
                "videos": len(dataset),
                "computed": experiment.features.computed[split],
                "failed": failed,
                "bytes": store.num_bytes,
            }
        )
        for name, reason in failed.items():
            print(f"not stored: {name}: {reason}", file=sys.stderr)
        computed = experiment.features.computed[split]
        print(f"{split}: {len(dataset)} videos, {computed} of them new, {_size(store.num_bytes)} in {store.folder}")
    print(f"{seconds:.1f} s")
    if json is not None:
        write_json(json, _FEATURES_SCHEMA, splits=rows, seconds=seconds)
    return int(any(row["failed"] for row in rows))


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
