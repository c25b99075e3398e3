"""What hooks need in nets that `torch.compile` works on: compiled code does not notice that hooks came or went."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

__all__ = ["forget_compiled_code", "run_uncompiled", "uncompiled"]


def uncompiled(net: nn.Module) -> nn.Module:
    """The net itself where ``torch.compile(net)`` is around it; any other net as it is."""
    inner: nn.Module = getattr(net, "_orig_mod", net)
    return inner


def run_uncompiled() -> AbstractContextManager[object]:
    """Within it, compiled nets run as they are written, so that hooks are called."""
    return torch.compiler.set_stance("force_eager") if _may_be_compiled() else nullcontext()


def forget_compiled_code() -> None:
    """Have every compiled net compiled anew at its next call."""
    if _may_be_compiled():
        torch.compiler.reset()


def _may_be_compiled() -> bool:
    # Whatever compiles has imported it; to import it only to find nothing compiled would take seconds.
    return "torch._dynamo" in sys.modules
