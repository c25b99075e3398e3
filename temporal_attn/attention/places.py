"""Where attention goes in an image net: after its stages, after its blocks, or inside their residual branches.

Nets are known by how they are built, not by their class, so that relatives of a family (ResNeXt and Wide-ResNet, DeiT
and EVA) are known with it, in timm and in torchvision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, takewhile

from torch import nn

__all__ = ["Stage", "patch_convolution", "places", "stages_of"]

KINDS = ("conv", "norm", "block", "stage")

_NUMBERED = ("layer", "s", "trunk_output.block", "features.denseblock")  # ResNet, RegNet (timm, torchvision), DenseNet
_NESTED = ("blocks", "stages", "layers", "features")  # EfficientNet, ConvNeXt, Swin, and torchvision's forms of them
_TOKENS = ("blocks", "encoder.layers")  # vision transformers of timm and of torchvision
_PATCHES = ("patch_embed.proj", "conv_proj")
_BESIDE = frozenset({"downsample", "shortcut", "proj", "se", "attn"})  # in a block, but not on its branch
_OF_MAPS = ("BatchNorm", "GroupNorm", "2d")  # in the name of a normalisation of axis 1; others take the last axis
_WEIGHTS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Stage:
    """A part of a net that works at one resolution or, in a vision transformer, a quarter of its blocks.

    Args:
        end: Name of the module whose output is that of the stage.
        blocks: Names of its blocks, in order.
    """

    end: str
    blocks: tuple[str, ...]


def stages_of(net: nn.Module) -> list[Stage]:
    """Stages of an image net, from input to output.

    Args:
        net: Of timm or torchvision: ResNet, ResNeXt, Wide-ResNet, RegNet, DenseNet, EfficientNet, MobileNet, ConvNeXt,
            Swin, vision transformers, and what is built like them.

    Raises:
        ValueError: The net is built in another way; the error says what was found.
    """
    stages = _known_stages(net)
    if stages:
        return stages
    children = list(net.named_children())
    if len(children) == 1 and _known_stages(children[0][1]):
        raise ValueError(f"{type(net).__name__} is a wrapper; pass the net inside it: .{children[0][0]}")
    found = ", ".join(f"{name} ({type(child).__name__})" for name, child in children) or "nothing"
    raise ValueError(
        f"{type(net).__name__} is not built like a net whose stages and blocks are known here; it holds: {found}. "
        "Name the modules that attention shall follow instead: at=[...]"
    )


def _known_stages(net: nn.Module) -> list[Stage]:
    return _numbered(net) or _nested(net) or _flat(net) or _quarters(net)


def patch_convolution(net: nn.Module) -> str | None:
    """Name of the convolution that makes a vision transformer's tokens, whose output has the shape of their grid."""
    return next((name for name in _PATCHES if _child(net, name) is not None), None)


def places(net: nn.Module, at: str | Sequence[str], stages: Sequence[int] | None = None) -> list[str]:
    """Names of the modules that attention shall follow.

    Args:
        net: See `stages_of`.
        at: ``conv``, ``norm``, ``block``, ``stage`` or names of modules, see `insert_attention`.
        stages: Stage numbers from 1; None means all.

    Raises:
        ValueError: The net has no such place; the error says what was found and what to pass.
    """
    if isinstance(stages, (int, str)):
        raise ValueError(f"stages={stages!r} is not a list of stage numbers from 1, such as (3, 4)")
    if not isinstance(at, str):
        if stages is not None:
            raise ValueError("stages number the places of at='conv', 'norm', 'block' and 'stage'; leave them out")
        return _checked(list(at))
    if at not in KINDS:
        known = ", ".join(repr(kind) for kind in KINDS)
        raise ValueError(f"at={at!r} is not known; use {known} or a list of module names")
    available = stages_of(net)
    wanted = range(1, len(available) + 1) if stages is None else stages
    wrong = [number for number in wanted if not 1 <= number <= len(available)]
    if wrong:
        raise ValueError(f"stages {wrong} do not exist: {type(net).__name__} has stages 1 to {len(available)}")
    chosen = [available[number - 1] for number in wanted]
    if at == "stage":
        return _checked([stage.end for stage in chosen])
    blocks = [block for stage in chosen for block in stage.blocks]
    if at == "block":
        return _checked(blocks)
    found = [place for block in blocks if (place := _in_branch(net, block, at)) is not None]
    if blocks and not found:
        kinds = ", ".join(sorted({type(net.get_submodule(block)).__name__ for block in blocks}))
        raise ValueError(f"the blocks of {type(net).__name__} ({kinds}) have no spatial convolution; use at='block'")
    return _checked(found)


def _checked(names: list[str]) -> list[str]:
    if not names:
        raise ValueError("at and stages name no place for attention; give at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"a place is named twice in {names}; attention follows a module once")
    return names


# -- the ways in which nets are built -------------------------------------------------------------------------------


def _child(net: nn.Module, name: str) -> nn.Module | None:
    try:
        return net.get_submodule(name)
    except AttributeError:
        return None


def _children(net: nn.Module, name: str) -> list[str]:
    """Names of the children of a module, none if there is no such module."""
    module = _child(net, name)
    return [f"{name}.{child}" for child, _ in module.named_children()] if module is not None else []


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _numbered(net: nn.Module) -> list[Stage]:
    """Stages of one name and a number each."""
    for prefix in _NUMBERED:
        names = list(takewhile(lambda name: _child(net, name) is not None, (f"{prefix}{i}" for i in count(1))))
        if len(names) > 1:
            # A dense block concatenates: it is the smallest thing whose output nobody gates again.
            return [Stage(name, (name,) if _is_dense(net, name) else tuple(_children(net, name))) for name in names]
    return []


def _nested(net: nn.Module) -> list[Stage]:
    """Containers of blocks in a container, maybe with a stem, reductions and a head between and around them."""
    for parent in _NESTED:
        stages = []
        for name in _children(net, parent):
            module = net.get_submodule(name)
            if isinstance(getattr(module, "blocks", None), nn.Module):
                stages.append(Stage(name, tuple(_children(net, f"{name}.blocks"))))
            elif isinstance(module, nn.Sequential) and len(module) and not any(map(_is_leaf, module)):
                stages.append(Stage(name, tuple(_children(net, name))))
        if stages:
            return stages
    return []


def _flat(net: nn.Module) -> list[Stage]:
    """Blocks in one row, as in torchvision's MobileNets. A stage begins where the width or the resolution changes."""
    groups: list[list[str]] = []
    width = 0
    for name in _children(net, "features"):
        block = net.get_submodule(name)
        convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
        if isinstance(block, nn.Sequential) or _is_leaf(block) or not convolutions:
            continue
        if convolutions[-1].out_channels != width or any(max(module.stride) > 1 for module in convolutions):
            groups.append([])
        groups[-1].append(name)
        width = convolutions[-1].out_channels
    return [Stage(group[-1], tuple(group)) for group in groups]


def _quarters(net: nn.Module) -> list[Stage]:
    """Blocks in one row that all work on the same tokens: four groups of them, as equal as their number allows."""
    row = next((names for parent in _TOKENS if (names := _children(net, parent))), [])
    if not row or patch_convolution(net) is None:
        return []
    number = min(4, len(row))
    ends = [len(row) * i // number for i in range(number + 1)]
    return [Stage(row[end - 1], tuple(row[start:end])) for start, end in pairwise(ends)]


# -- inside a block -------------------------------------------------------------------------------------------------


def _is_dense(net: nn.Module, name: str) -> bool:
    return type(net.get_submodule(name)).__name__.endswith("DenseBlock")


def _branch(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Everything on the residual branch of a block, in the order in which it is written down."""
    for name, child in module.named_children():
        if name not in _BESIDE:
            yield f"{prefix}.{name}", child
            yield from _branch(child, f"{prefix}.{name}")


def _is_norm(module: nn.Module) -> bool:
    """A normalisation, maybe with its activation, but not a block that holds one, such as ConvNormAct."""
    holds = any(isinstance(child, _WEIGHTS) for child in module.modules())
    return "Norm" in type(module).__name__ and not holds


def _in_branch(net: nn.Module, block: str, at: str) -> str | None:
    """Last spatial convolution of a block's branch, None if it has none; or its last normalisation."""
    module = net.get_submodule(block)
    if _is_dense(net, block):
        raise ValueError(
            f"the layers of {block} ({type(module).__name__}) work on concatenated maps, which attention must not gate "
            "again and again; use at='block', which puts it after each dense block"
        )
    if at == "conv":
        return next(
            (
                name
                for name, child in reversed(list(_branch(module, block)))
                if isinstance(child, nn.Conv2d) and max(child.kernel_size) > 1
            ),
            None,
        )
    if hasattr(module, "reparameterize"):
        raise ValueError(
            f"block {block} ({type(module).__name__}) has several branches side by side, which are to be fused; use "
            "at='block'"
        )
    branch = list(_branch(module, block))
    norms = [i for i, (_, child) in enumerate(branch) if _is_norm(child)]
    if not norms:
        raise ValueError(
            f"block {block} ({type(module).__name__}) has no normalisation; use at='block' or name modules"
        )
    name, kind = branch[norms[-1]][0], type(branch[norms[-1]][1]).__name__
    if not any(word in kind for word in _OF_MAPS):
        raise ValueError(
            f"the last normalisation of block {block} ({type(module).__name__}) is {name} ({kind}), where the channels "
            "are last; use at='block'"
        )
    later = next((later for later, child in branch[norms[-1] + 1 :] if isinstance(child, _WEIGHTS)), None)
    if later is not None:
        raise ValueError(
            f"the last normalisation of block {block} ({type(module).__name__}) is {name}, but {later} comes after it, "
            "so the branch does not end there; use at='block' or name modules"
        )
    return name
