"""How an attention weight enters the map: one idea for every mechanism.

sigmoid   y = σ(z) ⊙ x        the papers' form; fresh gates sit near ½ and shrink a pretrained net's activations
residual  y = (1 + σ(z)) ⊙ x  Wang et al., "Residual Attention Network", CVPR 2017. https://arxiv.org/abs/1704.06904
identity  y = 2σ(z) ⊙ x       with the last layer before z zeroed: y = x at the start, a pretrained net is unharmed
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GATES", "Gate"]

GATES = ("sigmoid", "residual", "identity")


class Gate(nn.Module):
    """Turns attention logits z into the weights that multiply the map.

    Being a module, it is where `attention_maps` listens: its output is the weight that was used.

    Args:
        kind: ``sigmoid``, ``residual`` or ``identity``.

    Shape:
        input any, output the same: in [0, 1] (sigmoid), [1, 2] (residual) or [0, 2] (identity).

    Raises:
        ValueError: The kind is not one of the three.
    """

    def __init__(self, kind: str = "sigmoid") -> None:
        super().__init__()
        if kind not in GATES:
            raise ValueError(f"gate {kind!r} is not known; choose one of: {', '.join(GATES)}")
        self.kind = kind

    def forward(self, logits: Tensor) -> Tensor:
        """Weights of the same shape as the logits."""
        weight = torch.sigmoid(logits)
        if self.kind == "residual":
            return 1 + weight
        if self.kind == "identity":
            return 2 * weight
        return weight

    def start(self, last: nn.Conv2d | nn.Linear) -> None:
        """Zero the layer that makes the logits when the gate must start as the identity."""
        if self.kind == "identity":
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    def extra_repr(self) -> str:
        """Show the kind when the net is printed."""
        return self.kind
