"""What a trained model makes of the order of frames: the same clips forwards, backwards and shuffled.

Seconds stay where they are and frames change places, so that a clip that runs backwards looks like one that was filmed
that way. Where each frame comes with a later one, the pair can be turned as well, as it is in a film that runs
backwards, or kept, so that only the order of pairs is asked about.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import VideoDataModule
from datamodules.dataset import load_clip
from temporal_attn.bench.paired import Estimate, signed
from temporal_attn.bench.results import write_json
from temporal_attn.bench.timing import machine
from temporal_attn.evaluation.intervals import bootstrap_over_groups
from temporal_attn.experiment import load_experiment
from temporal_attn.inference import LoadedClassifier, load_classifier
from temporal_attn.types import UserError, VideoBatch, VideoError, VideoRecord

__all__ = ["answers_by_order", "orders", "probe_order"]

SCHEMA = "temporal-attn/bench-training-order/1"

_SHUFFLES = 5
_Array = NDArray[np.float64]


def probe_order(checkpoint: str, config: str, options: Sequence[str], seed: int, json: str | None) -> int:
    """Ask a checkpoint about the validation clips in every order, print and write.

    Args:
        checkpoint: The model.
        config: The YAML of its data.
        options: Further options of `temporal-attn fit`.
        seed: Of the shuffles.
        json: File for the figures.

    Returns:
        Exit status: 1 where a video could not be read; those are left out.

    Raises:
        UserError: The checkpoint or the data set does not exist, or the model does not know the classes.
    """
    loaded = load_classifier(checkpoint)
    data = load_experiment(config, [f"--{option}" for option in options]).data
    if not isinstance(data, VideoDataModule):
        raise UserError(f"config {config}: needs a data set of the package datamodules")
    groups: list[str] = []
    right: list[dict[str, float]] = []
    failed = 0
    for record, label in _labelled(data, loaded.class_names):
        try:
            clip = load_clip(record.path, loaded.clip, record=record)
        except VideoError as error:
            print(f"left out: {error}", file=sys.stderr)
            failed += 1
            continue
        groups.append(record.group)
        right.append(answers_by_order(loaded, clip, label, seed + len(right)))
    if not right:
        raise UserError(f"config {config}: there is no validation video that can be read")
    rows = [_row(name, np.array([own[name] for own in right]), _forwards(right), groups) for name in right[0]]
    _print(rows, len(groups), len(set(groups)))
    if json is not None:
        about = {"checkpoint": checkpoint, "videos": len(groups), "groups": len(set(groups)), "failed": failed}
        write_json(json, SCHEMA, machine=machine("temporal-attn", "torch"), **about, shuffles=_SHUFFLES, orders=rows)
    return int(failed > 0)


@torch.inference_mode()
def answers_by_order(loaded: LoadedClassifier, clip: VideoBatch, label: int, seed: int) -> dict[str, float]:
    """Whether a classifier is right about a clip in each order; of several shuffles the share.

    Args:
        loaded: The classifier.
        clip: A batch of one.
        label: The clip's class.
        seed: Of the shuffles.
    """
    video, mask, pts = clip["video"], clip["mask"], clip["pts"]

    def is_right(tokens: Tensor) -> bool:
        return int(loaded.model.classify(tokens, mask, pts).logits[0].argmax()) == label

    def reordered(video: Tensor) -> Callable[[Tensor], Tensor]:
        """Tokens of a video by the places of its frames: a pass of the backbone for all orders where that will do."""
        if loaded.model.mixes_time:
            return lambda places: loaded.model.encode_frames(video[:, places]).tokens
        tokens = loaded.model.encode_frames(video).tokens
        return lambda places: tokens[:, places]

    turned = {"": video} if video.shape[2] == 3 else {"": video, ", pairs turned": _turned(video)}
    found = {}
    for suffix, frames in turned.items():
        tokens_at = reordered(frames)
        for name, places in orders(mask[0], seed):
            found[f"{name}{suffix}"] = float(np.mean([is_right(tokens_at(own)) for own in places]))
    return found


def orders(mask: Tensor, seed: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Orders of the frames of a clip by name, each as the places (T,) that its frames come from.

    Padding stays where it is.

    Args:
        mask: (T,) bool, True = a real frame.
        seed: Of the shuffles.
    """
    draw = torch.Generator().manual_seed(seed)
    real = mask.nonzero().flatten()

    def placed(own: Tensor) -> Tensor:
        places = torch.arange(len(mask))
        places[real] = own
        return places

    yield "forwards", [placed(real)]
    yield "backwards", [placed(real.flip(0))]
    yield "shuffled", [placed(real[torch.randperm(len(real), generator=draw)]) for _ in range(_SHUFFLES)]


def _turned(video: Tensor) -> Tensor:
    """Pairs of frames (B, T, 6, H, W), the later one first."""
    return torch.cat((video[:, :, 3:], video[:, :, :3]), 2)


def _labelled(data: VideoDataModule, class_names: Sequence[str]) -> Iterator[tuple[VideoRecord, int]]:
    """Validation videos and the index of their class in the model."""
    unknown = [name for name in data.catalogue.class_names if name not in class_names]
    if unknown:
        raise UserError(f"the model does not know the classes {', '.join(unknown)}; leave them out with data.classes")
    for record in data.catalogue.records["val"]:
        if not isinstance(record.label, int):
            raise UserError(f"{record.path}: belongs to several classes; the probe asks which is the first of all")
        yield record, class_names.index(data.catalogue.class_names[record.label])


def _forwards(right: Sequence[dict[str, float]]) -> _Array:
    return np.array([own["forwards"] for own in right])


def _row(name: str, right: _Array, forwards: _Array, groups: Sequence[str]) -> dict[str, Any]:
    gained = right - forwards
    return {
        "order": name,
        "top1": float(right.mean()),
        "ci95": list(bootstrap_over_groups(right, groups)),
        "against_forwards": [float(gained.mean()), *bootstrap_over_groups(gained, groups)],
    }


def _print(rows: Sequence[dict[str, Any]], videos: int, groups: int) -> None:
    print(f"{videos} validation videos in {groups} groups; intervals are 95 % bootstraps over groups\n")
    print(f"| order of frames | top-1 | interval | against forwards, points |\n{'|---' * 4}|")
    for row in rows:
        low, high = (f"{100 * end:.1f}" for end in row["ci95"])
        against = Estimate(*row["against_forwards"])
        said = f"{signed(against.value)} ({signed(against.low)} to {signed(against.high)})"
        print(
            f"| {row['order']} | {100 * row['top1']:.1f} % | {low}–{high} % | "
            f"{'–' if row['order'] == 'forwards' else said} |"
        )
