"""Non-local blocks: every place looks at every other.

Paper: Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018. https://arxiv.org/abs/1711.07971
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from temporal_attn.attention.channel import bottleneck_width
from temporal_attn.attention.fused import attend, from_tokens, side_by_side, to_tokens, weights_of
from temporal_attn.attention.gates import check_gate, start_at_zero
from temporal_attn.attention.norm import BatchNorm2d

__all__ = ["NonLocal"]


class NonLocal(nn.Module):
    """Adds to each place what all places have to say to it, in a narrower space (the embedded Gaussian form).

    Paper: Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018. https://arxiv.org/abs/1711.07971

    Equation: y = x + BN(W_z Σ_j softmax_j(θ(x_i)ᵀ φ(x_j) · scale) g(x_j)), with keys and values from the map
        max-pooled 2 × 2.

    Place: after a few blocks of the middle stages (res3 and res4 of a ResNet); cost grows with (H·W)², so not on early
        maps.

    Args:
        channels: C of the input.
        reduction: Queries, keys and values are C // reduction wide, at least 1.
        sub_sample: Whether keys and values come from the max-pooled map, a quarter of the places. A last odd row or
            column is pooled by itself.
        scale: What scores are multiplied by; None means 1/√(C // reduction), as in the authors' code. The paper's
            text has 1.
        gate: ``identity`` starts with BN's weight and bias at 0, so y = x (the paper); with ``sigmoid`` and
            ``residual`` BN starts as everywhere else. A fresh block still says little: with the convolutions' standard
            deviation of 0.01 and a running variance of 1, it changes standard normal maps of 64 channels by less than
            1 % in evaluation, and by about 10 % in training, where BN divides by the batch's own variance.

    Shape:
        input (B, C, H, W), output the same. Weights (B, 1, H·W, keys), rows are queries; keys are ⌈H/2⌉·⌈W/2⌉ with
        sub_sample and H·W without.

    Raises:
        ValueError: Channels or reduction is not positive, or the gate is not known.
    """

    attention_axes = "places"

    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        sub_sample: bool = True,
        scale: float | None = None,
        gate: str = "identity",
    ) -> None:
        super().__init__()
        self.width = bottleneck_width(channels, reduction)
        self.sub_sample = sub_sample
        self.scale = self.width**-0.5 if scale is None else scale
        self.query = nn.Conv2d(channels, self.width, 1)
        self.key_value = nn.Conv2d(channels, 2 * self.width, 1)
        self.out = nn.Conv2d(self.width, channels, 1, bias=False)  # the normalisation would remove it
        self.norm = BatchNorm2d(channels)
        for conv in (self.query, self.key_value, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        self.gate = check_gate(gate)
        start_at_zero(gate, self.norm)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values (B, 1, places, width) of maps (B, C, H, W)."""
        seen = max_pool2d(x, 2, ceil_mode=True) if self.sub_sample else x
        q = side_by_side(to_tokens(self.query(x) * self.scale))  # narrow, so a copy is worth the fused kernel
        k, v = to_tokens(self.key_value(seen)).contiguous().chunk(2, -1)
        return q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Attended maps (B, C, H, W)."""
        mixed = from_tokens(attend(*self.project(x)).squeeze(1), x)
        added: Tensor = self.norm(self.out(mixed))
        return x + added.to(x.dtype)

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        """Weights (B, 1, queries, keys) over places; fused attention never forms them, so they are made here."""
        q, k, _ = self.project(inputs[0])
        return weights_of(q, k)

    def extra_repr(self) -> str:
        """Show what the children do not."""
        return f"sub_sample={self.sub_sample}, scale={self.scale:g}, gate={self.gate}"
