"""Channel attention from pooled descriptors: squeeze-and-excitation, ECA, and the choice between their sources."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from temporal_attn.attention.inlined import linear, written_down
from temporal_attn.attention.pooling import maximum, mean, mean_and_max
from temporal_attn.attention.reweighting import Reweighting

__all__ = [
    "ECA",
    "SE",
    "ChannelConvLogits",
    "ChannelGate",
    "ChannelLogits",
    "ChannelMLP",
    "ChannelMLPLogits",
    "bottleneck_width",
]

SOURCES = ("average", "max", "both", "conv1d")


def bottleneck_width(channels: int, reduction: int, least: int = 1) -> int:
    """Width of a bottleneck: C // reduction, but not below `least`.

    Raises:
        ValueError: Channels or reduction is not positive.
    """
    if channels < 1 or reduction < 1:
        raise ValueError(f"channels and reduction must be positive, got {channels} and {reduction}")
    return max(least, channels // reduction)


def neighbourhood(channels: int, kernel_size: int | None) -> int:
    """Channels that a weight along the channels looks at: as given, or for None the paper's |log₂C / 2 + 1/2|.

    Raises:
        ValueError: Channels is not positive, or the kernel is not odd, or longer than 2C − 1 and so with weights that
            never meet a channel.
    """
    if channels < 1:
        raise ValueError(f"channels must be positive, got {channels}")
    if kernel_size is None:
        return int(math.log2(channels) / 2 + 0.5) | 1
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the channel convolution must be odd and positive, got {kernel_size}")
    if kernel_size > 2 * channels - 1:
        raise ValueError(
            f"kernel_size={kernel_size} of the channel convolution is too long for {channels} channels; "
            f"choose {2 * channels - 1} at most"
        )
    return kernel_size


class ChannelMLP(nn.Module):
    """One hidden layer between channel descriptors.

    Linear layers and not 1×1 convolutions: on a vector they take half the time on a CPU. Weights of a checkpoint that
    has convolutions there fit after ``weight.flatten(1)``.

    Args:
        channels: Width of the output.
        hidden: Width in the middle.
        inputs: Width of the input; None means that of the output.

    Shape:
        input (B, inputs), output (B, C).
    """

    def __init__(self, channels: int, hidden: int, inputs: int | None = None) -> None:
        super().__init__()
        self.down = nn.Linear(channels if inputs is None else inputs, hidden)
        self.up = nn.Linear(hidden, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Answer (B, C) to descriptors (B, inputs)."""
        out: Tensor = self.up(torch.relu(self.down(pooled)))
        return out


class ChannelMLPLogits(nn.Module):
    """Channel logits from one pooled descriptor through an MLP.

    Args:
        channels: C of the input.
        reduction: Width of the MLP is C // reduction, at least 1.
        maximum: Whether channels are described by their maximum and not by their average.

    Shape:
        input (B, C, H, W), output (B, C, 1, 1).

    Raises:
        ValueError: Channels or reduction is not positive.
    """

    def __init__(self, channels: int, reduction: int = 16, maximum: bool = False) -> None:
        super().__init__()
        self.maximum = maximum
        self.mlp = ChannelMLP(channels, bottleneck_width(channels, reduction))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, 1, 1) of maps (B, C, H, W)."""
        pooled = maximum(x) if self.maximum else mean(x)
        out: Tensor = self.mlp(pooled)[:, :, None, None]
        return out

    def extra_repr(self) -> str:
        """Show the pooling when the net is printed."""
        return "maximum" if self.maximum else "average"


class ChannelLogits(nn.Module):
    """Channel logits from the average- and the max-pooled map through one shared MLP.

    Args:
        channels: C of the input.
        reduction: Width of the MLP is C // reduction, at least 1.
        bias: Whether the MLP has biases, as the authors' code has.

    Shape:
        input (B, C, H, W), output (B, C, 1, 1).

    Raises:
        ValueError: Channels or reduction is not positive.
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = True) -> None:
        super().__init__()
        hidden = bottleneck_width(channels, reduction)
        self.down = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.up = nn.Conv2d(hidden, channels, 1, bias=bias)
        if bias:
            nn.init.zeros_(self.down.bias)  # type: ignore[arg-type]
            nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, 1, 1) of maps (B, C, H, W)."""
        # The weights are those of 1×1 convolutions, as in published checkpoints, but a convolution of one place takes
        # 1.5 to 8 times as long as a matrix product. One product makes both hidden layers, and because the MLP is
        # linear after its ReLU, they are summed before `up`.
        hidden = torch.relu(linear(mean_and_max(x), self.down.weight.flatten(1), self.down.bias)).sum(1, keepdim=True)
        twice = None if self.up.bias is None else 2 * self.up.bias
        # Written down, or each of the C outputs would begin with the ReLU: 0.15 instead of 0.29 ms on stage 4.
        return linear(written_down(hidden), self.up.weight.flatten(1), twice).mT.unsqueeze(3)


class ChannelConvLogits(nn.Module):
    """Channel logits from the average-pooled map by a convolution along the channels.

    Args:
        channels: C of the input; it sets the kernel where none is given.
        kernel_size: Channels that a weight looks at, odd and at most 2C − 1; None takes the paper's |log₂C / 2 + 1/2|,
            cut to an integer and raised to an odd one: 3 for 64 channels, 5 for 128 to 1024, 7 for 2048.

    Shape:
        input (B, C, H, W), output (B, C, 1, 1).

    Raises:
        ValueError: Channels is not positive, or the kernel is not odd or exceeds 2C − 1.
    """

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        length = neighbourhood(channels, kernel_size)
        self.conv = nn.Conv1d(1, 1, length, padding=length // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, 1, 1) of maps (B, C, H, W)."""
        out: Tensor = self.conv(mean(x)[:, None])
        return out.transpose(1, 2)[..., None]


class SE(Reweighting):
    """Squeeze-and-excitation: a channel's weight from the averages of all channels.

    Paper: Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018. https://arxiv.org/abs/1709.01507

    Equation: s = σ(W₂ δ(W₁ avg(x) + b₁) + b₂);  y = s ⊙ x, δ a ReLU

    Place: in each residual block after the last normalisation, before the shortcut is added; not on a concatenated
        input, as inside a DenseNet layer, whose old features it would weigh again and again.

    Args:
        channels: C of the input.
        reduction: Width of the bottleneck is C // reduction, at least 1.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, 1, 1).

    Raises:
        ValueError: Channels or reduction is not positive, or the gate is not known.
    """

    def __init__(self, channels: int, reduction: int = 16, gate: str = "sigmoid") -> None:
        logits = ChannelMLPLogits(channels, reduction)
        super().__init__(logits, logits.mlp.up, gate)


class ECA(Reweighting):
    """Efficient channel attention: a channel's weight from the averages of its neighbours in the channel order.

    Paper: Wang, Wu, Zhu, Li, Zuo and Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural
        Networks", CVPR 2020. https://arxiv.org/abs/1910.03151

    Equation: s = σ(conv1d_k(avg(x)));  y = s ⊙ x, k the odd number next to |log₂C / 2 + 1/2|

    Place: as squeeze-and-excitation, in each residual block after the last normalisation. It has k parameters, so it
        costs next to nothing anywhere; the authors' released weights have k = 3, 5, 5, 7 in ResNet-50, this formula
        5, 5, 5, 7.

    Args:
        channels: C of the input.
        kernel_size: k, odd and at most 2C − 1; None takes the formula.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, 1, 1).

    Raises:
        ValueError: Channels is not positive, the kernel is not odd or exceeds 2C − 1, or the gate is not known.
    """

    def __init__(self, channels: int, kernel_size: int | None = None, gate: str = "sigmoid") -> None:
        logits = ChannelConvLogits(channels, kernel_size)
        super().__init__(logits, logits.conv, gate)


class ChannelGate(Reweighting):
    """Channel weights from one of four sources, to compare what a channel is best judged by.

    Paper: Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, compares the first
        three; the fourth is ECA's. https://arxiv.org/abs/1807.06521

    Equation: y = σ(z) ⊙ x;  z = MLP(avg(x)), MLP(max(x)), MLP(avg(x)) + MLP(max(x)) or conv1d(avg(x))

    Place: as squeeze-and-excitation, in each residual block after the last normalisation.

    Args:
        channels: C of the input.
        source: ``average`` (as SE), ``max``, ``both`` through one shared MLP (as CBAM), ``conv1d`` (as ECA).
        reduction: Width of the MLP is C // reduction; ``conv1d`` has none.
        kernel_size: Of ``conv1d``; None takes ECA's formula.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, 1, 1).

    Raises:
        ValueError: The source or gate is not known, channels or reduction is not positive, or the kernel is not odd or
            exceeds 2C − 1, whether the source uses them or not.
    """

    def __init__(
        self,
        channels: int,
        source: str = "both",
        reduction: int = 16,
        kernel_size: int | None = None,
        gate: str = "sigmoid",
    ) -> None:
        if source not in SOURCES:
            raise ValueError(f"source {source!r} of the channel gate is not known; choose one of: {', '.join(SOURCES)}")
        bottleneck_width(channels, reduction)
        neighbourhood(channels, kernel_size)  # a mistake shows with every source, not when the source is changed
        logits: nn.Module
        last: nn.Module
        if source == "conv1d":
            logits = ChannelConvLogits(channels, kernel_size)
            last = logits.conv
        elif source == "both":
            logits = ChannelLogits(channels, reduction)
            last = logits.up
        else:
            logits = ChannelMLPLogits(channels, reduction, maximum=source == "max")
            last = logits.mlp.up
        super().__init__(logits, last, gate)
