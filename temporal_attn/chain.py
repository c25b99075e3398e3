"""An image net as a chain of named parts (stem, stages, head) that run one after the other; what lies above each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from temporal_attn.attention.insertion import HOME
from temporal_attn.nets import SideBySide
from temporal_attn.types import UserError

__all__ = ["parts_above", "parts_of"]

# Parts of each family's `forward_features`, in order. A star stands for all children of that container.
_CHAINS: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = (
    (("stem", ("conv_stem", "bn1")), ("*", ("blocks",)), ("head", ("conv_head", "bn2"))),  # EfficientNet
    (("stem", ("conv_stem", "bn1")), ("*", ("blocks",))),  # MobileNetV3: its head comes after the pooling
    (
        ("stem", ("conv1", "bn1", "act1", "maxpool")),
        ("layer1", ("layer1",)),
        ("layer2", ("layer2",)),
        ("layer3", ("layer3",)),
        ("layer4", ("layer4",)),
    ),  # ResNet, ResNeXt, Wide-ResNet
    (("stem", ("stem",)), ("*", ("stages",)), ("norm_pre", ("norm_pre",))),  # ConvNeXt
    (
        ("stem", ("stem",)),
        ("s1", ("s1",)),
        ("s2", ("s2",)),
        ("s3", ("s3",)),
        ("s4", ("s4",)),
        ("final_conv", ("final_conv",)),
    ),  # RegNet
    (("*", ("features",)),),  # DenseNet
)


def parts_of(net: nn.Module) -> dict[str, tuple[str, ...]]:
    """Named parts of a timm net whose modules, run in order, are its ``forward_features``.

    Returns:
        Part name to the module names in it; empty for a family that is not known to be a chain.
    """
    for chain in _CHAINS:
        if all(isinstance(getattr(net, name, None), nn.Module) for _, names in chain for name in names):
            parts: dict[str, tuple[str, ...]] = {}
            for part, names in chain:
                if part == "*":
                    children = [f"{names[0]}.{child}" for child, _ in net.get_submodule(names[0]).named_children()]
                    parts.update({child: (child,) for child in children})
                else:
                    parts[part] = names
            return parts if _is_chain(net, parts) else {}
    return {}


@torch.no_grad()
def _is_chain(net: nn.Module, parts: Mapping[str, Sequence[str]]) -> bool:
    """Whether the parts really compose to `forward_features`: a subclass may add steps in between."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        x = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64).to(next(net.parameters()))
        expected = net.forward_features(x)  # type: ignore[operator]
        for names in parts.values():
            for name in names:
                x = net.get_submodule(name)(x)
        return x.shape == expected.shape and bool(torch.allclose(x, expected, atol=1e-4, rtol=1e-4))
    except (RuntimeError, TypeError):
        return False
    finally:
        for module, training in modes.items():  # frozen parts stay in evaluation mode while the others train
            module.training = training


def parts_above(net: nn.Module) -> dict[str, int]:
    """How many parts come after the one that a parameter belongs to, for each by its name but for inserted attention.

    Parts are those of the chain, what follows the chain belonging to its last one. Where a net is not known as a chain
    (vision transformers, Swin), parts are the layers that timm groups parameters by for the same purpose, a
    transformer's blocks; nets side by side count each their own.

    Raises:
        UserError: timm does not know layers of this net either.
    """
    if isinstance(net, SideBySide):
        return {f"nets.{n}.{name}": above for n, own in enumerate(net.nets) for name, above in parts_above(own).items()}
    parts = list(parts_of(net).values())
    if parts:
        names = [name for name, _ in net.named_parameters() if not name.startswith(f"{HOME}.")]
        return {name: _above(name, parts) for name in names}
    if not hasattr(net, "group_matcher"):
        raise UserError(
            f"layer_decay needs a backbone whose layers are known, and timm names none of {type(net).__name__}; set it "
            "to 1"
        )
    from timm.models import group_parameters

    layers: dict[str, int] = group_parameters(net, net.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    # timm takes what it does not know for a layer on top of all others.
    known = {name: layer for name, layer in layers.items() if not name.startswith(f"{HOME}.")}
    return {name: max(known.values()) - layer for name, layer in known.items()}


def _above(parameter: str, parts: Sequence[Sequence[str]]) -> int:
    for above, modules in enumerate(reversed(parts)):
        if any(parameter.startswith(f"{module}.") for module in modules):
            return above
    return 0
