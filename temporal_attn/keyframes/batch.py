"""Inspect one file or thousands: a folder a video, one table and one gallery for all, and no video twice."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from datamodules.files import expand_paths
from temporal_attn.keyframes.conditions import Condition, check_measured, parse_condition
from temporal_attn.keyframes.cuts import check_name
from temporal_attn.keyframes.digest import file_digest
from temporal_attn.keyframes.encoded_video import encode_video
from temporal_attn.keyframes.exports import DEFAULT_FORMATS, FILES, named_formats
from temporal_attn.keyframes.game import ClipError
from temporal_attn.keyframes.inspect import InspectOptions, check_options, inspect_encoded, printable
from temporal_attn.keyframes.inspection import SCHEMA
from temporal_attn.keyframes.long_video import MAX_STEP_S
from temporal_attn.keyframes.pictures import jpeg
from temporal_attn.keyframes.report import GalleryEntry, render_gallery
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.tables import frame_rows, write_parquet
from temporal_attn.keyframes.targets import resolve_target
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError, VideoError

if TYPE_CHECKING:
    from temporal_attn.keyframes.inspection import Inspection

__all__ = ["inspect_videos", "unique_ids"]

_DONE = "done.json"
_POSTER = "poster.jpg"


def inspect_videos(
    videos: Sequence[str | Path],
    checkpoint: str | Path,
    out: str | Path,
    target: str | int = "pred",
    method: str = "auto",
    removal: str = "drop",
    topk: int = 3,
    reader: str = "auto",
    min_gap_s: float = 0.0,
    budget: int = BUDGET,
    regions: str = "hirescam",
    classes: int = 5,
    seed: int = 0,
    max_step_s: float = MAX_STEP_S,
    fail_if: str | None = None,
    formats: str | Sequence[str] = DEFAULT_FORMATS,
) -> int:
    """Inspect videos and write their files.

    One video is written to ``out`` itself, several to ``out/<id>`` each, with ``out/index.html`` that leads to them
    and ``out/scores.parquet``, one row a frame. Films that an earlier run left below ``out`` are
    not taken for videos. Run again, it goes on where it stopped: a video that is done with the
    same file, checkpoint and options is not inspected again. Progress and failures go to stderr, the verdicts to
    stdout. A video that cannot be read does not stop the others.

    Args:
        videos: Files, folders (searched with all below them) and glob patterns.
        checkpoint: A checkpoint of the training.
        out: Folder for the results, made if missing.
        target: ``pred``, a class name, a class index, or a contrast of two classes such as ``Archery-Bowling``.
        method: One of `temporal_attn.keyframes.names`.
        removal: What a removed frame becomes: ``drop``, ``nearest`` or ``mean``.
        topk: At most so many key frames a video.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.
        min_gap_s: Key frames are at least so many seconds apart.
        budget: Head evaluations of methods that sample.
        regions: What shows where in a frame: ``hirescam``, ``grad_cam``, ``cbam_map`` or ``none``.
        classes: So many of the most probable classes can be switched between in a report.
        seed: Source of all samples.
        max_step_s: A video is long where the frames of a clip would stand further apart than so many seconds; it is
            then seen in more frames, and auto takes it by stretches. inf takes every video as one clip.
        fail_if: A condition that makes the exit status 1, such as ``ndel<0.5`` or ``doubts>0``, see
            `temporal_attn.keyframes.conditions`.
        formats: Files of a video: json, csv, html, keyframes, strip, contact-sheet, video, parquet, ffconcat, edl,
            thumbs, or all. A list, or text with commas between.

    Returns:
        Exit status: 0, or 1 if a video could not be read or inspected, or the condition holds for one.

    Raises:
        UserError: A wrong argument, or a folder that cannot be written. What one video alone does not allow, such as a
            method that has too few or too many frames, is that video's failure where there are several.
    """
    from temporal_attn.inference import load_classifier

    formats = named_formats(formats)
    options = InspectOptions(
        target, method, removal, topk, reader, min_gap_s, budget, regions, classes, seed, max_step_s
    )
    check_options(options)
    condition = None if fail_if is None else parse_condition(fail_if)
    if condition is not None:
        check_measured(condition, method)
    folder = writable_folder(out, "--out")
    paths = _inputs(videos, folder)
    loaded = load_classifier(checkpoint, device="cuda" if torch.cuda.is_available() else "cpu")
    resolve_target(target, loaded.class_names)

    several = len(paths) > 1
    finished: list[tuple[Path, str]] = []
    caught = 0
    failures: list[tuple[str, str]] = []
    for number, (path, name) in enumerate(zip(paths, unique_ids(paths), strict=True), start=1):
        place = folder / name if several else folder
        progress = f"[{number}/{len(paths)}] {printable(path)}"
        settings = _settings(path, checkpoint, options, formats)
        if several and _is_done(place, settings, formats):
            print(f"{progress}: done before", file=sys.stderr)
            finished.append((place, name))
            caught += _is_caught(condition, json.loads((place / _DONE).read_text("utf-8"))["scores"])
            continue
        print(progress, file=sys.stderr)
        try:
            if "ffconcat" in formats:
                check_name(path)
            inspection = inspect_encoded(loaded, encode_video(loaded, path, reader, max_step_s), options)
        except VideoError as error:
            failures.append((printable(error.path), error.reason))
            print(f"error: {printable(str(error))}", file=sys.stderr)
            continue
        except ClipError as error:
            if not several:
                raise
            failures.append((printable(path), str(error)))
            print(f"error: {printable(path)}: {error}", file=sys.stderr)
            continue
        _forget(place)
        report = inspection.save(place, formats)
        print(f"{inspection.video}: {inspection.verdict} {report}")
        caught += _is_caught(condition, inspection.scores())
        if several:
            _mark_done(place, settings, inspection)
            finished.append((place, name))
    if several:
        records = [json.loads((place / _DONE).read_text("utf-8")) for place, _ in finished]
        entries = [
            GalleryEntry.from_saved(name, record["scores"], (place / _POSTER).read_bytes(), "html" in formats)
            for (place, name), record in zip(finished, records, strict=True)
        ]
        rows = [
            row
            for (_, name), record in zip(finished, records, strict=True)
            for row in frame_rows(record["scores"], name)
        ]
        write_parquet(rows, folder / "scores.parquet")
        (folder / "index.html").write_text(render_gallery(entries, failures), encoding="utf-8", newline="\n")
    return 1 if failures or caught else 0


def _is_caught(condition: Condition | None, scores: Mapping[str, Any]) -> bool:
    """Whether the condition holds for a video; then it is told, and so is where there was nothing to compare."""
    if condition is None:
        return False
    value = condition.value(scores)
    if value is None:
        print(f"{scores['video']}: {condition} was not tested, this clip has no {condition.measure}", file=sys.stderr)
    if not condition.holds(scores):
        return False
    print(f"error: {scores['video']}: {condition} holds ({value:.3g})", file=sys.stderr)
    return True


def unique_ids(paths: Sequence[Path]) -> list[str]:
    """A folder name for each file: its stem, made safe for any file system; ``-2`` and so on tell equal ones apart."""
    taken = {"index.html", "scores.parquet"}
    ids = []
    for path in paths:
        stem = re.sub(r"[^\w.+-]+", "_", printable(path.stem))[:100].strip("._") or "video"
        name, copy = stem, 1
        while name.casefold() in taken:
            copy += 1
            name = f"{stem}-{copy}"
        taken.add(name.casefold())
        ids.append(name)
    return ids


def _settings(path: Path, checkpoint: str | Path, options: InspectOptions, formats: Sequence[str]) -> dict[str, Any]:
    """What a result depends on: equal settings, equal files."""
    try:
        stat = path.stat()
    except OSError:
        size, changed = None, None
    else:
        size, changed = stat.st_size, stat.st_mtime_ns
    settings = {
        "schema": SCHEMA,
        "video": printable(path),
        "size": size,
        "mtime_ns": changed,
        "checkpoint_sha256": file_digest(checkpoint),
        "options": asdict(options),
        "formats": sorted(formats),
    }
    # As it comes back from the file: a tuple is a list there.
    restored: dict[str, Any] = json.loads(json.dumps(settings))
    return restored


def _inputs(videos: Sequence[str | Path], folder: Path) -> list[Path]:
    """The videos, without films that an earlier run drew below the folder of the results, unless one is asked for."""
    named = {Path(video) for video in videos}
    below = folder.resolve()
    paths = []
    for path in map(Path, expand_paths(videos)):
        if path not in named and path.name == FILES["video"] and below in path.resolve().parents:
            print(f"{printable(path)}: left out, a film among the results", file=sys.stderr)
        else:
            paths.append(path)
    if not paths:
        raise UserError(f"videos: only films of an earlier run were found, below {folder}; name other videos")
    return paths


def _forget(place: Path) -> None:
    """Before files of other settings are written, what says that the old ones are whole has to go."""
    try:
        (place / _DONE).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror}); choose another folder") from None


def _is_done(place: Path, settings: dict[str, Any], formats: Sequence[str]) -> bool:
    try:
        record = json.loads((place / _DONE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    if record.get("settings") != settings or not (place / _POSTER).is_file():
        return False
    return all((place / FILES[name]).is_file() for name in formats if name in FILES)


def _mark_done(place: Path, settings: dict[str, Any], inspection: Inspection) -> None:
    """Last of all files, and whole or not at all, so that whoever is interrupted starts this video again."""
    best = max(range(len(inspection.frames)), key=lambda i: inspection.frames[i].score)
    try:
        (place / _POSTER).write_bytes(jpeg(inspection.pictures[best], quality=75, longest=224))
        unfinished = place / f"{_DONE}.part"
        unfinished.write_text(json.dumps({"settings": settings, "scores": inspection.scores()}), "utf-8")
        os.replace(unfinished, place / _DONE)
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror}); choose another folder") from None
