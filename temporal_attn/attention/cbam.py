"""CBAM: which channels, then which places, from pooled descriptors of the map.

The map is large and everything else small, so what it costs is how often the map is read and written: read for the
channel descriptors, read for the spatial ones, read once more for the product, written once. docs/attention_speed.md
has the account; the milliseconds below are CPU time for the maps of the four stages of ResNet-50, 8 frames of 224².
"""

from __future__ import annotations

from torch import Tensor, nn

from temporal_attn.attention.channel import ChannelLogits
from temporal_attn.attention.gates import Gate, start_at_zero
from temporal_attn.attention.reweighting import joint_logits
from temporal_attn.attention.spatial import SpatialLogits

__all__ = ["CBAM"]

ORDERS = ("cs", "sc", "parallel", "c", "s")


class CBAM(nn.Module):
    """Channel and spatial attention in one of five compositions.

    Paper: Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018.
        https://arxiv.org/abs/1807.06521

    Equation: M_c = σ(MLP(avg(x)) + MLP(max(x)));  x' = M_c ⊙ x;  M_s = σ(BN(conv7×7([mean_C x'; max_C x'])));
        y = M_s ⊙ x'

    Place: in each residual block after the last normalisation, before the shortcut is added; not on a concatenated
        input, as inside a DenseNet layer, whose old features it would weigh again and again.

    Args:
        channels: C of the input.
        reduction: The channel MLP is C // reduction wide.
        kernel_size: Side of the spatial convolution, odd.
        order: ``cs`` channel then space (the paper), ``sc`` the other way, ``parallel`` one weight from the sum of
            both logits, ``c`` and ``s`` one of them alone.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.
        bias: Whether the channel MLP has biases, as the authors' code has.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, 1, 1) and (B, 1, H, W); ``parallel`` (B, C, H, W).

    Raises:
        ValueError: Channels or reduction is not positive, the kernel is not odd and positive, or the order or gate is
            not known.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        order: str = "cs",
        gate: str = "sigmoid",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ValueError(f"channels and reduction must be positive, got {channels} and {reduction}")
        if order not in ORDERS:
            raise ValueError(f"CBAM order {order!r} is not known; choose one of: {', '.join(ORDERS)}")
        self.order = order
        wanted = "cs" if order == "parallel" else order
        if "c" in wanted:
            self.channel = ChannelLogits(channels, reduction, bias)
            self.channel_gate = Gate(gate)
            start_at_zero(gate, self.channel.up)
        if "s" in wanted:
            self.spatial = SpatialLogits(kernel_size)
        if "s" in wanted and order != "parallel":  # there the one joint weight goes through the channel gate
            self.spatial_gate = Gate(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Reweighted maps (B, C, H, W)."""
        if self.order == "parallel":
            joint: Tensor = x * self.channel_gate(joint_logits(self.channel(x), self.spatial(x), x))
            return joint
        weighted = x * self._weight(self.order[0], x)
        if len(self.order) == 1:
            return weighted
        weight = self._weight(self.order[1], weighted)
        # Without a backward pass nobody needs the first product again, so the second one takes its place: 1.8 ms of
        # 18.6 in eager mode.
        return weighted * weight if weighted.requires_grad else weighted.mul_(weight)

    def _weight(self, kind: str, x: Tensor) -> Tensor:
        weight: Tensor = self.channel_gate(self.channel(x)) if kind == "c" else self.spatial_gate(self.spatial(x))
        return weight

    def extra_repr(self) -> str:
        """Show the order when the net is printed."""
        return f"order={self.order}"
