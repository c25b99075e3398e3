"""Channel and spatial attention side by side, both from the same map: BAM and scSE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.channel import ChannelMLPLogits, bottleneck_width
from temporal_attn.attention.gates import Gate, check_gate, start_at_zero
from temporal_attn.attention.norm import BatchNorm2d
from temporal_attn.attention.reweighting import Reweighting, joint_logits

__all__ = ["BAM", "SCSE", "BottleneckLogits"]


class BottleneckLogits(nn.Module):
    """Logits for every element of the map: a channel's from its average, plus a place's from what lies around it.

    Args:
        channels: C of the input.
        reduction: Both branches are C // reduction wide in the middle, at least 1.
        dilation: Of the two 3×3 convolutions of the spatial branch.

    Shape:
        input (B, C, H, W), output the same.

    Raises:
        ValueError: An argument is not positive.
    """

    def __init__(self, channels: int, reduction: int, dilation: int) -> None:
        super().__init__()
        hidden = bottleneck_width(channels, reduction)
        if dilation < 1:
            raise ValueError(f"dilation must be positive, got {dilation}")

        def dilated() -> nn.Conv2d:
            return nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False)

        # No bias before a normalisation, which would remove it.
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
            BatchNorm2d(channels),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            BatchNorm2d(hidden),
            nn.ReLU(),
            dilated(),
            BatchNorm2d(hidden),
            nn.ReLU(),
            dilated(),
            BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 1, 1, bias=False),
            BatchNorm2d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, H, W) of maps (B, C, H, W)."""
        return joint_logits(self.channel(x), self.spatial(x), x)


class BAM(Reweighting):
    """Bottleneck attention: one weight for each element of the map, from a channel and a spatial branch.

    Paper: Park, Woo, Lee and Kweon, "BAM: Bottleneck Attention Module", BMVC 2018. https://arxiv.org/abs/1807.06514

    Equation: M_c = BN(MLP(avg(x)));  M_s = BN(conv1×1(conv3×3(conv3×3(conv1×1(x)))));  y = x + σ(M_c + M_s) ⊙ x

    Place: after each of the first three stages, where the map is about to be reduced; not in each block. The inner
        convolutions of M_s are each followed by BN and ReLU, as in the authors' code, where M_c and M_s are
        multiplied; here they are added, as in the paper. With a batch of one the average is a single value a channel:
        BN then takes its running statistics.

    Args:
        channels: C of the input.
        reduction: Both branches are C // reduction wide in the middle, at least 1.
        dilation: Of the 3×3 convolutions.
        gate: How the weights enter, see `Gate`. ``residual`` is the paper, ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, H, W).

    Raises:
        ValueError: A number is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, reduction: int = 16, dilation: int = 4, gate: str = "residual") -> None:
        logits = BottleneckLogits(channels, reduction, dilation)
        super().__init__(logits, logits.channel[-1], gate)
        start_at_zero(gate, logits.spatial[-1])


class SCSE(nn.Module):
    """Concurrent spatial and channel squeeze-and-excitation: the sum of the map weighed by channel and by place.

    Paper: Roy, Navab and Wachinger, "Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional
        Networks", MICCAI 2018. https://arxiv.org/abs/1803.02579

    Equation: y = σ(W₂ δ(W₁ avg(x) + b₁) + b₂) ⊙ x + σ(wᵀx + b) ⊙ x, δ a ReLU

    Place: the authors put it after each encoder and decoder block of a segmentation net; in a classifier, in each
        residual block after the last normalisation.

    Args:
        channels: C of the input.
        reduction: Width of the channel bottleneck is C // reduction, at least 1.
        gate: How the weights enter. ``sigmoid`` is the paper; ``identity`` is the paper with both logits 0 at the
            start, where the two halves make y = x; ``residual`` adds x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, 1, 1), for ``residual`` with 1 added, and (B, 1, H, W).

    Raises:
        ValueError: Channels or reduction is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, reduction: int = 2, gate: str = "sigmoid") -> None:
        super().__init__()
        self.gate = check_gate(gate)
        self.channel = ChannelMLPLogits(channels, reduction)
        self.spatial = nn.Conv2d(channels, 1, 1)
        # Two sigmoids are 1 together where both logits are 0, and the residual's x is to be added once.
        self.channel_gate = Gate("residual" if gate == "residual" else "sigmoid")
        self.spatial_gate = Gate("sigmoid")
        start_at_zero(gate, self.channel.mlp.up)
        start_at_zero(gate, self.spatial)

    def forward(self, x: Tensor) -> Tensor:
        """Reweighted maps (B, C, H, W)."""
        by_channel: Tensor = x * self.channel_gate(self.channel(x))
        return torch.addcmul(by_channel, x, self.spatial_gate(self.spatial(x)))

    def extra_repr(self) -> str:
        """Show the gate when the net is printed."""
        return f"gate={self.gate}"
