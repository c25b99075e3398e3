"""How attention enters the map: one idea for every mechanism, with three settings.

For mechanisms that weigh the map with logits z (`Gate`):

sigmoid   y = σ(z) ⊙ x        most papers' form; fresh gates sit near ½ and shrink a pretrained net's activations
residual  y = (1 + σ(z)) ⊙ x  Wang et al., "Residual Attention Network", CVPR 2017. https://arxiv.org/abs/1704.06904
identity  y = 2σ(z) ⊙ x       with the last layer before z zeroed: y = x at the start, a pretrained net is unharmed

For mechanisms that make a map f(x) of their own (`Blend`): y = f(x), y = x + f(x), and y = x + γ(f(x) − x) with a
learned γ = 0 at the start.

Mechanisms that add to the map, y = x + b(x), are residual already: sigmoid and residual are the same there, and
identity starts with b = 0 because the last layer of b is zero. `start_at_zero` does that for them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GATES", "Blend", "Gate", "check_gate", "start_at_zero"]

GATES = ("sigmoid", "residual", "identity")


def check_gate(kind: str) -> str:
    """The kind itself.

    Raises:
        ValueError: It is not one of the three.
    """
    if kind not in GATES:
        raise ValueError(f"gate {kind!r} is not known; choose one of: {', '.join(GATES)}")
    return kind


def start_at_zero(kind: str, last: nn.Module) -> None:
    """Zero the layer that makes the logits, or the addition, when the gate must start as the identity.

    Args:
        kind: The gate; any but ``identity`` leaves the layer as it is.
        last: A layer with a weight and maybe a bias: a convolution, a linear layer or a normalisation.
    """
    if kind == "identity":
        for parameter in last.parameters(recurse=False):
            nn.init.zeros_(parameter)


class Gate(nn.Module):
    """Turns attention logits z into the weights that multiply the map.

    Args:
        kind: ``sigmoid``, ``residual`` or ``identity``.

    Shape:
        input any, output the same: in [0, 1] (sigmoid), [1, 2] (residual) or [0, 2] (identity).

    Raises:
        ValueError: The kind is not one of the three.
    """

    def __init__(self, kind: str = "sigmoid") -> None:
        super().__init__()
        self.kind = check_gate(kind)

    def forward(self, logits: Tensor) -> Tensor:
        """Weights of the same shape as the logits."""
        weight = torch.sigmoid(logits)
        if self.kind == "residual":
            return 1 + weight
        if self.kind == "identity":
            return 2 * weight
        return weight

    def attention_weights(self, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """What `attention_maps` shows: the weights that were used."""
        return output

    def extra_repr(self) -> str:
        """Show the kind when the net is printed."""
        return self.kind


class Blend(nn.Module):
    """Lets a map that a mechanism made take the place of its input, join it, or grow in from nothing.

    Args:
        kind: ``sigmoid`` y = f (the papers' form), ``residual`` y = x + f, ``identity`` y = x + γ(f − x), γ = 0 at the
            start.

    Shape:
        input x and f of one shape, output the same.

    Raises:
        ValueError: The kind is not one of the three.
    """

    def __init__(self, kind: str = "sigmoid") -> None:
        super().__init__()
        self.kind = check_gate(kind)
        if kind == "identity":
            self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """The map that goes on."""
        if self.kind == "residual":
            return x + out
        if self.kind == "identity":
            return x + self.gamma * (out - x)
        return out

    def extra_repr(self) -> str:
        """Show the kind when the net is printed."""
        return self.kind
