"""Spatial attention: one weight for each place of the map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from temporal_attn.attention.inlined import correlate, inlines
from temporal_attn.attention.norm import BatchNorm2d
from temporal_attn.attention.pooling import mean_and_max_of_channels
from temporal_attn.attention.reweighting import Reweighting

__all__ = ["CBAMSpatialGate", "Conv1x1Gate", "SpatialLogits"]


class SpatialLogits(nn.Module):
    """Spatial logits from the mean and the maximum over channels.

    Args:
        kernel_size: Side of the convolution, odd.

    Shape:
        input (B, C, H, W), output (B, 1, H, W). As in the authors' code, the normalisation's weight starts at 0, so the
        logits start at 0 everywhere, and the convolution with He's normal distribution by its fan-out.

    Raises:
        ValueError: The kernel is not odd and positive.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of the spatial gate must be odd and positive, got {kernel_size}")
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = BatchNorm2d(1, momentum=0.01)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of maps (B, C, H, W)."""
        if inlines(x):
            # From the last image to the first: what went over the map before ended with the last, and the product that
            # comes after begins with the first, so that either finds a part of the map in the cache.
            back, half = x.flip(0), x.shape[2] // 2
            # Two rows of places in one loop, half an image apart: 1.0 ms for stage 1 and not 1.4, because two streams
            # come faster from memory than one.
            halves = [back] if x.shape[2] % 2 else [back[:, :, :half], back[:, :, half:]]
            descriptors = [torch.cat([reduce(part, 1) for part in halves], 1) for reduce in (torch.mean, torch.amax)]
            summed = correlate(descriptors, self.conv.weight[0]).flip(0).unsqueeze(1)
        else:
            summed = self._by_rows(mean_and_max_of_channels(x))
        out: Tensor = self.norm(summed)
        return out

    def _by_rows(self, descriptors: Tensor) -> Tensor:
        # A single output channel leaves the lanes of a vector empty. So each row of the kernel becomes an output
        # channel, and the rows are summed where they meet: 0.75 ms instead of 1.7 when compiled.
        kernel = self.conv.weight[0].transpose(0, 1).unsqueeze(2)
        rows = conv2d(descriptors, kernel, padding=self.conv.padding)
        height = descriptors.shape[2]
        first, *others = (rows[:, i : i + 1, i : i + height] for i in range(rows.shape[1]))
        return sum(others, first)


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
