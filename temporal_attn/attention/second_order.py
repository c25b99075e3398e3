"""Second-order channel attention: channels weighed by how they vary together.

Paper: Dai, Cai, Zhang, Xia and Zhang, "Second-order Attention Network for Single Image Super-Resolution", CVPR 2019.
    https://openaccess.thecvf.com/content_CVPR_2019/html/Dai_Second-Order_Attention_Network_for_Single_Image_Super-Resolution_CVPR_2019_paper.html
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from temporal_attn.attention.channel import ChannelMLP, bottleneck_width
from temporal_attn.attention.reweighting import Reweighting

__all__ = ["SOCA", "SecondOrderLogits", "channel_covariance", "matrix_square_root"]


def channel_covariance(x: Tensor) -> Tensor:
    """Covariance of the channels over the places of each map.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, C, C), symmetric, positive semi-definite; zero for maps of one place.
    """
    flat = x.flatten(2)
    # Centred first: E[xxᵀ] − μμᵀ would lose the digits of maps whose mean is large.
    centred = flat - flat.mean(2, keepdim=True)
    return centred @ centred.transpose(1, 2) / flat.shape[2]


def matrix_square_root(matrix: Tensor, iterations: int = 5, eps: float = 1e-6) -> Tensor:
    """Square roots of symmetric positive semi-definite matrices by Newton-Schulz iteration.

    Matrix products only, so the batch is one product and the gradient has no division by differences of eigenvalues.
    Five iterations are the paper's and rough: small eigenvalues, relative to the trace, are not there yet.

    Args:
        matrix: (B, C, C).
        iterations: Updates of the root.
        eps: Added to the trace, by which the matrix is divided: the zero matrix has the root zero, not NaN.

    Returns:
        (B, C, C).
    """
    trace = matrix.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + eps
    eye = 1.5 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    root = matrix / trace
    step = eye - 0.5 * root  # the inverse root starts as I
    inverse = step
    root = root @ step
    for iteration in range(1, iterations):
        step = torch.baddbmm(eye, inverse, root, alpha=-0.5)
        root = root @ step
        if iteration < iterations - 1:  # nothing comes after that would need it
            inverse = step @ inverse
    return root * trace.sqrt()


class SecondOrderLogits(nn.Module):
    """Channel logits from the mean of each row of the covariance's square root.

    Args:
        channels: C of the input.
        reduction: Width of the MLP is C // reduction, at least 1.
        covariance_channels: Most channels that a covariance is made of; more are reduced by a 1×1 convolution first,
            because the square root costs their third power.
        iterations: Of Newton-Schulz.

    Shape:
        input (B, C, H, W), output (B, C, 1, 1).

    Raises:
        ValueError: An argument is not positive.
    """

    def __init__(self, channels: int, reduction: int, covariance_channels: int, iterations: int) -> None:
        super().__init__()
        hidden = bottleneck_width(channels, reduction)
        if covariance_channels < 1 or iterations < 1:
            raise ValueError(
                f"covariance_channels and iterations must be positive, got {covariance_channels} and {iterations}"
            )
        self.iterations = iterations
        width = min(channels, covariance_channels)
        # No bias: the covariance would not see it.
        self.reduce = nn.Identity() if width == channels else nn.Conv2d(channels, width, 1, bias=False)
        self.mlp = ChannelMLP(channels, hidden, inputs=width)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C, 1, 1) of maps (B, C, H, W)."""
        reduced = self.reduce(x)
        # Products of products: half precision has neither the range nor the digits.
        with torch.autocast(x.device.type, enabled=False):
            precise = reduced.to(torch.promote_types(reduced.dtype, torch.float32))
            rows = matrix_square_root(channel_covariance(precise), self.iterations).mean(2)
        out: Tensor = self.mlp(rows.to(reduced.dtype))[:, :, None, None]
        return out

    def extra_repr(self) -> str:
        """Show the iterations when the net is printed."""
        return f"iterations={self.iterations}"


class SOCA(Reweighting):
    """Second-order channel attention: weights from the covariance of the channels, normalised by its square root.

    Paper: Dai, Cai, Zhang, Xia and Zhang, "Second-order Attention Network for Single Image Super-Resolution",
        CVPR 2019. https://openaccess.thecvf.com/content_CVPR_2019/html/Dai_Second-Order_Attention_Network_for_Single_Image_Super-Resolution_CVPR_2019_paper.html

    Equation: z = mean of the rows of √cov(Wx), by Newton-Schulz;  s = σ(W₂ δ(W₁ z + b₁) + b₂);  y = s ⊙ x, δ a ReLU

    Place: once a stage, at its end; not in each block, where the square roots would be the net's main cost. Maps
        should have more places than channels in the covariance: of one place it is zero, and the weights are the same
        for every input. The authors leave out all but the centre 1000 × 1000 of larger maps; here every place counts.

    Args:
        channels: C of the input.
        reduction: Width of the MLP is C // reduction, at least 1.
        covariance_channels: Most channels that the covariance is made of; W is a 1×1 convolution to that many, or
            nothing where C is not larger. The authors have none, for 64 channels.
        iterations: Of Newton-Schulz.
        gate: How the weights enter, see `Gate`. ``identity`` starts as y = x.

    Shape:
        input (B, C, H, W), output the same. Weights: (B, C, 1, 1). The root is computed in float32 under autocast.

    Raises:
        ValueError: A number is not positive, or the gate is not known.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        covariance_channels: int = 128,
        iterations: int = 5,
        gate: str = "sigmoid",
    ) -> None:
        logits = SecondOrderLogits(channels, reduction, covariance_channels, iterations)
        super().__init__(logits, logits.mlp.up, gate)
