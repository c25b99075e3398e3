"""Put attention into a net that exists already, read its weights, and take it out again.

The new modules live under ``net.frame_attention`` and act as forward hooks on the modules that they follow. So the
net's own parameter names stay as they are (pretrained weights load, missing keys are exactly the new ones), and
removal restores the net bit for bit. The hook is a bound method of a module, which copies and pickles with its net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from temporal_attn.attention.registry import build

__all__ = ["insert_attention", "remove_attention", "stage_names"]

HOME = "frame_attention"


class _After(nn.Module):
    """An attention module that acts on the output of another module of the net."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def act(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook: replace the output by its attended form."""
        out: Tensor = self.attention(output)
        return out


def stage_names(net: nn.Module) -> list[str]:
    """Names of the stages of a convolutional net, from input to output.

    Knows ResNet-like nets (``layer1``…) of timm and torchvision, and timm's RegNet (``s1``…), EfficientNet and
    MobileNet (``blocks.0``…) and ConvNeXt (``stages.0``…).

    Raises:
        ValueError: The net has none of these layouts.
    """
    for prefix in ("layer", "s"):
        names = [f"{prefix}{i}" for i in range(1, 5)]
        if all(isinstance(getattr(net, name, None), nn.Module) for name in names):
            return names
    for parent in ("blocks", "stages"):
        group = getattr(net, parent, None)
        if isinstance(group, (nn.Sequential, nn.ModuleList)) and len(group) and isinstance(group[0], nn.Module):
            children = list(group)
            if all(isinstance(child, nn.Sequential) or hasattr(child, "blocks") for child in children):
                return [f"{parent}.{i}" for i in range(len(children))]
    raise ValueError(
        f"{type(net).__name__} has no stages that attention can be put into by number; "
        "name the modules instead (at=[...])"
    )


def _branch_ends(net: nn.Module, stage: str) -> Iterator[str]:
    """Last normalisation of each residual block of a stage: where the branch ends, before the shortcut is added."""
    for block_name, block in net.get_submodule(stage).named_children():
        norms = [
            name
            for name, child in block.named_children()
            if isinstance(child, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm))
        ]
        if not norms:
            raise ValueError(
                f"block {stage}.{block_name} ({type(block).__name__}) does not end in a batch or group norm; "
                "use at='stage' or name the modules (at=[...])"
            )
        yield f"{stage}.{block_name}.{norms[-1]}"


def _places(net: nn.Module, at: str | Sequence[str], stages: Sequence[int] | None) -> list[str]:
    if not isinstance(at, str):
        if stages is not None:
            raise ValueError("stages number the places of at='block' and at='stage'; with module names leave them out")
        return list(at)
    if at not in ("stage", "block"):
        raise ValueError(f"at={at!r} is not known; use 'stage', 'block' or a list of module names")
    available = stage_names(net)
    wanted = range(1, len(available) + 1) if stages is None else stages
    wrong = [number for number in wanted if not 1 <= number <= len(available)]
    if wrong:
        raise ValueError(f"stages {wrong} do not exist: {type(net).__name__} has stages 1 to {len(available)}")
    chosen = [available[number - 1] for number in wanted]
    return chosen if at == "stage" else [name for stage in chosen for name in _branch_ends(net, stage)]


@torch.no_grad()
def _channels(net: nn.Module, places: Sequence[str], size: int) -> dict[str, int]:
    """Channel count behind each place, from one small forward pass that leaves the net as it was."""
    seen: dict[str, int] = {}

    def listen(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise ValueError(f"module {name!r} does not return a (B, C, H, W) map; attention cannot follow it")
            seen[name] = output.shape[1]

        return hook

    try:
        handles = [net.get_submodule(name).register_forward_hook(listen(name)) for name in places]
    except AttributeError as error:
        raise ValueError(f"attention cannot be inserted: {error}") from None
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        parameter = next(net.parameters())
        net(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return seen


def insert_attention(
    net: nn.Module,
    name: str = "cbam",
    at: str | Sequence[str] = "block",
    stages: Sequence[int] | None = None,
    gate: str = "identity",
    probe_size: int = 64,
    **options: Any,  # noqa: ANN401
) -> nn.Module:
    """Insert an attention mechanism into a net, in place.

    Args:
        net: A timm or torchvision image net that takes (B, 3, H, W).
        name: A mechanism, see `temporal_attn.attention.names`.
        at: ``block`` after the last normalisation of each residual branch, before the shortcut is added (where the
            papers put it), ``stage`` after each stage, or names of modules whose output map it shall follow.
        stages: Stage numbers from 1; None means all. Only for ``block`` and ``stage``.
        gate: See `gates`. The default leaves a pretrained net's outputs unchanged at the start.
        probe_size: Side in pixels of the blank image that is sent through once to learn the channel counts.
        options: Further arguments of the mechanism, such as ``reduction=8``.

    Returns:
        The same net.

    Raises:
        ValueError: Attention was inserted before, or the net has no such place.
    """
    if hasattr(net, HOME):
        raise ValueError(f"{type(net).__name__} has attention already; call remove_attention first")
    if isinstance(net, nn.Sequential):
        raise ValueError("a bare nn.Sequential would run the attention as one more layer; wrap it in a module")
    places = _places(net, at, stages)
    if len(set(places)) < len(places):
        raise ValueError(f"a place is named twice in {places}; attention follows a module once")
    channels = _channels(net, places, probe_size)
    unreached = [place for place in places if place not in channels]
    if unreached:
        raise ValueError(
            f"modules {unreached} are not used in the net's forward pass; attention there would do nothing"
        )
    home = nn.ModuleDict()
    reference = next(net.parameters())
    for place in places:
        after = _After(build(name, channels[place], gate=gate, **options).to(reference.device, reference.dtype))
        home[place.replace(".", "_")] = after
        net.get_submodule(place).register_forward_hook(after.act)
    net.add_module(HOME, home)
    return net


def remove_attention(net: nn.Module) -> nn.Module:
    """Take inserted attention out again; the net computes what it computed before.

    Raises:
        ValueError: No attention was inserted.
    """
    home = getattr(net, HOME, None)
    if home is None:
        raise ValueError(f"{type(net).__name__} has no inserted attention")
    afters = set(home.children())
    for module in net.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__self__", None) in afters:
                del module._forward_hooks[key]
    delattr(net, HOME)
    return net
