"""AdamW with separate rates for backbone and head, and warmup followed by a cosine, counted in optimiser steps."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from temporal_attn.model import VideoClassifier

__all__ = ["adamw", "parameter_groups", "warmup_cosine"]


def parameter_groups(
    model: VideoClassifier, lr: float, backbone_lr: float, weight_decay: float, frozen: bool = False
) -> list[dict[str, Any]]:
    """Parameters in groups: backbone or not, decayed or not.

    Attention inserted into the backbone is new and takes the head's rate. Vectors (biases, normalisation weights,
    pooling queries) are not decayed: shrinking them regularises nothing.

    Args:
        model: The classifier.
        lr: Rate of everything that is new.
        backbone_lr: Rate of what was pretrained.
        weight_decay: For matrices and convolutions.
        frozen: Whether to include what is frozen now, because it will train later; without a gradient it stays.
    """
    buckets: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or frozen:
            old = name.startswith("backbone.") and ".frame_attention." not in name
            decayed = parameter.ndim > 1 and not name.endswith("pool.query")
            buckets.setdefault((old, decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": backbone_lr if old else lr,
            "weight_decay": weight_decay if decayed else 0.0,
            "name": f"{'backbone' if old else 'head'}{'' if decayed else '_no_decay'}",
        }
        for (old, decayed), parameters in sorted(buckets.items(), reverse=True)
    ]


def adamw(
    model: VideoClassifier, lr: float, backbone_lr: float, weight_decay: float, frozen: bool = False
) -> Optimizer:
    """AdamW over `parameter_groups`.

    Paper: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
        https://arxiv.org/abs/1711.05101
    """
    return AdamW(parameter_groups(model, lr, backbone_lr, weight_decay, frozen))


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int, final: float = 0.01) -> LambdaLR:
    """Linear warmup, then half a cosine down to ``final`` times the rate.

    Paper: Loshchilov and Hutter, "SGDR", ICLR 2017. https://arxiv.org/abs/1608.03983

    Args:
        optimizer: Its groups keep the ratio of their rates.
        warmup_steps: Steps of linear warmup.
        total_steps: Steps of the whole training; the rate stays at its end afterwards.
        final: Share of the rate at the end.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
