"""Stochastic depth: a residual branch that some clips skip in training.

Paper: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. https://arxiv.org/abs/1603.09382
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DropPath", "drop_path_rates"]


class DropPath(nn.Module):
    """Drops a branch for whole clips and scales it up for the others, so that its expectation stays.

    Args:
        rate: Probability to skip the branch, in [0, 1).

    Shape:
        branch (B, …), output the same.

    Raises:
        ValueError: The rate is out of range.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path is a probability in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """The branch as it is added."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1)).bernoulli_(1 - self.rate)
        return branch * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        """Show the rate when the net is printed."""
        return f"{self.rate:g}"


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates of ``depth`` blocks: deeper ones are skipped more often, linearly up to ``rate``."""
    return [rate * (block + 1) / depth for block in range(depth)]
