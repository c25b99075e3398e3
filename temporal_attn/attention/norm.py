"""Batch normalisation that also trains on one value a channel, as after global pooling with a batch of one."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["BatchNorm2d"]


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, except that it does not refuse to train on a single value a channel.

    One value has no variance: its own statistics would turn any input into the bias. There the running statistics
    normalise, as in evaluation, and stay as they are.

    Shape:
        input (B, C, H, W), output the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised maps (B, C, H, W)."""
        if self.training and input.numel() == input.shape[1]:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)
