"""Context of several ranges on one map, from dilated convolutions side by side: ASPP and pyramid feature attention.

A dilated 3×3 convolution whose rate is the map's side or more sees nothing but its centre and is a 1×1 convolution, so
rates belong to a map size: (1, 2, 3) to 7×7 cells, (6, 12, 18) to the 33×33 that 513 pixels make at stride 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from temporal_attn.attention.branch import conv_norm_relu
from temporal_attn.attention.channel import SE, bottleneck_width
from temporal_attn.attention.gates import Blend, Gate, start_at_zero
from temporal_attn.attention.pooling import mean

__all__ = ["ASPP", "PFA", "ContextPyramid", "CrossGate", "resize"]


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Maps (B, C, h, w) bilinearly brought to the height and width of other maps (B, ·, H, W)."""
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return x
    return nn.functional.interpolate(x, size=list(size), mode="bilinear", align_corners=False)


def context_branches(channels: int, width: int, rates: Sequence[int]) -> nn.ModuleList:
    """A 1×1 convolution and a dilated 3×3 convolution for every rate, each with batch normalisation and ReLU.

    Args:
        channels: C of the input of each.
        width: Channels that each makes.
        rates: Dilations of the 3×3 convolutions, in cells.

    Raises:
        ValueError: No rate, or a size or rate that is not positive.
    """
    if not rates:
        raise ValueError("rates must name at least one dilation, got none")
    if channels < 1 or width < 1 or any(rate < 1 for rate in rates):
        raise ValueError(f"channels, width and rates must be positive, got {channels}, {width} and {list(rates)}")
    return nn.ModuleList(
        [conv_norm_relu(channels, width), *(conv_norm_relu(channels, width, 3, dilation=rate) for rate in rates)]
    )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: context of several ranges, up to the whole image, in every cell.

    Paper: Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017.
        https://arxiv.org/abs/1706.05587

    Equation: y = δ(BN(W [conv1×1(x); conv3×3_r(x) for each rate r; avg(x)])), each part with BN and δ of its own

    Place: once, behind the last stage. A rate as large as the map leaves a 1×1 convolution, so the default rates fit
        7×7 maps; give (6, 12, 18) for the 33×33 maps of the paper.

    Args:
        channels: C of the input.
        rates: Dilations of the 3×3 convolutions, in cells of the map.
        reduction: Each part is C // reduction wide, at least 1: 256 of 2048 as in the paper. With 1 this is
            torchvision's ASPP whose ``out_channels`` are its ``in_channels``.
        dropout: Share of channels' values that training drops at the end; the paper has none, torchvision ½.
        gate: How the map enters, see `Blend`. ``sigmoid`` y = f, the paper.

    Shape:
        input (B, C, H, W), output the same. It makes a map and no weights.

    Raises:
        ValueError: No rate, a size or rate that is not positive, a dropout that is no share, or an unknown gate.
    """

    def __init__(
        self,
        channels: int,
        rates: Sequence[int] = (1, 2, 3),
        reduction: int = 8,
        dropout: float = 0.0,
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        width = bottleneck_width(channels, reduction)
        self.context = context_branches(channels, width, rates)
        self.image = conv_norm_relu(channels, width)
        self.project = nn.Sequential(*conv_norm_relu((len(rates) + 2) * width, channels), nn.Dropout(dropout))
        self.blend = Blend(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) with their context."""
        maps = [branch(x) for branch in self.context]
        image = self.image(mean(x)[..., None, None])
        # Written out and not expanded: `torch.cat` gives up channels_last when one part has strides of 0.
        maps.append(torch.empty_like(maps[0]).copy_(image))
        out: Tensor = self.blend(x, self.project(torch.cat(maps, dim=1)).to(x.dtype))
        return out


class ContextPyramid(nn.Module):
    """Context-aware pyramid feature extraction: what convolutions of several rates see, weighted by channel attention.

    Args:
        channels: C of each input map, from the finest to the coarsest.
        width: Channels of each convolution.
        rates: Dilations of the 3×3 convolutions, in cells.
        reduction: The bottleneck of the channel attention is a `reduction`-th of its channels wide.

    Shape:
        input S maps (B, C_s, H_s, W_s), output (B, S · (1 + rates) · width, H_1, W_1). Weights: (B, ·, 1, 1).

    Raises:
        ValueError: No map, no rate, or a size or rate that is not positive.
    """

    def __init__(
        self, channels: Sequence[int], width: int = 32, rates: Sequence[int] = (3, 5, 7), reduction: int = 4
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels must name at least one map")
        self.levels = nn.ModuleList(context_branches(level, width, rates) for level in channels)
        self.out_channels = len(channels) * (1 + len(rates)) * width
        self.channel = SE(self.out_channels, reduction)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Weighted context of all maps, at the size of the first."""
        seen = [
            resize(branch(x), maps[0])
            for x, level in zip(maps, self.levels, strict=True)
            for branch in cast(nn.ModuleList, level)
        ]
        out: Tensor = self.channel(torch.cat(seen, dim=1))
        return out


class CrossGate(nn.Module):
    """Weights of places from two crossed pairs of strips: 1×k then k×1, and k×1 then 1×k.

    Args:
        channels: C of the input; half of them are in the middle of each pair.
        kernel_size: k, odd.
        final_relu: Whether a ReLU ends each pair, as in the authors' code; the paper's equations have none, and with
            it no sigmoid falls below ½.
        gate: How logits become weights, see `Gate`. ``identity`` starts with a weight of 1 everywhere.

    Shape:
        input (B, C, H, W), output (B, 1, H, W).

    Raises:
        ValueError: Channels is not positive, the kernel is even, the gate is not known, or it is ``identity`` together
            with `final_relu`, which passes no gradient at the zero that it would start from.
    """

    def __init__(self, channels: int, kernel_size: int = 9, final_relu: bool = False, gate: str = "sigmoid") -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of the spatial attention must be odd, got {kernel_size}")
        if final_relu and gate == "identity":
            raise ValueError(
                "final_relu passes no gradient at the zero that gate='identity' starts from; leave one out"
            )
        middle = max(1, channels // 2)
        row, column = (1, kernel_size), (kernel_size, 1)
        end = None if final_relu else -1  # what conv_norm_relu ends with
        self.rows = nn.Sequential(*conv_norm_relu(channels, middle, row), *conv_norm_relu(middle, 1, column)[:end])
        self.columns = nn.Sequential(*conv_norm_relu(channels, middle, column), *conv_norm_relu(middle, 1, row)[:end])
        self.gate = Gate(gate)
        for strips in (self.rows, self.columns):
            start_at_zero(gate, strips[4])  # the last normalisation

    def forward(self, x: Tensor) -> Tensor:
        """Weights (B, 1, H, W) of maps (B, C, H, W)."""
        weights: Tensor = self.gate(self.rows(x) + self.columns(x))
        return weights


class PFA(nn.Module):
    """Pyramid feature attention on one map: which places matter, judged by their context of several ranges.

    Paper: Zhao and Wu, "Pyramid Feature Attention Network for Saliency Detection", CVPR 2019.
        https://arxiv.org/abs/1903.00179

    Equation: h = CA([conv1×1(x); conv3×3_r(x) for each rate r]); s = σ(A₁(h) + A₂(h)); y = s ⊙ x, with A₁ a 1×k then a
        k×1 convolution, A₂ a k×1 then a 1×k one

    Place: behind a late stage, whose map is not smaller than the largest rate. The paper judges maps of coarse stages
        and gates those of fine ones: `PyramidFeatureAttention` does that; here one map is both.

    Args:
        channels: C of the input.
        reduction: Each convolution of the pyramid is C // reduction wide, at least 1: 32 of 256 as in the paper.
        rates: Dilations of the 3×3 convolutions, in cells; those as large as the map see nothing but their centre.
        kernel_size: k of the spatial attention, odd.
        final_relu: See `CrossGate`.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, 1, H, W), and (B, (1 + rates) · C // reduction, 1, 1) of the
        channel attention inside.

    Raises:
        ValueError: No rate, a size or rate that is not positive, an even kernel, an unknown gate, or ``identity``
            together with `final_relu`.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 8,
        rates: Sequence[int] = (3, 5, 7),
        kernel_size: int = 9,
        final_relu: bool = False,
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.context = ContextPyramid([channels], bottleneck_width(channels, reduction), rates)
        self.space = CrossGate(self.context.out_channels, kernel_size, final_relu, gate)

    def forward(self, x: Tensor) -> Tensor:
        """Reweighted maps (B, C, H, W)."""
        weighted: Tensor = x * self.space(self.context([x]))
        return weighted
