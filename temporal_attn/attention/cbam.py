"""CBAM: which channels, then which places, from pooled descriptors of the map.

Paper: Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018.
    https://arxiv.org/abs/1807.06521
Equation: M_c = σ(MLP(avg(x)) + MLP(max(x)));  x' = M_c ⊙ x;  M_s = σ(BN(conv7×7([mean_C x'; max_C x'])));
    y = M_s ⊙ x'
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.gates import Gate, start_at_zero

__all__ = ["CBAM", "ChannelLogits", "SpatialLogits"]

ORDERS = ("cs", "sc", "parallel", "c", "s")


class ChannelLogits(nn.Module):
    """Channel logits from the average- and the max-pooled map through one shared MLP.

    Args:
        channels: C of the input.
        reduction: Width of the MLP is C // reduction, at least 1.
        bias: Whether the MLP has biases, as the authors' code has.

    Shape:
        input (B, C, H, W), output (B, C, 1, 1).
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = True) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.down = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.up = nn.Conv2d(hidden, channels, 1, bias=bias)
        if bias:
            nn.init.zeros_(self.down.bias)  # type: ignore[arg-type]
            nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, 1, 1) of maps (B, C, H, W)."""
        # The MLP is linear after its ReLU, so the two branches are summed before `up`: one product instead of two.
        average = torch.relu(self.down(x.mean((2, 3), keepdim=True)))
        maximum = torch.relu(self.down(x.amax((2, 3), keepdim=True)))
        logits = nn.functional.conv2d(average + maximum, self.up.weight)
        return logits if self.up.bias is None else logits + 2 * self.up.bias.view(1, -1, 1, 1)


class SpatialLogits(nn.Module):
    """Spatial logits from the mean and the maximum over channels.

    Args:
        kernel_size: Side of the convolution, odd.

    Shape:
        input (B, C, H, W), output (B, 1, H, W). The normalisation's weight starts at 0, as in the authors' code, so
        the logits start at 0 everywhere.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of the spatial gate must be odd, got {kernel_size}")
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of maps (B, C, H, W)."""
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        out: Tensor = self.norm(self.conv(pooled))
        return out


class CBAM(nn.Module):
    """Channel and spatial attention in one of five compositions.

    Args:
        channels: C of the input.
        reduction: The channel MLP is C // reduction wide.
        kernel_size: Side of the spatial convolution.
        order: ``cs`` channel then space (the paper), ``sc`` the other way, ``parallel`` one weight from the sum of
            both logits, ``c`` and ``s`` one of them alone.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.
        bias: Whether the channel MLP has biases, as the authors' code has.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, 1, 1) and (B, 1, H, W); ``parallel`` (B, C, H, W).

    Raises:
        ValueError: Channels or reduction is not positive, or the order or gate is not known.
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
            joint: Tensor = self.channel_gate(self.channel(x) + self.spatial(x)) * x
            return joint
        for kind in self.order:
            x = self.channel_gate(self.channel(x)) * x if kind == "c" else self.spatial_gate(self.spatial(x)) * x
        return x

    def extra_repr(self) -> str:
        """Show the order when the net is printed."""
        return f"order={self.order}"
