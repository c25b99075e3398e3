"""Which frames of a video file decided: from checkpoint and path to scores, pictures and a report.

The backbone sees each frame once; every further question is answered by the model's head on the cached tokens.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from datamodules.dataset import load_clip
from datamodules.files import expand_paths
from datamodules.readers import open_reader
from temporal_attn.keyframes.inspection import InspectedFrame, Inspection
from temporal_attn.keyframes.report import GalleryEntry, render_gallery
from temporal_attn.keyframes.scores import METHODS, FrameGame, resolve_target, score_frames
from temporal_attn.keyframes.select import select_keyframes, state_verdict, weigh_evidence
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError, VideoError

if TYPE_CHECKING:
    from temporal_attn.inference import LoadedClassifier

__all__ = ["inspect_video", "inspect_videos", "unique_ids"]


def inspect_video(
    loaded: LoadedClassifier,
    path: str | Path,
    *,
    target: str | int = "pred",
    method: str = "loo+loi",
    topk: int = 3,
    reader: str = "auto",
    min_gap_s: float = 0.0,
    seed: int = 0,
) -> Inspection:
    """Score the frames of a video, choose key frames and test them.

    Args:
        loaded: A classifier of `temporal_attn.inference.load_classifier`.
        path: The video.
        target: The class in question: ``pred`` (what the model predicts), a class name or a class index.
        method: One of `temporal_attn.keyframes.names`.
        topk: At most so many key frames.
        reader: ``auto``, ``decord`` or ``pyav``.
        min_gap_s: Key frames are at least so many seconds apart.
        seed: Source of the random frames that key frames are compared with.

    Raises:
        VideoError: The file cannot be read.
        UserError: A wrong target, method, topk or reader, or a model with one class.
    """
    wanted = resolve_target(target, loaded.class_names)
    batch = load_clip(path, loaded.clip, reader)
    device = next(loaded.model.parameters()).device
    with torch.inference_mode():
        tokens = loaded.model.encode_frames(batch["video"].to(device)).tokens
        game = FrameGame(
            loaded.model,
            tokens,
            batch["mask"].to(device),
            batch["pts"].to(device),
            batch["frame_index"],
            target=wanted,
        )
        scores = score_frames(game, method)
        positions = game.players.tolist()
        indices = batch["frame_index"][0, positions].tolist()
        pts = batch["pts"][0, positions].double().tolist()
        chosen = select_keyframes(scores, pts, topk, min_gap_s)
        evidence = weigh_evidence(game, chosen, seed)
    with open_reader(path, reader) as video:
        engine = f"{video.engine} ({video.note})" if video.note else video.engine
        file_frames = len(video)
        pts = [float(video.pts[index]) for index in indices]  # without the clip's rounding to float32
        originals = list(video.get_batch([indices[position] for position in chosen]))

    logits = game.full.logits[0]
    probabilities = logits.double().softmax(-1).tolist()
    predicted = int(logits.argmax())
    rank = {position: place for place, position in enumerate(chosen, start=1)}
    return Inspection(
        video=printable(path),
        checkpoint=printable(loaded.path),
        model=_describe(loaded.model),
        class_names=loaded.class_names,
        target=game.target,
        method=method,
        reader=engine,
        clip=loaded.clip,
        frames=tuple(
            InspectedFrame(index, second, score, rank.get(position))
            for position, (index, second, score) in enumerate(zip(indices, pts, scores.tolist(), strict=True))
        ),
        file_frames=file_frames,
        logits=logits.tolist(),
        probabilities=probabilities,
        evidence=evidence,
        verdict=state_verdict(
            evidence,
            loaded.class_names[game.target],
            [pts[position] for position in chosen],
            (loaded.class_names[predicted], probabilities[predicted]),
        ),
        pictures=list(batch["video"][0, positions].permute(0, 2, 3, 1).numpy()),
        originals=originals,
    )


def inspect_videos(
    videos: Sequence[str | Path],
    checkpoint: str | Path,
    out: str | Path,
    target: str | int = "pred",
    method: str = "loo+loi",
    topk: int = 3,
    reader: str = "auto",
) -> int:
    """Inspect videos and write their files.

    One video is written to ``out`` itself, several to ``out/<id>`` each, with ``out/index.html`` that leads to them.
    Progress and failures go to stderr, the verdicts to stdout. A video that cannot be read does not stop the others.

    Args:
        videos: Files, folders (searched with all below them) and glob patterns.
        checkpoint: A checkpoint of the training.
        out: Folder for the results, made if missing.
        target: ``pred``, a class name or a class index.
        method: One of `temporal_attn.keyframes.names`.
        topk: At most so many key frames a video.
        reader: ``auto``, ``decord`` or ``pyav``.

    Returns:
        Exit status: 0, or 1 if a video could not be read.

    Raises:
        UserError: A wrong argument, or a folder that cannot be written.
    """
    from temporal_attn.inference import load_classifier

    if method not in METHODS:
        raise UserError(f"method: there is no frame score {method!r}; choose one of {', '.join(METHODS)}")
    paths = [Path(path) for path in expand_paths(videos)]
    folder = writable_folder(out, "--out")
    loaded = load_classifier(checkpoint, device="cuda" if torch.cuda.is_available() else "cpu")

    entries: list[GalleryEntry] = []
    failures: list[tuple[str, str]] = []
    for number, (path, name) in enumerate(zip(paths, unique_ids(paths), strict=True), start=1):
        print(f"[{number}/{len(paths)}] {printable(path)}", file=sys.stderr)
        try:
            inspection = inspect_video(loaded, path, target=target, method=method, topk=topk, reader=reader)
        except VideoError as error:
            failures.append((printable(error.path), error.reason))
            print(f"error: {printable(str(error))}", file=sys.stderr)
            continue
        report = inspection.save(folder if len(paths) == 1 else folder / name)
        entries.append(GalleryEntry.of(name, inspection))
        print(f"{inspection.video}: {inspection.verdict} {report}")
    if len(paths) > 1:
        (folder / "index.html").write_text(render_gallery(entries, failures), encoding="utf-8", newline="\n")
    return 1 if failures else 0


def unique_ids(paths: Sequence[Path]) -> list[str]:
    """A folder name for each file: its stem, made safe for any file system; ``-2`` and so on tell equal ones apart."""
    taken = {"index.html"}
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


def printable(path: str | Path) -> str:
    """A path as text that can be written as UTF-8, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "replace")


def _describe(model: torch.nn.Module) -> str:
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    words = f"{type(model).__name__}, {parameters:.1f} M parameters"
    dropout = getattr(model, "frame_dropout", None)
    if dropout is None:
        return words
    return f"{words}, trained with frame dropout {dropout:g}" if dropout else f"{words}, trained without frame dropout"
