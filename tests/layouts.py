"""Tiny data sets on disk, in each layout that a datamodule reads: three classes told apart by their colour.

Each writer fills a folder and returns what the datamodule's constructor needs to read it.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from videos import write_video

__all__ = ["COLOURS", "LAYOUTS", "write_clip"]

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
SOURCES = range(6)  # each gives a clip to every class; the last one tests, the one before validates

Options = dict[str, str]


def write_clip(path: Path, label: int) -> None:
    """A video of a class; a path without a suffix becomes a folder of images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix:
        path.write_bytes(_encoded(label, path.suffix))
        return
    from PIL import Image

    path.mkdir()
    for number, frame in enumerate(_frames(label), start=1):
        Image.fromarray(frame).save(path / f"{number:05d}.jpg")


def write_hmdb51(base: Path) -> Options:
    classes = ("brush_hair", "catch", "ride_bike")
    for label, name in enumerate(classes):
        lines = []
        for source in SOURCES:
            stem = f"Film_No.{source}!_{name}_u_cm_np1_fr_med_{source}"
            write_clip(base / "videos" / name / f"{stem}.avi", label)
            lines.append(f"{stem}.avi {2 if source == SOURCES[-1] else 1} \n")
        lines.append(f"Unused_{name}_u_cm_np1_fr_med_0.avi 0 \n")
        _write_text(base / "lists" / f"{name}_test_split1.txt", "".join(lines))
    return {"root": str(base / "videos"), "splits": str(base / "lists")}


def write_kinetics(base: Path) -> Options:
    classes = ("air drumming", "massaging person's head", "tai chi")
    for part in ("train", "validate", "test"):
        rows = [["label", "youtube_id", "time_start", "time_end", "split"]]
        for label, name in enumerate(classes):
            for source in _sources(part):
                rows.append([name, f"-Ab_{source}xyz{label}", str(source), str(source + 10), part])
                write_clip(base / "videos" / name / f"-Ab_{source}xyz{label}_{source:06d}_{source + 10:06d}.mp4", label)
        _write_text(base / "annotations" / f"{part}.csv", _csv(rows))
    return {"root": str(base / "videos"), "annotations": str(base / "annotations")}


def write_ssv2(base: Path) -> Options:
    templates = ("Moving [something] up", "Moving [something] down", "Putting [something] next to [something else]")
    names = [template.replace("[", "").replace("]", "") for template in templates]
    _write_json(base / "labels" / "labels.json", {name: str(label) for label, name in enumerate(names)})
    answers = []
    for part in ("train", "validation", "test"):
        rows = []
        for label, template in enumerate(templates):
            for source in _sources(part):
                video = {"id": str(100 * label + source)}
                rows.append(video if part == "test" else {**video, "label": "Moving a pen", "template": template})
                write_clip(base / "videos" / f"{video['id']}.webm", label)
                answers += [f"{video['id']};{names[label]}\n"] * (part == "test")
        _write_json(base / "labels" / f"{part}.json", rows)
    _write_text(base / "labels" / "test-answers.csv", "".join(answers))
    return {"root": str(base / "videos"), "annotations": str(base / "labels")}


def write_diving48(base: Path) -> Options:
    vocabulary = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "PIKE"], ["Inward", "Dive", "PIKE"]]
    _write_json(base / "annotations" / "Diving48_vocab.json", vocabulary)
    for part, sources in (("train", SOURCES[:-1]), ("test", SOURCES[-1:])):
        rows = []
        for label in range(len(vocabulary)):
            for source in sources:
                name = f"-dive_{source}_{label:05d}"
                rows.append({"vid_name": name, "label": label, "start_frame": 0, "end_frame": 8})
                write_clip(base / "rgb" / f"{name}.mp4", label)
        _write_json(base / "annotations" / f"Diving48_V2_{part}.json", rows)
    return {"root": str(base / "rgb"), "annotations": str(base / "annotations")}


def write_jester(base: Path) -> Options:
    classes = ("Swiping Left", "Swiping Right", "No gesture")
    _write_text(base / "jester-v1-labels.csv", "".join(f"{name}\n" for name in classes))
    for part in ("train", "validation", "test"):
        lines = []
        for label, name in enumerate(classes):
            for source in _sources(part):
                lines.append(f"{100 * label + source}{'' if part == 'test' else f';{name}'}\n")
                write_clip(base / "20bn-jester-v1" / str(100 * label + source), label)
        _write_text(base / f"jester-v1-{part}.csv", "".join(lines))
    return {"root": str(base / "20bn-jester-v1"), "annotations": str(base)}


def write_mmaction(base: Path) -> Options:
    for part, sources in (("train", SOURCES[:-2]), ("val", SOURCES[-2:-1]), ("test", SOURCES[-1:])):
        lines = []
        for label in range(len(COLOURS)):
            for source in sources:
                name = f"day {source}/clip {label}.mp4"
                lines.append(f"{name} {label}\n")
                write_clip(base / "videos" / name, label)
        _write_text(base / f"{part}.txt", "".join(lines))
    _write_text(base / "label_map.txt", "wave\nclap hands\nnod\n")
    lists = {f"{part}_list": str(base / f"{part}.txt") for part in ("train", "val", "test")}
    return {"root": str(base / "videos"), **lists, "label_map": str(base / "label_map.txt")}


def write_table(base: Path) -> Options:
    rows = [["path", "label", "start", "end", "group"]]
    for label, name in enumerate(("pour", "stir", "cut, slice")):
        for source in SOURCES:
            rows.append([f"{name}/Köchin {source}.mp4", name, "0", "0.9", f"cook {source}"])
            write_clip(base / "videos" / rows[-1][0], label)
    _write_text(base / "videos.csv", _csv(rows))
    return {"root": str(base / "videos"), "table": str(base / "videos.csv")}


def write_folder(base: Path) -> Options:
    for label, name in enumerate(("bow", "jump high", "sit")):
        for source in SOURCES:
            write_clip(base / name / f"{name}_g{source:02d}_c01.mp4", label)
    return {"root": str(base)}


LAYOUTS: dict[str, Callable[[Path], Options]] = {
    "Diving48DataModule": write_diving48,
    "FolderDataModule": write_folder,
    "HMDB51DataModule": write_hmdb51,
    "JesterDataModule": write_jester,
    "KineticsDataModule": write_kinetics,
    "MMActionDataModule": write_mmaction,
    "SSv2DataModule": write_ssv2,
    "TableDataModule": write_table,
}
"""Writers by the datamodule that reads what they write."""


def _sources(part: str) -> range:
    if part == "train":
        return SOURCES[:-2]
    return SOURCES[-1:] if part == "test" else SOURCES[-2:-1]


def _frames(label: int) -> np.ndarray:
    noise = np.random.default_rng(label).integers(-30, 30, (8, 48, 64, 3))
    return np.clip(np.asarray(COLOURS[label]) + noise, 0, 255).astype(np.uint8)


@lru_cache
def _encoded(label: int, suffix: str) -> bytes:
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(suffix, "libx264")
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / f"clip{suffix}", _frames(label), fps=8, codec=codec).read_bytes()


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _write_json(path: Path, content: object) -> None:
    _write_text(path, json.dumps(content))


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
