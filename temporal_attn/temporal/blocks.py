"""A pre-norm self-attention block over frame tokens that starts as the identity.

Paper: Vaswani et al., "Attention Is All You Need", NIPS 2017. https://arxiv.org/abs/1706.03762, with the
normalisation before each branch (Xiong et al., ICML 2020. https://arxiv.org/abs/2002.04745).
Equation: x ← x + W_o Attention(LN(x));  x ← x + MLP(LN(x)), with W_o and the MLP's last layer zero at the start.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from temporal_attn.temporal.positions import RotaryTime

__all__ = ["SelfAttentionBlock"]


class SelfAttentionBlock(nn.Module):
    """Frames attend to frames; padding is never attended to.

    Args:
        dim: D of the tokens.
        heads: Number of heads; D must divide by it.
        mlp_ratio: Width of the MLP over D.
        dropout: On both branches' outputs.
        drop_path: Probability to skip a branch for a whole clip in training (stochastic depth).
        min_period: Shortest rotation period of `RotaryTime`, in seconds.
        max_period: Longest rotation period, in seconds.

    Shape:
        x (B, T, D), mask (B, T) bool with True = real frame, pts (B, T) seconds; output (B, T, D).

    Raises:
        ValueError: heads does not divide dim.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        min_period: float = 0.2,
        max_period: float = 100.0,
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rotary = RotaryTime(dim // heads, min_period, max_period)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)
        self.drop_path = drop_path
        for last in (self.out, self.mlp[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        """Tokens (B, T, D) after one round of attention."""
        x = x + self._skip(self.dropout(self._attend(self.norm1(x), mask, pts)))
        return x + self._skip(self.dropout(self.mlp(self.norm2(x))))

    def _attend(self, x: Tensor, mask: Tensor, pts: Tensor) -> Tensor:
        batch, frames, dim = x.shape
        q, k, v = self.qkv(x).view(batch, frames, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        angles = self.rotary.angles(pts)
        # A clip without any frame would softmax over nothing: let it see all of its (zeroed) tokens instead; the
        # pooling drops the result.
        visible = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]
        mixed = scaled_dot_product_attention(self.rotary(q, angles), self.rotary(k, angles), v, attn_mask=visible)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, frames, dim))
        return out

    def _skip(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(1 - self.drop_path)
        return branch * keep / (1 - self.drop_path)
