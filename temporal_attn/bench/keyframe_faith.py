"""`bench keyframes --suite faith`: whether frame scores of any classifier tell what it does, on videos of any kind.

No key frame is known here, so nothing but the model can judge: what happens to its answer when frames are taken away in
the order of a score.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.dataset import load_clip
from datamodules.files import scan_videos
from datamodules.records import parse_ucf101_name
from temporal_attn.bench.keyframe_clips import ask_methods, look_at_clip, measure_clip
from temporal_attn.bench.keyframe_rows import cross_rows, rows_of
from temporal_attn.inference import LoadedClassifier, load_classifier
from temporal_attn.keyframes.agreement import kendall_tau
from temporal_attn.keyframes.curves import scale_of
from temporal_attn.keyframes.faithfulness import cross_evaluation, measure_faithfulness, permuted_head
from temporal_attn.keyframes.removal import REMOVALS
from temporal_attn.keyframes.scores import METHODS, FrameGame, score_frames
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.types import UserError, VideoBatch, VideoError

__all__ = ["run_faith"]

VIDEOS = {"quick": 40, "full": 200}
"""Videos that are drawn, by budget."""
_CHECKED = 16
"""Videos on which the checks that ask anew are made."""


class _Video(NamedTuple):
    """One clip after the backbone.

    Args:
        group: Videos of one source share it; its own path where no source is known.
        batch: The clip.
        tokens: (1, T, C').
    """

    group: str
    batch: VideoBatch
    tokens: Tensor

    def game(self, model: Any, removal: str = "drop", target: int | None = None) -> FrameGame:  # noqa: ANN401
        """The clip asked about a class, or the one that the model gives to it."""
        batch = self.batch
        index = batch.get("frame_index")
        return FrameGame(model, self.tokens, batch["mask"], batch["pts"], index, target=target, removal=removal)

    def frames(self, game: FrameGame) -> Tensor:
        """(P, C, H, W) frames of the players."""
        return self.batch["video"][0, game.players]


def run_faith(checkpoint: str, root: str, budget: str, seed: int = 0) -> dict[str, Any]:
    """Every method and baseline on the class that the model gives to each video.

    Args:
        checkpoint: ``best.ckpt`` of `temporal-attn fit`.
        root: Folder of videos, of which some are drawn.
        budget: ``quick`` or ``full``.
        seed: Draws videos and random orders.

    Returns:
        ``rows`` as in the suite synth, without what needs known key frames; ``removals``; ``models``: one entry with
        the checks; ``verdict``: whether the default beats attention weights and motion energy.

    Raises:
        UserError: The checkpoint is none, or the folder holds fewer than two videos that can be read.
    """
    loaded = load_classifier(checkpoint)
    videos = list(_encode(loaded, _draw(Path(root), VIDEOS[budget], seed)))
    if len(videos) < 2:
        raise UserError(f"root: {root} holds {len(videos)} videos that can be read; give a folder with two or more")
    methods: dict[str, list[list[float]]] = {}
    cross: dict[str, list[list[float]]] = {}
    for number, video in enumerate(videos):
        target = video.game(loaded.model).target
        games = {removal: video.game(loaded.model, removal, target) for removal in REMOVALS}
        scores, scales = {}, {}
        for removal, game in games.items():
            # Exact values would set the scale for short clips only; the greedy search sets it for all.
            names = [name for name in METHODS if name != "exact"] if removal == "drop" else ["auto"]
            scored = ask_methods(game, {name: (name, BUDGET) for name in names}, seed=number)
            scores[removal] = scored["auto"].values
            scored |= look_at_clip(game, video.frames(game), number)
            scales[removal] = scale_of(game, scores[removal], seed=number)
            for name, row in measure_clip(game, scored, None, None, scales[removal]).items():
                methods.setdefault(f"{removal}/{name}", []).append(row)
        for (made, tested), areas in cross_evaluation(games, scores).items():
            both = [*areas, *scales[tested].random, *scales[tested].best]
            cross.setdefault(f"{made}/{tested}", []).append(both)
        print(f"asked {number + 1} of {len(videos)}", file=sys.stderr, flush=True)
    groups = [video.group for video in videos]
    found = [{"methods": _mean_of_groups(methods, groups), "cross": _mean_of_groups(cross, groups)}]
    rows = rows_of("faith", found)
    checks = _checks(loaded, videos)
    return {
        "rows": rows,
        "removals": cross_rows("faith", found),
        "models": [{"regime": "faith", "videos": len(videos), "groups": len(set(groups)), **checks}],
        "verdict": _verdict(rows),
    }


def _draw(root: Path, number: int, seed: int) -> list[Path]:
    names = scan_videos(root)
    return [root / name for name in sorted(random.Random(seed).sample(names, min(number, len(names))))]


def _encode(loaded: LoadedClassifier, paths: Sequence[Path]) -> Iterator[_Video]:
    for path in paths:
        try:
            batch = load_clip(path, loaded.clip)
        except VideoError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        with torch.no_grad():
            tokens = loaded.model.encode_frames(batch["video"]).tokens
        yield _Video(_group(path), batch, tokens)


def _group(path: Path) -> str:
    """Class and source of a video with a UCF101 name; any other video is a source of its own."""
    try:
        return "{} {}".format(*parse_ucf101_name(path.stem))
    except ValueError:
        return str(path)


def _mean_of_groups(table: dict[str, list[list[float]]], groups: Sequence[str]) -> dict[str, list[list[float]]]:
    """Means over the videos of each group: what the bootstrap draws, because videos of a group are not independent."""
    members = [[row for row, own in enumerate(groups) if own == group] for group in sorted(set(groups))]
    return {
        name: [np.mean(np.array(rows)[member], axis=0).tolist() for member in members] for name, rows in table.items()
    }


def _checks(loaded: LoadedClassifier, videos: Sequence[_Video]) -> dict[str, Any]:
    """Sanity of the default on some videos, and how many of them raise a doubt."""
    doubts: dict[str, int] = {}
    taus, halves = [], []
    for number, video in enumerate(videos[:_CHECKED]):
        game = video.game(loaded.model)
        scores = score_frames(game, "auto", seed=number).values
        other = video.game(permuted_head(loaded.model, number), target=game.target)
        lost = score_frames(other, "auto", seed=number).values
        pair = tuple(score_frames(game, "auto", budget=BUDGET // 2, seed=2 * number + half).values for half in (0, 1))
        measured = measure_faithfulness(game, scores, complete=True, halves=(pair[0], pair[1]), random_head=lost)
        taus.append(kendall_tau(scores, lost))
        halves.append(kendall_tau(*pair))
        for doubt in measured.doubts:
            text = doubt.partition(":")[0]
            doubts[text] = doubts.get(text, 0) + 1
    checked = len(taus)
    often = [f"{text} ({number} of {checked} videos)" for text, number in doubts.items() if 5 * number > checked]
    return {"random_head_tau": float(np.mean(taus)), "split_half_tau": float(np.mean(halves)), "doubts": often}


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
