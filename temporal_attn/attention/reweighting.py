"""The form that most mechanisms share: logits of the map, a gate that turns them into weights, and one product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.gates import Gate, start_at_zero

__all__ = ["Reweighting", "joint_logits"]


class Reweighting(nn.Module):
    """y = gate(logits(x)) ⊙ x: a mechanism of this form is its logits.

    Args:
        logits: Module that maps (B, C, H, W) to logits that broadcast against it.
        last: The layer of it that makes the logits; it starts at zero where the gate must start as the identity.
        gate: How the weights enter, see `Gate`.

    Shape:
        input (B, C, H, W), output the same. Weights: as the logits.

    Raises:
        ValueError: The gate is not known.
    """

    def __init__(self, logits: nn.Module, last: nn.Module, gate: str) -> None:
        super().__init__()
        self.logits = logits
        self.gate = Gate(gate)
        start_at_zero(gate, last)

    def forward(self, x: Tensor) -> Tensor:
        """Reweighted maps (B, C, H, W)."""
        weighted: Tensor = x * self.gate(self.logits(x))  # x comes first: the product takes its memory layout
        return weighted


def joint_logits(channel: Tensor, spatial: Tensor, x: Tensor) -> Tensor:
    """Sum of channel and spatial logits, one for every element of the map, in the map's memory layout.

    Plain broadcasting writes the sum in the order of its dimensions, so that in channels_last each later pass would
    read two maps in two orders.

    Args:
        channel: (B, C, 1, 1).
        spatial: (B, 1, H, W).
        x: (B, C, H, W), the map whose layout is taken.

    Returns:
        (B, C, H, W).
    """
    if x.is_contiguous(memory_format=torch.channels_last):
        return (channel.permute(0, 2, 3, 1) + spatial.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return channel + spatial
