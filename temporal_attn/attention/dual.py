"""Dual attention: places attend to places, channels to channels.

Paper: Fu, Liu, Tian, Li, Bao, Fang and Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019.
    https://arxiv.org/abs/1809.02983
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.channel import bottleneck_width
from temporal_attn.attention.fused import attend, from_tokens, to_tokens, weights_of
from temporal_attn.attention.gates import check_gate

__all__ = ["ChannelMixing", "DualAttention", "DualChannelAttention", "DualPositionAttention", "PositionMixing"]


class PositionMixing(nn.Module):
    """Each place gets the values of all places, weighted by how alike they are.

    Args:
        channels: C of the input.
        reduction: Queries and keys are C // reduction wide, at least 1; values keep C.

    Shape:
        input (B, C, H, W), output the same. Weights (B, 1, H·W, H·W), each row sums to 1.

    Raises:
        ValueError: Channels or reduction is not positive.
    """

    attention_axes = "places"

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        width = bottleneck_width(channels, reduction)
        self.widths = [width, width, channels]
        self.query_key_value = nn.Conv2d(channels, sum(self.widths), 1)  # one pass over the map for all three

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, 1, H·W, width) of maps (B, C, H, W)."""
        q, k, v = torch.split(to_tokens(self.query_key_value(x)).unsqueeze(1), self.widths, -1)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """Mixed maps (B, C, H, W)."""
        return from_tokens(attend(*self.project(x)).squeeze(1), x)

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        """Weights (B, 1, queries, keys) over places; fused attention never forms them, so they are made here."""
        q, k, _ = self.project(inputs[0])
        return weights_of(q, k)


class ChannelMixing(nn.Module):
    """Each channel gets all channels, weighted by how little they have in common: softmax(max e − e) = softmax(−e).

    It has no parameters, and works in float32 at least: e is a sum over all places, and its softmax nearly one-hot.

    Shape:
        input (B, C, H, W), output the same. Weights (B, 1, C, C), each row sums to 1.
    """

    attention_axes = "channels"

    def forward(self, x: Tensor) -> Tensor:
        """Mixed maps (B, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            flat = self._flat(x)
            mixed = attend(-flat, flat, flat)
        return mixed.reshape(x.shape).to(x.dtype)

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        """Weights (B, 1, queries, keys) over channels."""
        flat = self._flat(inputs[0])
        return weights_of(-flat, flat)

    @staticmethod
    def _flat(x: Tensor) -> Tensor:
        # The fused kernel takes a channel's places side by side, and the copy is small beside the C² weights: in
        # channels_last, forward and backward of 8×2048×7×7 take 375 ms with it, and 460 by blocks of queries without.
        return x.flatten(2).unsqueeze(1).to(torch.promote_types(x.dtype, torch.float32)).contiguous()


class DualPositionAttention(nn.Module):
    """Places attend to places by a learned likeness.

    Paper: Fu, Liu, Tian, Li, Bao, Fang and Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019.
        https://arxiv.org/abs/1809.02983

    Equation: y = x + γ Σ_j softmax_j(q_iᵀ k_j) v_j over places, without a scale; q and k are C/8 wide.

    Place: after the last stage, where places are few (cost grows with (H·W)²); not in every block.

    Args:
        channels: C of the input.
        reduction: Queries and keys are C // reduction wide, at least 1.
        gate: ``identity`` starts with γ = 0 (the paper), ``sigmoid`` and ``residual`` with γ = 1.

    Shape:
        input (B, C, H, W), output the same. Weights (B, 1, H·W, H·W), rows are queries.

    Raises:
        ValueError: Channels or reduction is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, reduction: int = 8, gate: str = "identity") -> None:
        super().__init__()
        self.mixing = PositionMixing(channels, reduction)
        self.gamma = _gamma(gate)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Attended maps (B, C, H, W)."""
        return _add(x, self.gamma, self.mixing(x))

    def extra_repr(self) -> str:
        """Show the gate when the net is printed."""
        return f"gate={self.gate}"


class DualChannelAttention(nn.Module):
    """Channels attend to the channels that they have least in common with.

    Paper: Fu, Liu, Tian, Li, Bao, Fang and Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019.
        https://arxiv.org/abs/1809.02983

    Equation: e = X Xᵀ for X (C, H·W);  y = x + γ softmax(max e − e) X, the maximum over each row.

    Place: after the last stage, or where the map is small: e grows with H·W and with it the softmax's sharpness.

    Args:
        channels: C of the input, any; there are no weights that depend on it.
        gate: ``identity`` starts with γ = 0 (the paper), ``sigmoid`` and ``residual`` with γ = 1.

    Shape:
        input (B, C, H, W), output the same. Weights (B, 1, C, C), rows are queries.

    Raises:
        ValueError: Channels is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, gate: str = "identity") -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        self.mixing = ChannelMixing()
        self.gamma = _gamma(gate)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Attended maps (B, C, H, W)."""
        return _add(x, self.gamma, self.mixing(x))

    def extra_repr(self) -> str:
        """Show the gate when the net is printed."""
        return f"gate={self.gate}"


class DualAttention(nn.Module):
    """Position and channel attention side by side, summed.

    The paper puts convolutions around both branches to narrow the map for a segmentation head; in a net that goes on
    after it there is nothing to narrow, so they are left out, and the map itself is counted once.

    Paper: Fu, Liu, Tian, Li, Bao, Fang and Lu, "Dual Attention Network for Scene Segmentation", CVPR 2019.
        https://arxiv.org/abs/1809.02983

    Equation: y = x + α P(x) + β C(x), with P the position mixing Σ_j softmax_j(q_iᵀ k_j) v_j and C the channel mixing
        softmax(max e − e) X of e = X Xᵀ.

    Place: after the last stage; not in every block.

    Args:
        channels: C of the input.
        reduction: Queries and keys of the position branch are C // reduction wide, at least 1.
        gate: ``identity`` starts with α = β = 0 (the paper), ``sigmoid`` and ``residual`` with 1.

    Shape:
        input (B, C, H, W), output the same. Weights (B, 1, H·W, H·W) and (B, 1, C, C), rows are queries.

    Raises:
        ValueError: Channels or reduction is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, reduction: int = 8, gate: str = "identity") -> None:
        super().__init__()
        self.position = PositionMixing(channels, reduction)
        self.channel = ChannelMixing()
        self.alpha = _gamma(gate)
        self.beta = _gamma(gate)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Attended maps (B, C, H, W)."""
        return _add(_add(x, self.alpha, self.position(x)), self.beta, self.channel(x))

    def extra_repr(self) -> str:
        """Show the gate when the net is printed."""
        return f"gate={self.gate}"


def _gamma(gate: str) -> nn.Parameter:
    return nn.Parameter(torch.full((), 0.0 if check_gate(gate) == "identity" else 1.0))


def _add(x: Tensor, gamma: Tensor, branch: Tensor) -> Tensor:
    return torch.addcmul(x, gamma.to(x.dtype), branch.to(x.dtype))
