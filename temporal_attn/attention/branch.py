"""Several convolutions side by side, and for each channel a softmax that says which of them to listen to.

`SelectiveKernel` chooses between kernel sizes, `SplitAttention` between splits of one grouped convolution. Both ask a
small net (`BranchWeights`) that has seen the pooled branches, and add the branches up with its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from temporal_attn.attention.channel import bottleneck_width
from temporal_attn.attention.gates import Blend
from temporal_attn.attention.norm import BatchNorm2d
from temporal_attn.attention.pooling import mean

__all__ = ["BranchWeights", "SelectiveKernel", "SplitAttention", "conv_norm_relu", "weighted_sum"]


def conv_norm_relu(
    inputs: int, outputs: int, kernel_size: int | tuple[int, int] = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size of the map, batch normalisation and ReLU."""
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    padding = (dilation * (height // 2), dilation * (width // 2))
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, (height, width), padding=padding, dilation=dilation, groups=groups, bias=False),
        BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def weighted_sum(branches: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Σ_m a_m ⊙ U_m, without ever stacking the branches.

    Args:
        branches: M maps (B, C, H, W).
        weights: (B, M, C, 1, 1), or anything that broadcasts against it.

    Returns:
        (B, C, H, W).
    """
    each = weights.to(branches[0].dtype).unbind(1)
    out = branches[0] * each[0]
    for branch, weight in zip(branches[1:], each[1:], strict=True):
        out.addcmul_(branch, weight)
    return out


class BranchWeights(nn.Module):
    """Weights of M branches for every channel, from the spatial mean of their sum.

    Args:
        channels: C of a branch.
        branches: M; with one branch the softmax has nothing to choose from and a sigmoid takes its place.
        hidden: Width of the bottleneck.
        groups: Cardinality: channel groups that decide by themselves.
        bias: Whether the two layers have biases.

    Shape:
        input M maps (B, C, H, W), output (B, M, C, 1, 1), which sums to 1 over M > 1.

    Raises:
        ValueError: A size is not positive, or the groups do not divide channels and hidden.
    """

    attention_axes = "branches"

    def __init__(self, channels: int, branches: int, hidden: int, groups: int = 1, bias: bool = False) -> None:
        super().__init__()
        if min(channels, branches, hidden, groups) < 1:
            raise ValueError(
                "channels, branches, hidden and groups must be positive, "
                f"got {channels}, {branches}, {hidden} and {groups}"
            )
        if channels % groups or hidden % groups:
            raise ValueError(f"groups={groups} must divide the {channels} channels and the {hidden} hidden units")
        self.branches = branches
        self.groups = groups
        self.down = nn.Conv2d(channels, hidden, 1, groups=groups, bias=bias)
        self.norm = BatchNorm2d(hidden)
        self.up = nn.Conv2d(hidden, branches * channels, 1, groups=groups, bias=bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Weights (B, M, C, 1, 1) of M maps (B, C, H, W)."""
        pooled = torch.stack([mean(each)[..., None, None] for each in maps]).sum(0)  # the sum is never written
        logits: Tensor = self.up(torch.relu(self.norm(self.down(pooled))))
        # A grouped convolution puts the groups first, within each of them the branches.
        channels = logits.shape[1] // self.branches
        logits = logits.reshape(pooled.shape[0], self.groups, self.branches, channels // self.groups).transpose(1, 2)
        weights = logits.softmax(1) if self.branches > 1 else logits.sigmoid()
        return weights.reshape(pooled.shape[0], self.branches, channels, 1, 1)

    def attention_weights(self, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """What `attention_maps` shows: the share of every branch, (B, M, C, 1, 1)."""
        return output


class SelectiveKernel(nn.Module):
    """Convolutions with kernels of several sizes, mixed for each channel as the image asks for.

    Paper: Li, Wang, Hu and Yang, "Selective Kernel Networks", CVPR 2019. https://arxiv.org/abs/1903.06586

    Equation: U_m = δ(BN(conv_m(x))); z = δ(BN(W avg(Σ_m U_m))); a = softmax_m(A_m z); y = Σ_m a_m ⊙ U_m

    Place: instead of the 3×3 convolution of a bottleneck; a whole convolution and no gate, so after a pretrained block
        use ``gate="identity"``.

    Args:
        channels: C of the input.
        kernel_sizes: One odd size a branch; 5 is a 3×3 convolution with dilation 2, as in the paper, and so on.
        groups: Groups of each convolution. None takes the paper's 32, or the greatest common divisor of 32 and C.
        reduction: The bottleneck is C // reduction wide, at least 32.
        gate: How the map enters, see `Blend`. ``sigmoid`` y = f, the paper.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, M, C, 1, 1), the share of each of the M kernels.

    Raises:
        ValueError: A kernel is even or below 3, the groups do not divide the channels, a size is not positive, or the
            gate is not known.
    """

    def __init__(
        self,
        channels: int,
        kernel_sizes: Sequence[int] = (3, 5),
        groups: int | None = None,
        reduction: int = 16,
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = bottleneck_width(channels, reduction, least=32)
        if not kernel_sizes or any(size < 3 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd and at least 3, got {list(kernel_sizes)}")
        groups = math.gcd(channels, 32) if groups is None else groups
        if groups < 1 or channels % groups:
            raise ValueError(f"groups={groups} does not divide the {channels} channels; None chooses one that does")
        self.branches = nn.ModuleList(
            conv_norm_relu(channels, channels, 3, dilation=size // 2, groups=groups) for size in kernel_sizes
        )
        self.select = BranchWeights(channels, len(kernel_sizes), hidden)
        nn.init.normal_(self.select.down.weight, std=0.01)
        nn.init.normal_(self.select.up.weight, std=0.01)
        self.blend = Blend(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W), each channel mixed from all kernel sizes."""
        maps = [branch(x) for branch in self.branches]
        out: Tensor = self.blend(x, weighted_sum(maps, self.select(maps)).to(x.dtype))
        return out


class SplitAttention(nn.Module):
    """One grouped convolution into several splits, mixed for each channel as the image asks for.

    Paper: Zhang, Wu, Zhang, Zhu, Lin, Zhang, Sun, He, Mueller, Manmatha, Li and Smola, "ResNeSt: Split-Attention
        Networks", CVPR Workshops 2022. https://arxiv.org/abs/2004.08955

    Equation: U = δ(BN(conv(x))) in R splits; s = avg(Σ_r U_r); a = softmax_r(W₂ δ(BN(W₁ s))); y = Σ_r a_r ⊙ U_r

    Place: instead of the 3×3 convolution of a bottleneck; a whole convolution and no gate, so after a pretrained block
        use ``gate="identity"``. The average pooling behind it, the deep stem and pooled shortcuts belong to the net.

    Args:
        channels: C of the input.
        radix: R, the splits that are chosen from; with 1 a sigmoid takes the softmax's place.
        groups: K, the cardinality: channel groups that choose by themselves.
        kernel_size: Side of the convolution, odd.
        reduction: The bottleneck is C · R // reduction wide, at least 32.
        gate: How the map enters, see `Blend`. ``sigmoid`` y = f, the paper.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, R, C, 1, 1), the share of each split.

    Raises:
        ValueError: The kernel is even, groups · radix does not divide the channels, a size is not positive, or the
            gate is not known.
    """

    def __init__(
        self,
        channels: int,
        radix: int = 2,
        groups: int = 1,
        kernel_size: int = 3,
        reduction: int = 4,
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        if min(channels, radix, groups, reduction) < 1:
            raise ValueError(
                "channels, radix, groups and reduction must be positive, "
                f"got {channels}, {radix}, {groups} and {reduction}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of split attention must be odd, got {kernel_size}")
        if channels % (groups * radix):
            raise ValueError(
                f"groups · radix = {groups} · {radix} does not divide the {channels} channels; choose smaller ones"
            )
        self.radix = radix
        self.splits = conv_norm_relu(channels, channels * radix, kernel_size, groups=groups * radix)
        hidden = bottleneck_width(channels * radix, reduction, least=32)
        self.select = BranchWeights(channels, radix, hidden, groups, bias=True)
        self.blend = Blend(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W), each channel mixed from all splits."""
        splits = self.splits(x).chunk(self.radix, dim=1)
        out: Tensor = self.blend(x, weighted_sum(splits, self.select(splits)).to(x.dtype))
        return out

    def extra_repr(self) -> str:
        """Show the number of splits when the net is printed."""
        return f"radix={self.radix}"
