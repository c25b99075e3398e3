"""The logit of a clip as a sum over its frames, exactly.

Nothing non-linear follows the pool of a `VideoClassifier`, so with u the question's direction pulled back through head
and output map,

    v(N) = v(∅) + Σ_t Σ_h w_ht u_h · a_ht,

each frame's share is signed, and the shares sum to v(N) − v(∅) as Shapley values do, if removed frames are dropped or
replaced by the nearest, and not by the mean frame. What they say is where the evidence stands when it is pooled.
Self-attention before the pool may have carried it there from other frames; without it (``temporal: attention_pool`` or
``mean``) a share is what the frame itself shows.
"""

from __future__ import annotations

from torch import Tensor, nn

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.reading import read_pool
from temporal_attn.types import UserError

__all__ = ["logit_shares"]

_LINEAR = (nn.Linear, nn.Dropout, nn.Identity)


def logit_shares(game: FrameGame) -> Tensor:
    """Share of each frame in v(N) − v(∅). One forward and one backward pass, which only finds u.

    Raises:
        UserError: The head is not linear, or the pool is not one of `temporal_attn.temporal.pooling`.
    """
    pool = read_pool(game)
    head = getattr(game.model, "head", None)
    steps = head if isinstance(head, nn.Sequential) else [head]
    curved = next((step for step in steps if not isinstance(step, _LINEAR)), None)
    if head is None or curved is not None:
        raise UserError(
            f"method: logit splits a linear head, and this model's has a {type(curved).__name__}; take ig or shapley"
        )
    return game.of_players(pool.by_frame((pool.of_weights * pool.weights).sum(0)))
