"""How large the largest tensor is that a computation makes, its backward pass included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["largest_tensor"]


class _Largest(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operator(*args, **(kwargs or {}))
        sizes = [leaf.untyped_storage().nbytes() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.bytes = max([self.bytes, *sizes])
        return out


def largest_tensor(module: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Bytes of the largest tensor in a forward and a backward pass."""
    with torch.enable_grad(), _Largest() as seen:
        module(*inputs).sum().backward()
    return seen.bytes
