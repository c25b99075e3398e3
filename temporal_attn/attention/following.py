"""Attention that follows a module of a net: hooks let it act on what comes out there, and keep it in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

__all__ = ["Following", "FollowingChannelsLast", "FollowingTokens", "unhook"]


class Following(nn.Module):
    """An attention module that acts on the output (B, C, h, w) of another module of the net.

    Args:
        place: Name of that module.
        attention: What acts.
    """

    def __init__(self, place: str, attention: nn.Module) -> None:
        super().__init__()
        self.place = place
        self.attention = attention

    def follow(self, net: nn.Module) -> None:
        """Act from now on, also on what takes the place of the followed module."""
        net.get_submodule(self.place).register_forward_hook(self.act)
        net.get_submodule(self.place.rpartition(".")[0]).register_forward_pre_hook(self.stay)

    def act(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook: replace the output by its attended form."""
        _refuse_symbols(output)
        return self.attended(output)

    def attended(self, output: Tensor) -> Tensor:
        """What comes out of the place, reweighted."""
        out: Tensor = self.attention(output)
        return out

    def stay(self, parent: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook on the module around the place: act also on what was put there since.

        Normalisations are replaced to synchronise them (`torch.nn.SyncBatchNorm.convert_sync_batchnorm`, Lightning's
        ``sync_batchnorm``), to freeze and to fuse them, and the hooks on the old ones go with them.
        """
        _refuse_symbols(*inputs)
        followed = parent.get_submodule(self.place.rpartition(".")[2])
        # Fusing may also move the hook, to the convolution in front.
        if not self._acts_on(followed) and not any(map(self._acts_on, parent.modules())):
            followed.register_forward_hook(self.act)

    def _acts_on(self, module: nn.Module) -> bool:
        return any(getattr(hook, "__self__", None) is self for hook in module._forward_hooks.values())


class FollowingChannelsLast(Following):
    """The same for outputs (B, h, w, C)."""

    def attended(self, output: Tensor) -> Tensor:
        """What comes out of the place, reweighted."""
        out: Tensor = self.attention(output.permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1)


class FollowingTokens(Following):
    """The same for tokens (B, prefix + h·w, C): those in front (class, registers) are not of the grid and stay."""

    grid: tuple[int, int]

    def note_grid(self, _module: nn.Module, _inputs: tuple[Any, ...], patches: Tensor) -> None:
        """Forward hook on what makes the patches: tokens alone do not tell h from w."""
        self.grid = (patches.shape[-2], patches.shape[-1])

    def attended(self, output: Tensor) -> Tensor:
        """What comes out of the place, reweighted."""
        prefix = output.shape[1] - self.grid[0] * self.grid[1]
        if prefix < 0:
            raise ValueError(
                f"module {self.place!r} has fewer tokens than the grid of {self.grid[0]} × {self.grid[1]} patches; "
                "attention on the grid needs all of them, so do not drop patches"
            )
        maps = output[:, prefix:].transpose(1, 2).reshape(output.shape[0], -1, *self.grid)
        tokens: Tensor = self.attention(maps).flatten(2).transpose(1, 2)
        # To concatenate nothing would still change the strides, and with them the last bits of what follows.
        return torch.cat((output[:, :prefix], tokens), dim=1) if prefix else tokens


def _refuse_symbols(*values: object) -> None:
    # A graph of torch.fx knows modules and not hooks: it would leave out parameters, or what follows its last module.
    if any(isinstance(value, Proxy) for value in values):
        raise ValueError(
            "torch.fx (create_feature_extractor, symbolic_trace) does not see inserted attention; "
            "call remove_attention, make the graph, and insert attention into that, at='norm' for instance"
        )


def unhook(net: nn.Module, modules: set[nn.Module]) -> None:
    """Remove every hook that is a method of one of these modules."""
    for module in net.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "__self__", None) in modules:
                    del hooks[key]
