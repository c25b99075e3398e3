"""Which frames of a video file decided: from a classifier and a path to scores, regions, pictures and a tested verdict.

The backbone sees each frame once; every further question is answered by the model's head on the cached tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.frames import uniform_indices
from datamodules.readers import open_reader
from temporal_attn.keyframes.digest import file_digest
from temporal_attn.keyframes.encoded_video import EncodedVideo, check_step, encode_video
from temporal_attn.keyframes.faithfulness import Faithfulness
from temporal_attn.keyframes.game import FrameGame, FrameScores
from temporal_attn.keyframes.inspection import ClassView, InspectedFrame, Inspection, Stretch
from temporal_attn.keyframes.long_video import MAX_STEP_S, LongVideoScores, owen_values
from temporal_attn.keyframes.regions import REGIONS, heatmaps, region_maps
from temporal_attn.keyframes.removal import resolve_removal
from temporal_attn.keyframes.sanity import check_scores
from temporal_attn.keyframes.scores import METHODS, resolve_method, score_frames
from temporal_attn.keyframes.select import Evidence, select_keyframes, state_verdict, weigh_evidence
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.targets import resolve_target
from temporal_attn.types import UserError

if TYPE_CHECKING:
    from temporal_attn.inference import LoadedClassifier

__all__ = ["InspectOptions", "check_options", "inspect_encoded", "inspect_video", "printable"]


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
    max_step_s: float = MAX_STEP_S


PRESENT = 0.5
"""Probability from which on a model of several labels gives a class to a clip."""


class _Answer(NamedTuple):
    """What the frames say to one question."""

    game: FrameGame
    scores: FrameScores
    long: LongVideoScores | None
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
    max_step_s: float = MAX_STEP_S,
) -> Inspection:
    """Score the frames of a video, choose key frames and test them.

    Args:
        loaded: A classifier of `temporal_attn.inference.load_classifier`.
        path: The video.
        target: The question: ``pred`` (what the model predicts), a class name or index, or a contrast of two classes.
        method: One of `temporal_attn.keyframes.names`.
        removal: What a removed frame becomes: ``drop``, ``nearest`` or ``mean``.
        topk: At most so many key frames.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.
        min_gap_s: Key frames are at least so many seconds apart.
        budget: Head evaluations of methods that sample.
        regions: What shows where in a frame, a name of `temporal_attn.keyframes.regions.REGIONS`, or ``none``.
        classes: So many of the most probable classes are asked about, so that a report can switch between them.
        seed: Source of all samples: of the scores, and of the random frames that key frames are compared with.
        max_step_s: A video in which the frames of the checkpoint's clip would stand further apart, in seconds, is long:
            it is seen in more frames, and ``auto`` takes it by stretches, see `temporal_attn.keyframes.long_video`;
            ``inf`` takes every video as the checkpoint does.

    Raises:
        VideoError: The file cannot be read.
        UserError: A wrong target, method, removal, topk or reader, or a model with one class.
    """
    options = InspectOptions(
        target, method, removal, topk, reader, min_gap_s, budget, regions, classes, seed, max_step_s
    )
    return inspect_encoded(loaded, encode_video(loaded, path, reader, max_step_s), options)


def check_options(options: InspectOptions) -> None:
    """Find out what is wrong for every video before the first one is read.

    Raises:
        UserError: A method, removal or kind of regions that does not exist, or a number that is out of its range.
    """
    resolve_method(options.method)
    resolve_removal(options.removal)
    select_keyframes(torch.zeros(0), [], options.topk, options.min_gap_s)
    if options.regions != "none" and options.regions not in REGIONS:
        raise UserError(f"regions: there is no {options.regions!r}; choose one of {', '.join([*REGIONS, 'none'])}")
    if options.classes < 0:
        raise UserError(f"classes: {options.classes} classes cannot be asked about; give 0 or more")
    if options.budget < 1:
        raise UserError(f"budget: {options.budget} evaluations are none; give 1 or more")
    check_step(options.max_step_s)


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
    check_options(options)
    path, batch = encoded.path, encoded.batch
    how = resolve_method(options.method)

    first = encoded.play(loaded, asked, options.removal)

    def ask(question: int | tuple[int, int] | None) -> _Answer:
        progress("scores")
        game = first.about(question)
        scores, long = _score(game, encoded.stretches, options)
        seconds = batch["pts"][0, game.players].double().tolist()
        known = scores.values if long is None else torch.where(long.looked_into, scores.values, 0)
        chosen = select_keyframes(known, seconds, options.topk, options.min_gap_s)
        evidence = weigh_evidence(game, chosen, options.seed)
        p = loaded.scoring.probabilities(game.full.logits[0].double())
        best = _predicted(game, p)
        verdict = state_verdict(
            evidence,
            loaded.class_names[game.target],
            [seconds[position] for position in chosen],
            (loaded.class_names[best], float(p[best])),
            None if game.against is None else loaded.class_names[game.against],
        )
        if long is not None:
            verdict += f" {long.tell_best(seconds)}"
        return _Answer(game, scores, long, chosen, evidence, verdict)

    answer = ask(asked)
    game, chosen = answer.game, answer.chosen
    positions = game.players.tolist()
    indices = batch["frame_index"][0, positions].tolist()
    with open_reader(path, options.reader) as video:
        engine = f"{video.engine} ({video.note})" if video.note else video.engine
        file_frames, fps = len(video), float(video.fps)
        pts = [float(video.pts[index]) for index in indices]  # without the clip's rounding to float32
        start = float(video.pts[0])
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
        clip=encoded.clip,
        frames=tuple(
            InspectedFrame(index, second, score, rank.get(position), answer.ends(position))
            for position, (index, second, score) in enumerate(
                zip(indices, pts, answer.scores.values.tolist(), strict=True)
            )
        ),
        file_frames=file_frames,
        logits=game.full.logits[0].tolist(),
        probabilities=loaded.scoring.probabilities(game.full.logits[0].double()).tolist(),
        evidence=answer.evidence,
        verdict=answer.verdict,
        pictures=list(batch["video"][0, positions, :3].permute(0, 2, 3, 1).numpy()),
        originals=originals,
        against=game.against,
        removal=options.removal,
        classes=_views(ask, answer, options.classes) if how.signed else (),
        heatmaps=heat,
        regions=made_by,
        faithfulness=_faithfulness(loaded, encoded, answer, options),
        multi_label=game.multi_label,
        file_start=start,
        topk=options.topk,
        min_gap_s=options.min_gap_s,
        stretches=_stretches(answer.long, indices, pts),
        checkpoint_sha256=file_digest(loaded.path),
        file_fps=fps,
        file_seconds=end,
    )


def _predicted(game: FrameGame, p: Tensor) -> int:
    """The class that the model gives to the clip; of several labels the one asked about where it is among them."""
    asked = (game.target, game.target if game.against is None else game.against)
    given = [index for index in asked if game.multi_label and float(p[index]) >= PRESENT]
    return given[0] if given else int(p.argmax())


def _score(
    game: FrameGame, stretches: Sequence[Sequence[int]] | None, options: InspectOptions
) -> tuple[FrameScores, LongVideoScores | None]:
    """Scores by the method; the default takes a long video by stretches."""
    if stretches is None or options.method != "auto":
        return score_frames(game, options.method, budget=options.budget, seed=options.seed), None
    long = owen_values(game, stretches, budget=options.budget, seed=options.seed)
    return FrameScores(long.scores), long


def _stretches(long: LongVideoScores | None, indices: Sequence[int], pts: Sequence[float]) -> list[Stretch]:
    if long is None:
        return []
    scores = long.stretch_scores.tolist()
    return [
        Stretch(
            frames=[indices[player] for player in stretch],
            start=pts[stretch[0]],
            end=pts[stretch[-1]],
            score=score,
            looked_into=bool(long.looked_into[stretch[0]]),
        )
        for stretch, score in zip(long.stretches, scores, strict=True)
    ]


def _faithfulness(
    loaded: LoadedClassifier, video: EncodedVideo, answer: _Answer, options: InspectOptions
) -> Faithfulness | None:
    """The test of the scores: of frames, or of the stretches of a long video, in whose order whole stretches go."""
    game = answer.game
    if len(game) == 1:
        return None
    check = partial(check_scores, encoded=video.encoded, model=loaded.model, budget=options.budget, seed=options.seed)
    if answer.long is None:
        return check(game, answer.scores, resolve_method(options.method))
    # Positions with one number are one player, so that stretches play the same game.
    number = torch.empty(1, len(game), dtype=torch.long)
    for group, stretch in enumerate(answer.long.stretches):
        number[0, list(stretch)] = group
    asked = game.target if game.against is None else (game.target, game.against)
    whole = video._replace(batch={**video.batch, "frame_index": number}).play(loaded, asked, game.removal)
    measured = check(whole, FrameScores(answer.long.stretch_scores, answer.long.stretch_ci), METHODS["shapley"])
    usual = torch.zeros(1, len(game), dtype=torch.bool)
    usual[0, uniform_indices(len(game), loaded.clip["num_frames"])[0]] = True
    classes = [int(logits.argmax()) for logits in (game.full.logits[0], game.play(usual).logits[0])]
    if classes[0] == classes[1]:
        return measured
    seen, trained = (loaded.class_names[index] for index in classes)
    doubt = f"in {len(game)} frames the model sees {seen}, in the {int(usual.sum())} that it is used to {trained}"
    return replace(measured, doubts=(*measured.doubts, doubt))


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
        known = None if answer.long is None else answer.long.looked_into.tolist()
        views.append(ClassView(target, answer.scores.values.tolist(), ci, answer.chosen, answer.verdict, known))
    return views


def _regions(
    game: FrameGame, video: Tensor, method: str, scores: Tensor | None
) -> tuple[NDArray[np.float32] | None, str]:
    """Heat maps (P, h, w), and what made them; None, and why there are none."""
    if method == "none":
        return None, ""
    try:
        maps = region_maps(game, video.to(game.tokens.device), method)
    except UserError as error:  # frames are explained all the same
        return None, f"none ({str(error).removeprefix('regions: ')})"
    heat: NDArray[np.float32] = heatmaps(maps, scores).numpy()
    return heat, f"{method}, one colour scale for the clip"


def _describe(model: torch.nn.Module) -> str:
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    words = f"{type(model).__name__}, {parameters:.1f} M parameters"
    dropout = getattr(model, "frame_dropout", None)
    if dropout is None:
        return words
    return f"{words}, trained with frame dropout {dropout:g}" if dropout else f"{words}, trained without frame dropout"
