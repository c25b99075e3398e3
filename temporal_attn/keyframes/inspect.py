"""Which frames of a video file decided: from a classifier and a path to scores, regions, pictures and a tested verdict.

The backbone sees each frame once; every further question is answered by the model's head on the cached tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.dataset import load_clip
from datamodules.readers import open_reader
from temporal_attn.keyframes.digest import file_digest
from temporal_attn.keyframes.faithfulness import measure_faithfulness
from temporal_attn.keyframes.game import FrameGame, FrameScores
from temporal_attn.keyframes.inspection import ClassView, InspectedFrame, Inspection
from temporal_attn.keyframes.regions import REGIONS, heatmaps, region_maps
from temporal_attn.keyframes.scores import resolve_method, score_frames
from temporal_attn.keyframes.select import Evidence, select_keyframes, state_verdict, weigh_evidence
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.targets import resolve_target
from temporal_attn.types import UserError, VideoBatch

if TYPE_CHECKING:
    from temporal_attn.inference import LoadedClassifier

__all__ = [
    "EncodedVideo",
    "InspectOptions",
    "encode_video",
    "inspect_encoded",
    "inspect_video",
    "printable",
]


class EncodedVideo(NamedTuple):
    """A clip of a file after the backbone: what every question is asked of.

    Args:
        path: The file.
        batch: The clip as the dataset cuts it.
        tokens: (1, T, C') frame tokens on the model's device.
    """

    path: str | Path
    batch: VideoBatch
    tokens: Tensor


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """What an inspection asks, and how; the arguments of `inspect_video`, which says what they mean."""

    target: str | int | tuple[str | int, str | int] = "pred"
    method: str = "auto"
    removal: str = "drop"
    topk: int = 3
    reader: str = "auto"
    min_gap_s: float = 0.0
    budget: int = BUDGET
    regions: str = "hirescam"
    classes: int = 5
    seed: int = 0


class _Answer(NamedTuple):
    """What the frames say to one question."""

    game: FrameGame
    scores: FrameScores
    chosen: list[int]
    evidence: Evidence
    verdict: str

    def ends(self, position: int) -> tuple[float, float] | None:
        """Interval of a frame's score."""
        if self.scores.ci is None:
            return None
        low, high = self.scores.ci[position].tolist()
        return low, high


def inspect_video(
    loaded: LoadedClassifier,
    path: str | Path,
    *,
    target: str | int | tuple[str | int, str | int] = "pred",
    method: str = "auto",
    removal: str = "drop",
    topk: int = 3,
    reader: str = "auto",
    min_gap_s: float = 0.0,
    budget: int = BUDGET,
    regions: str = "hirescam",
    classes: int = 5,
    seed: int = 0,
) -> Inspection:
    """Score the frames of a video, choose key frames and test them.

    Args:
        loaded: A classifier of `temporal_attn.inference.load_classifier`.
        path: The video.
        target: The question: ``pred`` (what the model predicts), a class name or index, or a contrast of two classes.
        method: One of `temporal_attn.keyframes.names`.
        removal: What a removed frame becomes: ``drop``, ``nearest`` or ``mean``.
        topk: At most so many key frames.
        reader: ``auto``, ``decord`` or ``pyav``.
        min_gap_s: Key frames are at least so many seconds apart.
        budget: Head evaluations of methods that sample.
        regions: What shows where in a frame, a name of `temporal_attn.keyframes.regions.REGIONS`, or ``none``.
        classes: So many of the most probable classes are asked about, so that a report can switch between them.
        seed: Source of all samples: of the scores, and of the random frames that key frames are compared with.

    Raises:
        VideoError: The file cannot be read.
        UserError: A wrong target, method, removal, topk or reader, or a model with one class.
    """
    options = InspectOptions(target, method, removal, topk, reader, min_gap_s, budget, regions, classes, seed)
    return inspect_encoded(loaded, encode_video(loaded, path, reader), options)


def encode_video(loaded: LoadedClassifier, path: str | Path, reader: str = "auto") -> EncodedVideo:
    """Cut the clip of a file and let the backbone see it.

    Args:
        loaded: A classifier.
        path: The video.
        reader: ``auto``, ``decord`` or ``pyav``.

    Raises:
        VideoError: The file cannot be read.
    """
    batch = load_clip(path, loaded.clip, reader)
    with torch.inference_mode():
        tokens = loaded.model.encode_frames(batch["video"].to(_device(loaded))).tokens
    return EncodedVideo(path, batch, tokens)


def inspect_encoded(
    loaded: LoadedClassifier,
    encoded: EncodedVideo,
    options: InspectOptions,
    progress: Callable[[str], None] = lambda stage: None,
) -> Inspection:
    """`inspect_video` of a clip that the backbone has seen already: another question costs no second pass.

    Args:
        loaded: The classifier that encoded the clip.
        encoded: The clip.
        options: What to ask, and how.
        progress: Called with the name of a stage before it begins; what it raises ends the inspection.

    Raises:
        VideoError: The file cannot be read any more.
        UserError: A wrong option, or a model with one class.
    """
    asked = resolve_target(options.target, loaded.class_names)
    path, batch = encoded.path, encoded.batch
    how = resolve_method(options.method)

    def ask(question: int | tuple[int, int] | None) -> _Answer:
        progress("scores")
        device = encoded.tokens.device
        mask, pts = batch["mask"].to(device), batch["pts"].to(device)
        game = FrameGame(
            loaded.model, encoded.tokens, mask, pts, batch["frame_index"], target=question, removal=options.removal
        )
        scores = score_frames(game, options.method, budget=options.budget, seed=options.seed)
        seconds = batch["pts"][0, game.players].double().tolist()
        chosen = select_keyframes(scores.values, seconds, options.topk, options.min_gap_s)
        evidence = weigh_evidence(game, chosen, options.seed)
        p = game.full.logits[0].double().softmax(-1)
        best = int(p.argmax())
        verdict = state_verdict(
            evidence,
            loaded.class_names[game.target],
            [seconds[position] for position in chosen],
            (loaded.class_names[best], float(p[best])),
        )
        return _Answer(game, scores, chosen, evidence, verdict)

    answer = ask(asked)
    game, chosen = answer.game, answer.chosen
    positions = game.players.tolist()
    indices = batch["frame_index"][0, positions].tolist()
    with open_reader(path, options.reader) as video:
        engine = f"{video.engine} ({video.note})" if video.note else video.engine
        file_frames, fps = len(video), float(video.fps)
        pts = [float(video.pts[index]) for index in indices]  # without the clip's rounding to float32
        end = float(video.pts[-1]) + (1 / fps if fps > 0 else 0.0)
        originals = list(video.get_batch([indices[position] for position in chosen]))

    progress("regions")
    heat, made_by = _regions(game, batch["video"], options.regions, answer.scores.values if how.signed else None)
    rank = {position: place for place, position in enumerate(chosen, start=1)}
    progress("faithfulness")
    return Inspection(
        video=printable(path),
        checkpoint=printable(loaded.path),
        model=_describe(loaded.model),
        class_names=loaded.class_names,
        target=game.target,
        method=options.method,
        reader=engine,
        clip=loaded.clip,
        frames=tuple(
            InspectedFrame(index, second, score, rank.get(position), answer.ends(position))
            for position, (index, second, score) in enumerate(
                zip(indices, pts, answer.scores.values.tolist(), strict=True)
            )
        ),
        file_frames=file_frames,
        logits=game.full.logits[0].tolist(),
        probabilities=game.full.logits[0].double().softmax(-1).tolist(),
        evidence=answer.evidence,
        verdict=answer.verdict,
        pictures=list(batch["video"][0, positions].permute(0, 2, 3, 1).numpy()),
        originals=originals,
        against=game.against,
        removal=options.removal,
        classes=_views(ask, answer, options.classes) if how.signed else (),
        heatmaps=heat,
        regions=made_by,
        faithfulness=measure_faithfulness(game, answer.scores.values, seed=options.seed) if len(game) > 1 else None,
        checkpoint_sha256=file_digest(loaded.path),
        file_fps=fps,
        file_seconds=end,
    )


def printable(path: str | Path) -> str:
    """A path as text that can be written as UTF-8, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "replace")


def _views(ask: Callable[[int], _Answer], asked: _Answer, classes: int) -> list[ClassView]:
    """The most probable classes but the one asked about, each with its own scores, key frames and verdict."""
    game = asked.game
    order = game.full.logits[0].argsort(descending=True, stable=True)[:classes].tolist()
    both = [] if game.against is None else [game.target, game.against]  # a page needs both ends of a contrast
    views = []
    for target in dict.fromkeys([*both, *order]):
        if target == game.target and game.against is None:
            continue
        answer = ask(target)
        ci = None if answer.scores.ci is None else [(low, high) for low, high in answer.scores.ci.tolist()]
        views.append(ClassView(target, answer.scores.values.tolist(), ci, answer.chosen, answer.verdict))
    return views


def _regions(
    game: FrameGame, video: Tensor, method: str, scores: Tensor | None
) -> tuple[NDArray[np.float32] | None, str]:
    """Heat maps (P, h, w), and what made them; None, and why there are none."""
    if method == "none":
        return None, ""
    if method not in REGIONS:
        raise UserError(f"regions: there is no {method!r}; choose one of {', '.join([*REGIONS, 'none'])}")
    try:
        maps = region_maps(game, video.to(game.tokens.device), method)
    except UserError as error:  # frames are explained all the same
        return None, f"none ({str(error).removeprefix('regions: ')})"
    heat: NDArray[np.float32] = heatmaps(maps, scores).numpy()
    return heat, f"{method}, one colour scale for the clip"


def _device(loaded: LoadedClassifier) -> torch.device:
    return next(loaded.model.parameters()).device


def _describe(model: torch.nn.Module) -> str:
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    words = f"{type(model).__name__}, {parameters:.1f} M parameters"
    dropout = getattr(model, "frame_dropout", None)
    if dropout is None:
        return words
    return f"{words}, trained with frame dropout {dropout:g}" if dropout else f"{words}, trained without frame dropout"
