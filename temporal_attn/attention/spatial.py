"""Spatial attention: one weight for each place of the map."""

from __future__ import annotations

from torch import nn

from temporal_attn.attention.cbam import SpatialLogits
from temporal_attn.attention.reweighting import Reweighting

__all__ = ["CBAMSpatialGate", "Conv1x1Gate"]


class Conv1x1Gate(Reweighting):
    """A place's weight from its own channels: a 1×1 convolution and a sigmoid.

    Paper: Roy, Navab and Wachinger, "Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional
        Networks", MICCAI 2018, where it is sSE. https://arxiv.org/abs/1803.02579

    Equation: s = σ(wᵀx + b), one number for each place;  y = s ⊙ x

    Place: in each residual block after the last normalisation. It pools nothing, so a weight sees what the place's
        features see and no more: better late in the net than early.

    Args:
        channels: C of the input.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, 1, H, W).

    Raises:
        ValueError: Channels is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, gate: str = "sigmoid") -> None:
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        logits = nn.Conv2d(channels, 1, 1)
        super().__init__(logits, logits, gate)


class CBAMSpatialGate(Reweighting):
    """CBAM's spatial half: a place's weight from the mean and the maximum of the channels around it.

    Paper: Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018.
        https://arxiv.org/abs/1807.06521

    Equation: s = σ(BN(conv_k([mean_C x; max_C x])));  y = s ⊙ x

    Place: in each residual block after the last normalisation; in maps smaller than the kernel most of it is padding.

    Args:
        channels: C of the input; the parameters do not depend on it.
        kernel_size: k, the side of the convolution, odd.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, 1, H, W).

    Raises:
        ValueError: Channels is not positive, the kernel is not odd and positive, or the gate is not known.
    """

    def __init__(self, channels: int, kernel_size: int = 7, gate: str = "sigmoid") -> None:
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        logits = SpatialLogits(kernel_size)
        super().__init__(logits, logits.norm, gate)
