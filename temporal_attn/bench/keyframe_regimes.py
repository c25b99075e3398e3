"""One trained model on the test clips of a regime: every method on every clip that it classifies right, and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from temporal_attn.bench.keyframe_clips import ask_methods, ends_of, look_at_clip, measure_clip
from temporal_attn.bench.keyframe_models import SmallClassifier, Training, render_clips, train_classifier
from temporal_attn.keyframes.agreement import auroc, kendall_tau
from temporal_attn.keyframes.curves import scale_of
from temporal_attn.keyframes.faithfulness import completeness_gap, cross_evaluation, least_frames, permuted_head
from temporal_attn.keyframes.removal import REMOVALS
from temporal_attn.keyframes.scores import METHODS, FrameGame, score_frames
from temporal_attn.keyframes.shapley import BUDGET

__all__ = ["Test", "evaluate_regime", "methods_of"]

_CHECKED = 16
"""Clips on which the checks that train or ask anew are made."""
_TEST_SEED = 1
"""Of the test videos; training has another, and so other looks."""


@dataclass(frozen=True, slots=True)
class Test:
    """What a trained model is asked.

    Args:
        regime: A key of `datamodules.synthetic.TASKS`.
        frames: T, frames of a clip that are shown; key frames always are.
        groups: Looks to test on.
        clips: Videos of each class in a look.
        exact: Clips with exact Shapley values.
    """

    regime: str
    frames: int
    groups: int
    clips: int
    exact: int


class _Clip(NamedTuple):
    """A test clip: tokens (1, T, C'), pts (1, T), video (T, 3, S, S), key (T,) bool, class index."""

    tokens: Tensor
    pts: Tensor
    video: Tensor
    key: Tensor
    label: int

    def game(self, model: SmallClassifier, removal: str = "drop") -> FrameGame:
        """The clip asked about its true class."""
        return FrameGame(model, self.tokens, pts=self.pts, target=self.label, removal=removal)


def methods_of(exact: bool) -> dict[str, tuple[str, int]]:
    """Rows to methods and budgets: every method of the package, and the default with twice its budget."""
    rows = {name: (name, BUDGET) for name in METHODS if exact or name != "exact"}
    return {**rows, "auto@1088": ("auto", 2 * BUDGET)}


def evaluate_regime(training: Training, folder: Path, test: Test) -> dict[str, Any]:
    """Test a trained model.

    Args:
        training: How the model was trained; it is in the folder.
        folder: Of trained models.
        test: What is asked.

    Returns:
        ``methods``: {removal/method: a row of `COLUMNS` for each explained clip}; ``cross``: {made/tested: rows of
        deletion, insertion and the ends of the scale}; ``checks``: sanity checks; clips, explained, accuracy.
    """
    model = train_classifier(training, folder)
    clips = _clips(model, test, training.seed)
    explained = [clip for clip in clips if int(clip.game(model).full.logits.argmax()) == clip.label]
    methods: dict[str, list[list[float]]] = {}
    cross: dict[str, list[list[float]]] = {}
    for number, clip in enumerate(explained):
        games = {removal: clip.game(model, removal) for removal in REMOVALS}
        scores: dict[str, Tensor] = {}
        scales = {}
        for removal, game in games.items():
            complete = removal == "drop"
            wanted = methods_of(number < test.exact) if complete else {"auto": ("auto", BUDGET)}
            scored = ask_methods(game, wanted, seed=number)
            scores[removal] = scored["auto"].values
            scored |= look_at_clip(game, clip.video, number)
            if complete:
                scored["truth"] = scored["random"]._replace(values=clip.key.float())
            exact = scored["exact"].values if "exact" in scored else None
            scales[removal] = scale_of(game, *([] if exact is None else [exact]), seed=number)
            for name, row in measure_clip(game, scored, clip.key, exact, scales[removal]).items():
                methods.setdefault(f"{removal}/{name}", []).append(row)
        for (made, tested), both in cross_evaluation(games, scores).items():
            cross.setdefault(f"{made}/{tested}", []).append([*both, *ends_of(scales[tested])])
    return {
        "regime": test.regime,
        "seed": training.seed,
        "clips": len(clips),
        "explained": len(explained),
        "methods": methods,
        "cross": cross,
        "checks": _checks(model, clips, explained),
    }


def _clips(model: SmallClassifier, test: Test, seed: int) -> list[_Clip]:
    first = 1000 * seed
    data = render_clips(test.regime, range(first, first + test.groups), test.clips, seed=_TEST_SEED)
    draw = torch.Generator().manual_seed(seed)
    clips = []
    for video, label, key in zip(data.video, data.label.tolist(), data.key, strict=True):
        # Key frames stay, and others by lot; those that stay keep their seconds.
        lot = torch.rand(len(key), generator=draw) + key
        keep = lot.argsort(descending=True)[: test.frames].sort().values
        with torch.no_grad():
            tokens = model.encode_frames(video[keep][None]).tokens
        clips.append(_Clip(tokens, data.pts[keep][None], video[keep], key[keep], label))
    return clips


def _checks(model: SmallClassifier, clips: Sequence[_Clip], explained: Sequence[_Clip]) -> dict[str, float]:
    """Sanity of the default scores on some explained clips, and of each removal on all clips."""
    taus, aurocs, halves, gaps = [], [], [], []
    for number, clip in enumerate(explained[:_CHECKED]):
        game = clip.game(model)
        scores = score_frames(game, "auto", seed=number).values
        # Each clip meets another random head: one head alone may happen to like what the clips share.
        lost = score_frames(clip.game(permuted_head(model, number)), "auto", seed=number).values
        taus.append(kendall_tau(scores, lost))
        aurocs.append(auroc(lost, clip.key))
        first, second = (score_frames(game, "auto", budget=BUDGET // 2, seed=2 * number + half) for half in (0, 1))
        halves.append(kendall_tau(first.values, second.values))
        gaps.append(completeness_gap(game, scores) / max(1.0, abs(game.v_full - game.v_empty)))
    drift = {f"missingness_drift_{removal}": _drift(model, clips, removal) for removal in REMOVALS}
    return {
        "random_head_tau": _mean(taus),
        "random_head_auroc": _mean(aurocs),
        "split_half_tau": _mean(halves),
        "completeness_gap": max(gaps, default=0.0),
        "accuracy": _mean([float(clip.game(model).full.logits.argmax() == clip.label) for clip in clips]),
        **drift,
    }


def _drift(model: SmallClassifier, clips: Sequence[_Clip], removal: str) -> float:
    """Accuracy that is lost when nearly half of the frames are taken away, none of them a key frame."""
    change = []
    for number, clip in enumerate(clips):
        # Key frames are never spared, and the others fall by lot.
        lot = torch.rand(len(clip.key), generator=torch.Generator().manual_seed(number)) + clip.key
        game = clip.game(model, removal)
        right = game.play(torch.stack([game.everyone(), ~least_frames(lot)])).logits.argmax(-1) == clip.label
        change.append(float(right[0]) - float(right[1]))
    return _mean(change)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
