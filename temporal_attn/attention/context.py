"""Global context: one attended summary of the map, added to every place.

Paper: Cao, Xu, Lin, Wei and Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019.
    https://arxiv.org/abs/1904.11492
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.channel import bottleneck_width
from temporal_attn.attention.gates import check_gate, start_at_zero

__all__ = ["GlobalContext", "PlaceWeights"]


class PlaceWeights(nn.Module):
    """How much each place counts in the summary: a softmax over the places.

    Args:
        channels: C of the input.

    Shape:
        input (B, C, H, W), output (B, 1, H, W), which sums to 1 for each map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1, bias=False)  # the authors' bias: the softmax removes it

    def forward(self, x: Tensor) -> Tensor:
        """Weights (B, 1, H, W) of the places of maps (B, C, H, W)."""
        score: Tensor = self.score(x)
        return score.flatten(2).softmax(2).view_as(score)

    def attention_weights(self, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """What `attention_maps` shows: the weights that were used."""
        return output


class GlobalContext(nn.Module):
    """Adds to every place what an attended summary of the whole map says: a non-local block with one query for all.

    Paper: Cao, Xu, Lin, Wei and Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
        ICCVW 2019. https://arxiv.org/abs/1904.11492

    Equation: c = Σ_j softmax_j(wᵀx_j) x_j;  y = x + W₂ δ(LN(W₁ c + b₁)) + b₂, δ a ReLU

    Place: as squeeze-and-excitation, after the last normalisation of a residual block; the authors take all blocks of
        the last three stages.

    Args:
        channels: C of the input.
        reduction: Width of the bottleneck is C // reduction, at least 4, because layer norm leaves nothing of fewer.
        gate: ``identity`` (the paper) starts as y = x, with W₂ = 0 and b₂ = 0; with the others the addition starts
            at random.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, 1, H, W), which sum to 1.

    Raises:
        ValueError: Channels or reduction is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, reduction: int = 16, gate: str = "identity") -> None:
        super().__init__()
        hidden = bottleneck_width(channels, reduction, least=4)
        self.gate = check_gate(gate)
        self.places = PlaceWeights(channels)
        self.down = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, channels)
        start_at_zero(gate, self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Maps with their context added (B, C, H, W)."""
        weights: Tensor = self.places(x)
        context = (weights.flatten(2) @ x.flatten(2).transpose(1, 2)).squeeze(1)
        shift: Tensor = self.up(torch.relu(self.norm(self.down(context))))
        return x + shift[:, :, None, None]

    def extra_repr(self) -> str:
        """Show the gate when the net is printed."""
        return f"gate={self.gate}"
