"""`bench keyframes --suite faith`: whether frame scores of any classifier tell what it does, on videos of any kind.

No key frame is known here, so nothing but the model can judge: what happens to its answer when frames are taken away in
the order of a score.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.dataset import load_clip
from datamodules.files import expand_paths
from datamodules.records import parse_ucf101_name
from temporal_attn.bench.keyframe_clips import ask_methods, look_at_clip, measure_clip
from temporal_attn.bench.keyframe_rows import cross_rows, rows_of
from temporal_attn.bench.keyframe_store import recall
from temporal_attn.inference import LoadedClassifier, load_classifier
from temporal_attn.keyframes.curves import scale_of
from temporal_attn.keyframes.digest import file_digest
from temporal_attn.keyframes.faithfulness import cross_evaluation
from temporal_attn.keyframes.removal import REMOVALS
from temporal_attn.keyframes.sanity import check_scores
from temporal_attn.keyframes.scores import METHODS, FrameGame, score_frames
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.time_mixing import EncodedClip, encode_clip
from temporal_attn.types import UserError, VideoBatch, VideoError

__all__ = ["run_faith"]

VIDEOS = {"quick": 40, "full": 200}
"""Videos that are drawn, by budget."""
_CHECKED = 16
"""Videos on which the checks that ask anew are made."""


class _Video(NamedTuple):
    """One clip after the backbone.

    Args:
        path: The file.
        batch: The clip.
        encoded: The clip after the backbone.
    """

    path: Path
    batch: VideoBatch
    encoded: EncodedClip

    def game(self, removal: str = "drop", target: int | None = None) -> FrameGame:
        """The clip asked about a class, or the one that the model gives to it."""
        batch = self.batch
        return self.encoded.play(batch["mask"], batch["pts"], batch["frame_index"], target=target, removal=removal)


def run_faith(checkpoint: str, root: str, budget: str, runs: Path, seed: int = 0) -> dict[str, Any]:
    """Every method and baseline on the class that the model gives to each video.

    Args:
        checkpoint: ``best.ckpt`` of `temporal-attn fit`.
        root: Folder or glob pattern of videos, of which some are drawn.
        budget: ``quick`` or ``full``.
        runs: Folder where answers are kept; a run goes on from there.
        seed: Draws videos and random orders.

    Returns:
        ``rows`` as in the suite synth, without what needs known key frames; ``removals``; ``models``: one entry with
        the checks; ``verdict``: whether the default beats attention weights and motion energy.

    Raises:
        UserError: The checkpoint is none, or there are fewer than two videos that can be read.
    """
    loaded = load_classifier(checkpoint)
    paths = _draw(root, VIDEOS[budget], seed)
    answers: list[dict[str, Any]] = []
    groups: list[str] = []
    for number, path in enumerate(paths):
        check = len(answers) < _CHECKED
        try:
            video = [str(path), path.stat().st_size, path.stat().st_mtime_ns]
            about = {"checkpoint": file_digest(checkpoint), "video": video, "number": number, "check": check}
            answer = recall(runs, f"faith-{path.stem}", about, partial(_ask, loaded, path, number, check))
        except (OSError, VideoError) as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if not answer:
            print(f"left out: {path}: the clip has one frame, so there is no order to judge", file=sys.stderr)
            continue
        answers.append(answer)
        groups.append(_group(path))
        print(f"asked {number + 1} of {len(paths)}", file=sys.stderr, flush=True)
    if len(answers) < 2:
        raise UserError(f"root: {root} holds {len(answers)} videos that can be read; give two or more")
    found = [{part: _mean_of_groups([answer[part] for answer in answers], groups) for part in ("methods", "cross")}]
    rows = rows_of("faith", found)
    checks = _sum_up([answer["checks"] for answer in answers if answer["checks"] is not None])
    return {
        "rows": rows,
        "removals": cross_rows("faith", found),
        "models": [{"regime": "faith", "videos": len(answers), "groups": len(set(groups)), **checks}],
        "verdict": _verdict(rows),
    }


def _draw(root: str, number: int, seed: int) -> list[Path]:
    paths = [Path(path) for path in expand_paths([root])]
    return sorted(random.Random(seed).sample(paths, min(number, len(paths))))


def _ask(loaded: LoadedClassifier, path: Path, number: int, check: bool) -> dict[str, Any]:
    """Rows of one video: ``methods`` by removal and method, ``cross`` by pair of removals, ``checks`` or None.

    Nothing of a clip of one frame, which has no order to judge.
    """
    batch = load_clip(path, loaded.clip)
    video = _Video(path, batch, encode_clip(loaded.model, batch["video"]))
    first = video.game()
    if len(first) < 2:
        return {}
    target = first.target
    games = {removal: video.game(removal, target) for removal in REMOVALS}
    methods: dict[str, list[float]] = {}
    scores, scales = {}, {}
    for removal, game in games.items():
        # Exact values would set the scale for short clips only; the greedy search sets it for all.
        names = [name for name in METHODS if name != "exact"] if removal == "drop" else ["auto"]
        scored = ask_methods(game, {name: (name, BUDGET) for name in names}, seed=number)
        scores[removal] = scored["auto"].values
        scored |= look_at_clip(game, batch["video"][0, game.players], number)
        scales[removal] = scale_of(game, scores[removal], seed=number)
        measured = measure_clip(game, scored, None, None, scales[removal])
        methods |= {f"{removal}/{name}": row for name, row in measured.items()}
    cross = {
        f"{made}/{tested}": [*areas, *scales[tested].random, *scales[tested].best]
        for (made, tested), areas in cross_evaluation(games, scores).items()
    }
    return {"methods": methods, "cross": cross, "checks": _check(loaded, video, number) if check else None}


def _group(path: Path) -> str:
    """Class and source of a video with a UCF101 name; any other video is a source of its own."""
    try:
        return "{} {}".format(*parse_ucf101_name(path.stem))
    except ValueError:
        return str(path)


def _mean_of_groups(answers: Sequence[dict[str, list[float]]], groups: Sequence[str]) -> dict[str, list[list[float]]]:
    """Means over the videos of each group: what the bootstrap draws, because videos of a group are not independent."""
    members = [[row for row, own in enumerate(groups) if own == group] for group in sorted(set(groups))]
    tables = {name: np.array([answer[name] for answer in answers], dtype=np.float64) for name in answers[0]}
    return {name: [table[member].mean(0).tolist() for member in members] for name, table in tables.items()}


def _check(loaded: LoadedClassifier, video: _Video, number: int) -> dict[str, Any]:
    """Sanity of the default on one video."""
    game = video.game()
    scores = score_frames(game, "auto", seed=number)
    measured = check_scores(game, scores, METHODS["auto"], video.encoded, loaded.model, budget=BUDGET, seed=number)
    return {
        "random_head_tau": measured.random_head_tau,
        "split_half_tau": measured.split_half_tau,
        "doubts": [doubt.partition(":")[0] for doubt in measured.doubts],
    }


def _sum_up(checks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means of the checks, and the doubts that more than a fifth of the videos raise."""
    doubts = Counter(doubt for check in checks for doubt in check["doubts"])
    often = [f"{text} ({n} of {len(checks)} videos)" for text, n in doubts.items() if 5 * n > len(checks)]
    means: dict[str, float | None] = {}
    for key in ("random_head_tau", "split_half_tau"):
        known = [check[key] for check in checks if check[key] is not None]
        means[key] = float(np.mean(known)) if known else None  # nothing is sampled where clips are short
    return {**means, "doubts": often}


def _verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Whether the default's nDel and nIns lie above those of weights and motion, with intervals that do not overlap."""
    of = {row["method"]: row for row in rows if row["removal"] == "drop"}
    behind = [
        f"{key} of {rival}"
        for key in ("ndel", "nins")
        for rival in ("attn_pool", "motion_energy")
        if of["auto"][f"{key}_ci"][0] <= of[rival][f"{key}_ci"][1]
    ]
    if behind:
        return f"auto is not clearly above {', '.join(behind)}: the intervals overlap"
    return "auto is above attn_pool and motion_energy in nDel and nIns; no intervals overlap"
