"""One clip of a batch inside a Trainer, scored for the class that the module predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor, nn

from temporal_attn.evaluation.scoring import Scoring
from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.inspection import InspectedFrame
from temporal_attn.keyframes.scores import score_frames
from temporal_attn.keyframes.select import Evidence, select_keyframes, weigh_evidence
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.time_mixing import EncodedClip
from temporal_attn.types import UserError, VideoBatch

__all__ = ["ScoredClip", "calibrated", "class_names_of", "model_of", "score_clip", "temperature_of"]


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """One clip of a batch, scored."""

    game: FrameGame
    frames: list[InspectedFrame]
    evidence: Evidence


def score_clip(
    encoded: EncodedClip,
    batch: VideoBatch,
    row: int,
    method: str,
    topk: int,
    removal: str = "drop",
    budget: int = BUDGET,
    seed: int = 0,
) -> ScoredClip:
    """Score one clip of a batch for the class that the model predicts.

    Args:
        encoded: The clip behind the backbone.
        batch: That it is of.
        row: Its place there.
        method: One of `temporal_attn.keyframes.names`.
        topk: At most so many key frames.
        removal: What a removed frame becomes.
        budget: Head evaluations of methods that sample.
        seed: Source of all samples.
    """

    def own(key: str) -> Tensor | None:
        return cast(dict[str, Tensor], batch)[key][row : row + 1] if key in batch else None

    pts, index = own("pts"), own("frame_index")
    game = encoded.play(own("mask"), pts, index, removal=removal)
    scores = score_frames(game, method, budget=budget, seed=seed)
    players = game.players
    seconds = players.double().tolist() if pts is None else pts[0].cpu()[players].double().tolist()
    indices = players.tolist() if index is None else index[0].cpu()[players].tolist()
    chosen = select_keyframes(scores.values, seconds, topk)
    rank = {position: place for place, position in enumerate(chosen, start=1)}
    ends = [None] * len(players) if scores.ci is None else [(low, high) for low, high in scores.ci.tolist()]
    frames = [
        InspectedFrame(index, second, score, rank.get(position), ends[position])
        for position, (index, second, score) in enumerate(zip(indices, seconds, scores.values.tolist(), strict=True))
    ]
    return ScoredClip(game, frames, weigh_evidence(game, chosen, seed))


def calibrated(encoded: EncodedClip, pl_module: pl.LightningModule) -> EncodedClip:
    """The clip, asked for the probabilities that the module gives out, where it says how it scores."""
    scoring = getattr(pl_module, "scoring", None)
    if not isinstance(scoring, Scoring):
        return encoded
    return encoded._replace(temperature=scoring.temperature, multi_label=scoring.multi_label)


def temperature_of(pl_module: pl.LightningModule) -> float | None:
    """By which the module divides its logits; None where it says nothing."""
    temperature = getattr(getattr(pl_module, "scoring", None), "temperature", None)
    return temperature if isinstance(temperature, float) else None


def model_of(pl_module: pl.LightningModule) -> Any:  # noqa: ANN401
    """The model inside the module.

    Raises:
        UserError: There is none whose head can be asked without its backbone.
    """
    model = getattr(pl_module, "model", None)
    if not isinstance(model, nn.Module) or not all(hasattr(model, name) for name in ("encode_frames", "classify")):
        raise UserError(
            f"{type(pl_module).__name__}: has no model with encode_frames and classify, which frame scores ask; use "
            "VideoClassificationModule"
        )
    return model


def class_names_of(pl_module: pl.LightningModule, game: FrameGame) -> Sequence[str]:
    """Of the module; numbers where it knows no names."""
    names: Sequence[str] | None = getattr(pl_module, "class_names", None)
    return names or [str(number) for number in range(game.full.logits.shape[1])]
