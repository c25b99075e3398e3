"""Pooling of frame tokens into one clip feature, with the weight of every frame.

All but `MaxPool`, `ClassTokenPool` and `PowerMeanPool` are a softmax over frames with nothing non-linear behind it
(`SoftmaxPool`), so that the clip's logits are a weighted sum over frames and the weights are weights of logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from temporal_attn.attention.norm import BatchNorm2d
from temporal_attn.temporal.blocks import mlp_width

__all__ = ["AttentionPool", "ClassTokenPool", "GatedPool", "MaxPool", "MeanPool", "PowerMeanPool", "SoftmaxPool"]


_EPSILON = 1e-4


class SoftmaxPool(nn.Module, ABC):
    """A weighted mean over frames in each of H heads; what weighs and what is weighed a subclass says.

    Equation: w_h = softmax over real frames of e_h;  z = combine(Σ_t w_ht a_ht).

    Shape:
        x (B, T, D), mask (B, T) bool; output (B, D) and weights (B, T), the mean over heads, which sum to 1 (0 for a
        clip without frames).
    """

    @abstractmethod
    def scores(self, x: Tensor) -> Tensor:
        """Scores e (B, H, T), in float32 at least, because a softmax over close scores needs it."""

    def values(self, x: Tensor) -> Tensor:
        """What is weighed, a (B, H, T, d), of tokens (B, T, D)."""
        return x[:, None]

    def combine(self, pooled: Tensor) -> Tensor:
        """Clip feature (B, D) of what the heads pooled, (B, H, d); affine."""
        return pooled.flatten(1)

    def head_weights(self, x: Tensor, mask: Tensor) -> Tensor:
        """Weights (B, H, T) of every head."""
        scores = self.scores(x)
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights: Tensor = scores.softmax(-1) * mask[:, None]
        return weights

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights."""
        weights = self.head_weights(x, mask)
        values = self.values(x)
        pooled = torch.einsum("bht,bhtd->bhd", weights.to(values.dtype), values)
        return self.combine(pooled), weights.mean(1)


class MeanPool(SoftmaxPool):
    """Masked mean over frames: temporal segment networks' consensus.

    Paper: Wang et al., "Temporal Segment Networks", ECCV 2016. https://arxiv.org/abs/1608.00859
    Equation: z = Σ_t m_t f_t / Σ_t m_t.

    Shape:
        As `SoftmaxPool`.
    """

    def scores(self, x: Tensor) -> Tensor:
        """All alike."""
        return x.new_zeros(x.shape[0], 1, x.shape[1], dtype=_wide(x))


class AttentionPool(SoftmaxPool):
    """Multi-head attention pooling with one learned query a head.

    Paper: the pooling by multi-head attention of Lee et al., "Set Transformer", ICML 2019, with one seed and no MLP.
        https://arxiv.org/abs/1810.00825
    Equation: e_ht = q_hᵀ W_k,h f_t / √d_h;  w_h = softmax over real frames;  z = W_o concat_h Σ_t w_ht W_v,h f_t.

    Queries start at zero and the value and output maps at the identity: at the start this is `MeanPool`.

    Args:
        dim: D of the tokens.
        heads: Number of heads; D must divide by it.

    Shape:
        As `SoftmaxPool`.

    Raises:
        ValueError: heads does not divide dim.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(heads, dim // heads))
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        for linear in (self.value, self.out):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    def scores(self, x: Tensor) -> Tensor:
        """How well each frame answers each head's query."""
        keys, wide = _by_head(self.key(x), self.heads), _wide(x)
        # A product and a sum: autocast would run an einsum of the same in half precision.
        scores: Tensor = (keys.to(wide) * self.query.to(wide)[:, None]).sum(-1) * keys.shape[-1] ** -0.5
        return scores

    def values(self, x: Tensor) -> Tensor:
        """What each head takes from a frame."""
        return _by_head(self.value(x), self.heads)

    def combine(self, pooled: Tensor) -> Tensor:
        """The heads side by side, through the output map."""
        out: Tensor = self.out(pooled.flatten(1))
        return out


class GatedPool(SoftmaxPool):
    """Gated attention of multiple-instance learning: a small net scores each frame, a gate decides what it may say.

    Paper: Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018.
        https://arxiv.org/abs/1802.04712
    Equation: w = softmax over real frames of uᵀ (tanh(V f_t) ⊙ σ(U f_t));  z = Σ_t w_t f_t.

    The scores' last layer u starts at zero: at the start this is `MeanPool`.

    Args:
        dim: D of the tokens.
        hidden: Width of the scoring net.

    Shape:
        As `SoftmaxPool`.

    Raises:
        ValueError: hidden is not positive.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden={hidden} is not a width; give at least 1")
        self.content = nn.Linear(dim, hidden)
        self.gate = nn.Linear(dim, hidden)
        self.score = nn.Parameter(torch.zeros(hidden))

    def scores(self, x: Tensor) -> Tensor:
        """One number a frame, from that frame alone."""
        said: Tensor = (self.content(x).tanh() * self.gate(x).sigmoid()).to(_wide(x))
        return (said * self.score.to(said.dtype)).sum(-1)[:, None]


class MaxPool(nn.Module):
    """The largest value of every channel over frames; it does not start as the mean, and cannot.

    Paper: one of the consensus functions of Wang et al., "Temporal Segment Networks", ECCV 2016.
        https://arxiv.org/abs/1608.00859
    Equation: z_d = max over real frames of f_td.

    Shape:
        x (B, T, D), mask (B, T) bool; output (B, D), 0 for a clip without frames, and weights (B, T): the share of
        channels in which a frame is the largest, ties divided. They sum to 1 (0 for a clip without frames).
    """

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights."""
        largest = x.masked_fill(~mask[..., None], -torch.inf).amax(1)
        won = ((x == largest[:, None]) & mask[..., None]).to(_wide(x))
        weights = (won / won.sum(1, keepdim=True).clamp(min=1)).mean(-1)
        return torch.where(mask.any(1, keepdim=True), largest, 0), weights


class ClassTokenPool(nn.Module):
    """A class token reads the frames by class attention, in a layer of its own behind them.

    Paper: Touvron et al., "Going Deeper with Image Transformers" (CaiT), ICCV 2021. https://arxiv.org/abs/2103.17239
    Equation: c = c_0 + mean_t f_t;  c ← c + W_o Attention(q = LN(c), kv = LN([c, f]));  z = c + MLP(LN(c)).

    Counting from the mean of the frames, with c_0, the query map, W_o and the MLP's last layer zero, this starts as
    `MeanPool`. Frames do not look at the token, so it goes behind any blocks.

    Args:
        dim: D of the tokens.
        heads: Number of heads; D must divide by it.
        mlp_ratio: Width of the MLP over D.

    Shape:
        x (B, T, D), mask (B, T) bool; output (B, D) and weights (B, T): the token's attention to frames, leaving out
        what it gives to itself, as the mean over heads; they sum to 1 (0 for a clip without frames).

    Raises:
        ValueError: heads does not divide dim, or the MLP has no width.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 2.0) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.heads = heads
        self.token = nn.Parameter(torch.zeros(dim))
        self.norm1 = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        hidden = mlp_width(dim, mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        for last in (self.query, self.out, self.mlp[-1]):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.mean = MeanPool()

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights."""
        mean, _ = self.mean(x, mask)
        token = self.token + mean
        seen = self.norm1(torch.cat((token[:, None], x), 1))
        q, k, v = (_by_head(part, self.heads) for part in (self.query(seen[:, :1]), self.key(seen), self.value(seen)))
        wide = _wide(x)
        scores = (q.to(wide) * k.to(wide)).sum(-1) * k.shape[-1] ** -0.5
        lowest = torch.finfo(wide).min
        to_frames = scores[..., 1:].masked_fill(~mask[:, None], lowest)
        attention = torch.cat((scores[..., :1], to_frames), -1).softmax(-1)
        mixed = torch.einsum("bht,bhtd->bhd", attention.to(v.dtype), v)
        token = token + self.out(mixed.flatten(1))
        return token + self.mlp(self.norm2(token)), (to_frames.softmax(-1) * mask[:, None]).mean(1)


class PowerMeanPool(nn.Module):
    """The mean over frames, its channels brought to one scale, for a linear head on a frozen net.

    Channels of a pretrained net are large for a few pictures and near zero for the others; the power evens that out,
    and batch normalisation without parameters gives a rare channel as much of a say as a frequent one.

    Papers: Perronnin, Sánchez and Mensink, "Improving the Fisher Kernel for Large-Scale Image Classification", ECCV
        2010 (signed power); He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, appendix A.1
        (batch normalisation without parameters before a linear head). https://arxiv.org/abs/2111.06377
    Equation: m = mean over real frames of f_t;  z = BN(sign(m) ((|m| + ε)^p − ε^p)), ε = 1e-4.

    Args:
        dim: D of the tokens.
        power: p in (0, 1].

    Shape:
        x (B, T, D), mask (B, T) bool; output (B, D) and weights (B, T), those of the mean.

    Raises:
        ValueError: The power is out of range.
    """

    def __init__(self, dim: int, power: float = 0.4) -> None:
        super().__init__()
        if not 0 < power <= 1:
            raise ValueError(f"power={power} is out of range; give one in (0, 1], 1 for none")
        self.power = power
        self.mean = MeanPool()
        self.norm = BatchNorm2d(dim, affine=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Clip feature and frame weights."""
        mean, weights = self.mean(x, mask)
        return self.finish(mean), weights

    def finish(self, mean: Tensor) -> Tensor:
        """Clip feature (B, D) of the mean (B, D)."""
        wide = mean.to(_wide(mean))
        # The slope of a power is infinite at zero; shifted by ε it is not, and zero stays zero.
        evened = wide.sign() * ((wide.abs() + _EPSILON) ** self.power - _EPSILON**self.power)
        # The statistics of a net that was cast to half precision are in half precision too.
        own = evened.to(next(self.norm.buffers()).dtype)
        return self.norm(own[..., None, None])[..., 0, 0].to(mean.dtype)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Show the power when the net is printed."""
        return f"power={self.power}"


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, heads, T, D / heads) of (B, T, D)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
