"""What the model's own attention says of frames: cheap, and not a faithful measure.

Attention says where a model looked, not what it made of what it saw: `attn_pool` and `rollout_pool` know no class and
no sign, and on clips whose truth is known they rank frames far from what removing them does. They are previews.

Papers: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, https://arxiv.org/abs/2005.00928;
Chefer, Gur and Wolf, "Generic Attention-model Explainability", ICCV 2021, https://arxiv.org/abs/2103.15679.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.reading import read_attention

__all__ = ["attention_pool", "chefer", "rollout_pool"]


def attention_pool(game: FrameGame) -> Tensor:
    """The model's own pooling weights, which sum to 1. No evaluation beyond the clip's own."""
    return game.of_players(game.full.frame_weights[0])


def rollout_pool(game: FrameGame) -> Tensor:
    """Pooling weights traced back through the self-attention layers to the frames. They sum to 1.

    Equation: Ã = ½ (mean_h A + I);  R ← Ã R, from the first layer to the last;  score = mean_h w · R.
    """
    pool, layers = read_attention(game)
    identity = torch.eye(pool.weights.shape[1], device=pool.weights.device)
    rollout = identity
    for layer in layers:
        rollout = (layer.weights.mean(0) + identity) / 2 @ rollout
    return game.of_players(pool.by_frame(pool.weights.mean(0) @ rollout))


def chefer(game: FrameGame) -> Tensor:
    """Rollout of attention weighted by the positive part of its gradient. One forward and one backward pass.

    Equation: R ← R + mean_h (∂v/∂A ⊙ A)⁺ R, from the first layer to the last;  score = mean_h (∂v/∂w ⊙ w)⁺ · R.
    """
    pool, layers = read_attention(game)
    rollout = torch.eye(pool.weights.shape[1], device=pool.weights.device)
    for layer in layers:
        rollout = rollout + (layer.gradient * layer.weights).clamp(min=0).mean(0) @ rollout
    return game.of_players(pool.by_frame((pool.of_weights * pool.weights).clamp(min=0).mean(0) @ rollout))
