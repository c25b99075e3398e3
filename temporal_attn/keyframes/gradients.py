"""Scores from gradients of the worth v: one pass for a preview, a path of them for shares that add up.

Gradient × token is not among them: frame tokens meet a LayerNorm, which does not change when a token is scaled, so that
f · ∂v/∂f is close to 0 whatever the frame shows.

Paper: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017,
https://arxiv.org/abs/1703.01365 (integrated gradients).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.reading import gradients_on, read_pool
from temporal_attn.types import UserError

__all__ = ["integrated_gradients", "pool_gradient"]

STEPS = 32
"""Points on the path of integrated gradients."""


def pool_gradient(game: FrameGame) -> Tensor:
    """What v gains as the pool looks more at the frame. One forward and one backward pass; signed.

    Equation: Σ_h w_ht (∂v/∂w_ht − Σ_s w_hs ∂v/∂w_hs), the gradient of v by the log of a frame's weight before the
    softmax: the start of what masking the frame in the pool does. The scores sum to 0.
    """
    pool = read_pool(game)
    gain = pool.of_weights
    above = gain - (pool.weights * gain).sum(-1, keepdim=True)
    return game.of_players(pool.by_frame((pool.weights * above).sum(0)))


def integrated_gradients(game: FrameGame, steps: int = STEPS) -> Tensor:
    """Gradients along the straight way from the mean frame to each frame. ``steps`` forward and backward passes.

    Equation: Σ_C (f_t − f̄) ⊙ ∫_0^1 ∂v/∂f_t (f̄ + α (f − f̄)) dα, by Gauss-Legendre quadrature. The scores sum to v(N)
    minus the worth of a clip that shows the mean frame T times.

    Args:
        game: The clip and the question.
        steps: Points of the quadrature.

    Raises:
        UserError: The model lets no gradient through.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    with gradients_on():
        tokens, mean = game.tokens.clone(), game.mean_frame().clone()
        alphas = torch.as_tensor((nodes + 1) / 2).to(tokens)[:, None, None]
        # Where padding holds NaN the way to it is NaN too; it is not seen and has no gradient.
        way = torch.where(game.real.to(tokens.device)[None, :, None], tokens - mean, 0)
        path = (mean + alphas * way).requires_grad_()
        worth = game.answer(path)
        if not worth.requires_grad:
            raise UserError("method: ig needs gradients, and this model gives none; take shapley")
        (gradient,) = torch.autograd.grad(worth.sum(), path, allow_unused=True)
        if gradient is None:
            raise UserError(
                "method: ig needs gradients, and none reaches the frames: a backbone that mixes time is given them as "
                "whole numbers; take shapley"
            )
    mean_gradient = torch.einsum("s,stc->tc", torch.as_tensor(weights / 2).to(gradient), gradient)
    return game.of_players((way[0] * mean_gradient).sum(-1))
