"""Maps of several stages at once: pyramid feature attention, and a weighted sum of scales.

Both take what a backbone's stages make, from the finest map to the coarsest, and answer at the size of the finest. They
are classes of their own and not insertable, because what goes in is a list.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from temporal_attn.attention.branch import BranchWeights, conv_norm_relu, weighted_sum
from temporal_attn.attention.norm import BatchNorm2d
from temporal_attn.attention.pyramid import ContextPyramid, CrossGate, resize

__all__ = ["MultiScaleFusion", "PyramidFeatureAttention", "ScaleWeights"]


def _check_levels(maps: Sequence[Tensor], channels: Sequence[int]) -> None:
    found = [x.shape[1] for x in maps]
    if found != list(channels):
        raise ValueError(f"maps must have {list(channels)} channels, from the finest to the coarsest; got {found}")


class PyramidFeatureAttention(nn.Module):
    """Coarse maps say where to look on the finest one, and both go on.

    Paper: Zhao and Wu, "Pyramid Feature Attention Network for Saliency Detection", CVPR 2019.
        https://arxiv.org/abs/1903.00179

    Equation: h = δ(BN(W CA([CPFE(C3); up(CPFE(C4)); up(CPFE(C5))]))); s = σ(A₁(h) + A₂(h)); y = [s ⊙ low; h]

    Place: once, over the last stages, before a dense head or the pooling. The paper's low-level features come from the
        two stages before C3; here they are a 3×3 convolution of the finest given map. Its penalty on the mean channel
        weight is a loss and left to the training (the weights are in `record_attention`).

    Args:
        channels: C of each map, from the finest to the coarsest, such as those of C3, C4 and C5.
        width: Channels of each convolution of the pyramid.
        out_channels: Channels of each half of the output.
        rates: Dilations of the pyramid's convolutions, in cells.
        reduction: The bottleneck of the channel attention is a `reduction`-th of its channels wide.
        kernel_size: k of the spatial attention, odd.
        final_relu: See `CrossGate`.
        gate: How the spatial weights enter, see `Gate`; with ``identity`` all places weigh 1 at the start.

    Shape:
        input a list of maps (B, C_s, H_s, W_s), output (B, 2 · out_channels, H_1, W_1): what the fine map has where it
        matters, then the context. Weights: (B, ·, 1, 1) of channels, (B, 1, H_1, W_1) of places.

    Raises:
        ValueError: An option is not valid, or the maps are not those that were announced.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 32,
        out_channels: int = 64,
        rates: Sequence[int] = (3, 5, 7),
        reduction: int = 4,
        kernel_size: int = 9,
        final_relu: bool = False,
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.context = ContextPyramid(channels, width, rates, reduction)
        self.high = conv_norm_relu(self.context.out_channels, out_channels)
        self.low = conv_norm_relu(channels[0], out_channels, 3)
        self.space = CrossGate(out_channels, kernel_size, final_relu, gate)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fine features where they matter, and context, (B, 2 · out_channels, H_1, W_1)."""
        _check_levels(maps, self.channels)
        high = self.high(self.context(maps))
        return torch.cat((self.low(maps[0]) * self.space(high), high), dim=1)


class ScaleWeights(nn.Module):
    """One learned weight a scale, the same for all images: a softmax that starts even.

    Args:
        scales: S.

    Shape:
        input S maps (B, C, ·, ·), output (B, S, 1, 1, 1).
    """

    attention_axes = "branches"

    def __init__(self, scales: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(scales))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The weights, once for each image of the batch."""
        return self.logits.softmax(0).view(1, -1, 1, 1, 1).expand(maps[0].shape[0], -1, -1, -1, -1)

    def attention_weights(self, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """What `attention_maps` shows: the share of every scale, (B, S, 1, 1, 1)."""
        return output


class MultiScaleFusion(nn.Module):
    """Weighted sum of the maps of several stages, brought to one width and one size.

    Paper: for the ``selective`` weights, with scales in the place of kernels: Li, Wang, Hu and Yang, "Selective Kernel
        Networks", CVPR 2019. https://arxiv.org/abs/1903.06586

    Equation: y = Σ_s w_s ⊙ up(BN(W_s x_s)), w = softmax over the scales, which starts at 1/S

    Place: over the last stages of a backbone, instead of its last map alone.

    Args:
        channels: C of each map, from the finest to the coarsest, such as those of C3, C4 and C5.
        width: Channels of the output.
        weights: ``shared`` one number a scale for all images, ``selective`` a choice for each image and channel.
        reduction: The bottleneck of the selective weights is width // reduction wide, at least 32.

    Shape:
        input a list of maps (B, C_s, H_s, W_s), output (B, width, H_1, W_1). Weights: (B, S, 1, 1, 1), or (B, S, width,
        1, 1) where they are selective.

    Raises:
        ValueError: An option is not valid, or the maps are not those that were announced.

    Example:
        >>> maps = [torch.rand(2, 32, 8, 8), torch.rand(2, 64, 4, 4), torch.rand(2, 128, 2, 2)]
        >>> MultiScaleFusion([32, 64, 128], width=16)(maps).shape
        torch.Size([2, 16, 8, 8])
    """

    def __init__(self, channels: Sequence[int], width: int = 256, weights: str = "shared", reduction: int = 16) -> None:
        super().__init__()
        if not channels or min(*channels, width, reduction) < 1:
            raise ValueError(
                f"channels, width and reduction must be positive, got {list(channels)}, {width} and {reduction}"
            )
        self.channels = tuple(channels)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(level, width, 1, bias=False), BatchNorm2d(width)) for level in channels
        )
        self.weights: nn.Module
        if weights == "shared":
            self.weights = ScaleWeights(len(channels))
        elif weights == "selective":
            self.weights = BranchWeights(width, len(channels), max(32, width // reduction))
            nn.init.zeros_(self.weights.up.weight)
        else:
            raise ValueError(f"weights {weights!r} is not known; choose one of: shared, selective")

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The sum of all scales, (B, width, H_1, W_1)."""
        _check_levels(maps, self.channels)
        same = [lateral(x) for x, lateral in zip(maps, self.lateral, strict=True)]
        return weighted_sum([resize(each, same[0]) for each in same], self.weights(same))
