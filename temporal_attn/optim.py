"""AdamW with a rate for each depth of the backbone; warmup, and a cosine or a constant rate, in optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from temporal_attn.attention.insertion import HOME
from temporal_attn.chain import parts_above
from temporal_attn.model import VideoClassifier

__all__ = ["adamw", "parameter_groups", "warmup_constant", "warmup_cosine"]


class _Kind(NamedTuple):
    """What the parameters of a group have in common; sorts as the groups do.

    Args:
        below: Parts of the backbone between them and its top; -1 for everything that is new.
        decayed: Whether weight decay applies.
        later: Whether they are frozen now and train later.
    """

    below: int
    decayed: bool
    later: bool


def parameter_groups(
    model: VideoClassifier,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    frozen: bool = False,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameters in groups: backbone, part by part, or not; decayed or not; training now or later.

    Attention inserted into the backbone is new and takes the head's rate. Only matrices and convolutions are decayed:
    to shrink biases, normalisation weights, queries and positions regularises nothing.

    The deeper a part of the backbone lies, the more general is what it has learned, and the slower it learns: the
    rate of a part is ``backbone_lr`` · ``layer_decay`` ^ (number of parts above it). Parts are stages, or the blocks of
    a transformer.

    Papers: Clark et al., "ELECTRA", ICLR 2020 (layer-wise rates). https://arxiv.org/abs/2003.10555; Bao et al.,
        "BEiT", ICLR 2022 (in vision). https://arxiv.org/abs/2106.08254

    Args:
        model: The classifier.
        lr: Rate of everything that is new.
        backbone_lr: Rate of what was pretrained; with ``layer_decay``, of its last part.
        weight_decay: For matrices and convolutions.
        frozen: Whether to include what is frozen now, because it will train later; without a gradient it stays. Such
            groups carry ``later`` = True.
        layer_decay: Ratio of the rates of neighbouring parts, in (0, 1]; 1 gives all of them the same.

    Raises:
        UserError: ``layer_decay`` is below 1 for a backbone whose layers are not known, see `parts_above`.
    """
    above = parts_above(model.backbone.net) if layer_decay != 1 else {}
    buckets: dict[_Kind, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not (parameter.requires_grad or frozen):
            continue
        old = name.startswith("backbone.") and f".{HOME}." not in name
        below = above.get(name.removeprefix("backbone.net."), 0) if old else -1
        decayed = parameter.ndim > 1 and "weight" in name.rpartition(".")[2]
        buckets.setdefault(_Kind(below, decayed, not parameter.requires_grad), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr if kind.below < 0 else backbone_lr * layer_decay**kind.below,
            "weight_decay": weight_decay if kind.decayed else 0.0,
            "name": _name(list(model.backbone.parts), kind, bool(above)),
            "later": kind.later,
        }
        for kind, parameters in sorted(buckets.items(), reverse=True)
    ]


def _name(parts: list[str], kind: _Kind, layered: bool) -> str:
    place = "head" if kind.below < 0 else "backbone"
    if layered and kind.below >= 0:
        place += f".{parts[-1 - kind.below]}" if parts else f".{kind.below}_below_top"
    return place + ("" if kind.decayed else "_no_decay") + ("_later" if kind.later else "")


def adamw(
    model: VideoClassifier,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    frozen: bool = False,
    layer_decay: float = 1.0,
) -> Optimizer:
    """AdamW over `parameter_groups`.

    Paper: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
        https://arxiv.org/abs/1711.05101
    """
    return AdamW(parameter_groups(model, lr, backbone_lr, weight_decay, frozen, layer_decay))


def warmup_cosine(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, final: float = 0.01, freed_at: int = 0
) -> LambdaLR:
    """Linear warmup, then half a cosine down to ``final`` times the rate.

    Paper: Loshchilov and Hutter, "SGDR", ICLR 2017. https://arxiv.org/abs/1608.03983

    Args:
        optimizer: Its groups keep the ratio of their rates.
        warmup_steps: Steps of linear warmup.
        total_steps: Steps of the whole training; the rate stays at its end afterwards.
        final: Share of the rate at the end.
        freed_at: Step at which groups with ``later`` begin to train: warmup and cosine of theirs start there, so that
            pretrained weights do not meet the full rate at once; before it their rate is 0.
    """

    def factor(step: int, start: int) -> float:
        step -= start
        if step < warmup_steps:
            return _rise(step, warmup_steps)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - start - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return _by_group(optimizer, factor, freed_at)


def warmup_constant(optimizer: Optimizer, warmup_steps: int, freed_at: int = 0) -> LambdaLR:
    """Linear warmup, then the full rate, for a training whose end nobody knows.

    Args:
        optimizer: Its groups keep the ratio of their rates.
        warmup_steps: Steps of linear warmup.
        freed_at: As in `warmup_cosine`.
    """
    return _by_group(optimizer, lambda step, start: min(1.0, _rise(step - start, warmup_steps)), freed_at)


def _rise(step: int, warmup_steps: int) -> float:
    """Share of the rate at a step of the warmup; 0 before it."""
    return 0.0 if step < 0 else (step + 1) / max(1, warmup_steps)


def _by_group(optimizer: Optimizer, factor: Callable[[int, int], float], freed_at: int) -> LambdaLR:
    """The factor of (step, first step), whose first step is ``freed_at`` for groups with ``later``."""

    def since(start: int) -> Callable[[int], float]:
        return lambda step: factor(step, start)

    return LambdaLR(optimizer, [since(freed_at if group.get("later") else 0) for group in optimizer.param_groups])
