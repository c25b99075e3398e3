"""Put attention into a net that exists already, and take it out again.

The new modules live under ``net.frame_attention`` and act as forward hooks on the modules that they follow. So the
net's own parameter names stay as they are (pretrained weights load, missing keys are exactly the new ones), and
removal restores the net bit for bit. The hooks are bound methods of modules, which copy and pickle with their net.
Nets with attention inside are exported or traced, not scripted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from temporal_attn.attention.compiled import forget_compiled_code, run_uncompiled, uncompiled
from temporal_attn.attention.following import Following, FollowingChannelsLast, FollowingTokens, unhook
from temporal_attn.attention.places import patch_convolution, places
from temporal_attn.attention.registry import build

__all__ = ["HOME", "insert_attention", "inserted", "remove_attention"]

HOME = "frame_attention"
"""Name, in a net, of what was inserted into it."""


class _Home(nn.Module):
    """Holds the new modules. Nets that run their children in a row pass through it unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def inserted(net: nn.Module) -> dict[str, nn.Module]:
    """Name of each module that attention was put behind, to the new module; empty if there is none."""
    home = getattr(net, HOME, None)
    modules = [] if home is None else [cast(Following, child) for child in home.children()]
    return {module.place: module for module in modules}


def insert_attention(
    net: nn.Module,
    name: str = "cbam",
    at: str | Sequence[str] = "block",
    stages: Sequence[int] | None = None,
    gate: str | None = "identity",
    image_size: tuple[int, int] | None = None,
    **options: Any,  # noqa: ANN401
) -> nn.Module:
    """Insert an attention mechanism into a net, in place. A compiled net is compiled anew at its next call.

    The net can be exported or traced afterwards, not scripted: `torch.jit.script` does not take its hooks. Of torch.fx
    (torchvision's ``create_feature_extractor``) the graph is made first, and attention is inserted into that.

    Args:
        net: A timm or torchvision image net that takes (B, C, H, W), C being what its first convolution takes.
        name: A mechanism, see `temporal_attn.attention.names`, or the path of a class ``package.module.Class``.
        at: Where, in every block or stage that is asked for:

            - ``block`` after the whole block. Every family has it; in a DenseNet it is the dense block.
            - ``norm`` after the last normalisation of the residual branch, before the shortcut is added: where the
              papers of SE, CBAM and ECA put it. Not in a DenseNet, nor where the normalisation is channels-last, nor
              where a convolution or linear layer follows it (pre-activation ResNets and RegNets, ConvNeXt), nor where
              it makes only a part of the branch (RepVGG, GhostNet).
            - ``conv`` after the last spatial convolution (larger than 1×1) of the branch, as coordinate attention in
              MobileNets. Blocks without one are passed over.
            - ``stage`` after the whole stage.
            - Names of modules whose output it shall follow: maps (B, C, h, w) or (B, h, w, C), or tokens of a grid.
        stages: Stage numbers from 1; None means all. In a vision transformer, four equal groups of blocks count as
            its stages; where it answers by its class token, nothing reads what attention does after the last block.
            Not together with names.
        gate: See `gates`. The default leaves a pretrained net's outputs unchanged at the start. None leaves it to the
            mechanism, see `build`.
        image_size: Height and width in pixels of the blank image that is sent through once to learn what comes out at
            each place; None takes the size that the net was made for, or a small one if it takes any.
        options: Further arguments of the mechanism, such as ``reduction=8``.

    Returns:
        The same net.

    Raises:
        ValueError: Attention was inserted before, the net has no such place, the mechanism does not fit there, or the
            net does not run with it. The net is as it was then.

    Example:
        >>> net = insert_attention(timm.create_model("resnet50"), "se", at="norm", stages=(3, 4))  # doctest: +SKIP
    """
    whole, net = net, uncompiled(net)
    if hasattr(net, HOME):
        raise ValueError(f"{type(net).__name__} has attention already; call remove_attention first")
    if isinstance(image_size, int):
        raise ValueError(f"image_size={image_size} is not a height and a width, such as (224, 224)")
    patches = patch_convolution(net)
    chosen = places(net, at, stages)
    size = image_size or _image_size(net)
    image = _blank_image(net, size)
    block_of = dict(zip(chosen, places(net, "block", stages), strict=True)) if at == "norm" else {}
    shapes, answer = _output_shapes(net, [*chosen, *([] if patches is None else [patches])], block_of.values(), image)
    for place, block in block_of.items():
        _check_whole(net, place, block, shapes)
    home = _Home()
    for place, key in _keys(chosen).items():
        wrap, channels = _layout(net, place, shapes, patches, size)
        attention = build(name, channels, gate, **options).to(image.device, image.dtype)
        home.add_module(key, wrap(place, attention))
    for following in cast(list[Following], list(home.children())):
        following.follow(net)
        if isinstance(following, FollowingTokens) and patches is not None:
            following.grid = shapes[patches][2], shapes[patches][3]
            net.get_submodule(patches).register_forward_hook(following.note_grid)
    net.add_module(HOME, home.train(net.training))
    try:
        if _forms(_blank_pass(net, image)) != answer:
            raise ValueError("its outputs have other shapes then")
    except Exception as error:
        _take_out(net)
        raise ValueError(
            f"{type(net).__name__} does not run with attention {name!r} inside on a blank image {tuple(image.shape)}: "
            f"{_first_line(error)}"
        ) from error
    forget_compiled_code()
    return whole


def remove_attention(net: nn.Module) -> nn.Module:
    """Take inserted attention out again; the net computes what it computed before.

    Returns:
        The same net.

    Raises:
        ValueError: No attention was inserted.
    """
    whole, net = net, uncompiled(net)
    if not inserted(net):
        inner = next((name for name, module in net.named_modules() if inserted(module)), None)
        remedy = "" if inner is None else f"; it is in the net inside: .{inner}"
        raise ValueError(f"{type(net).__name__} has no inserted attention{remedy}")
    _take_out(net)
    forget_compiled_code()
    return whole


def _take_out(net: nn.Module) -> None:
    """Remove the hooks and the new modules."""
    unhook(net, set(inserted(net).values()))
    delattr(net, HOME)


def _keys(chosen: Sequence[str]) -> dict[str, str]:
    """Place to its key in the state dict: ``layer3.0.bn2`` is ``layer3_0_bn2``, unless another place would be too."""
    short = {place: place.replace(".", "_") for place in chosen}
    uses = Counter(short.values())
    return {place: key if uses[key] == 1 else place.replace(".", "/") for place, key in short.items()}


def _image_size(net: nn.Module) -> tuple[int, int]:
    """Height and width that a net was made for; small and not square for one that takes any."""
    # timm's transformers, torchvision's, and timm's other nets that are made for one size
    size = getattr(getattr(net, "patch_embed", None), "img_size", None) or getattr(net, "image_size", None)
    config: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
    if size is None and config.get("fixed_input_size"):
        size = config["input_size"][1:]
    if size is None:
        return (64, 96)
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _blank_image(net: nn.Module, size: tuple[int, int]) -> Tensor:
    """An image (1, C, H, W) of as many channels as the first convolution takes."""
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    like = next(net.parameters(), torch.empty(0))
    return torch.zeros(1, 3 if first is None else first.in_channels, *size, device=like.device, dtype=like.dtype)


@torch.no_grad()
def _blank_pass(net: nn.Module, image: Tensor) -> Any:  # noqa: ANN401
    """What comes out for the image, from a forward pass that leaves the net as it was."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with run_uncompiled():
            return net(image)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _output_shapes(
    net: nn.Module, names: Sequence[str], around: Iterable[str], image: Tensor
) -> tuple[dict[str, tuple[int, ...]], object]:
    """Shapes of what comes out of modules, and of those around them that run, and the form of the net's own answer."""
    shapes: dict[str, tuple[int, ...]] = {}

    def listen(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return hook

    try:
        modules = {name: net.get_submodule(name) for name in (*names, *around)}
    except AttributeError as error:
        raise ValueError(f"attention cannot be inserted: {error}") from None
    handles = [module.register_forward_hook(listen(name)) for name, module in modules.items()]
    try:
        answer = _forms(_blank_pass(net, image))
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = _first_line(error)
        # The size may be wrong where the net objects to values, not where it takes other arguments or channels.
        of_values = type(error) in (AssertionError, RuntimeError, ValueError) and "channels" not in reason
        remedy = "pass image_size=(height, width)" if of_values else "it must take one batch of images"
        raise ValueError(
            f"{type(net).__name__} does not take a blank image {tuple(image.shape)}: {reason}; {remedy}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    unreached = [name for name in names if name not in shapes]
    if unreached:
        raise ValueError(
            f"modules {unreached} are not used in the net's forward pass; attention there would do nothing"
        )
    return shapes, answer


def _check_whole(net: nn.Module, place: str, block: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse the last normalisation of a block that makes only a part of what the block adds to its input."""
    part, whole = prod(shapes[place]), prod(shapes.get(block, ()))
    if shapes.get(block) and part != whole:  # a block may answer with something else, or only its parts run (torch.fx)
        kind = type(net.get_submodule(block)).__name__
        raise ValueError(
            f"the last normalisation of block {block} ({kind}) is {place}, which makes {part} of the block's {whole} "
            "values; use at='block' or name modules"
        )


def _forms(answer: object) -> object:
    """Shapes of the tensors of a net's answer, however they are put together."""
    if isinstance(answer, Tensor):
        return tuple(answer.shape)
    if isinstance(answer, Mapping):
        return {key: _forms(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [_forms(value) for value in answer]
    return type(answer)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _layout(
    net: nn.Module,
    place: str,
    shapes: dict[str, tuple[int, ...]],
    patches: str | None,
    size: tuple[int, int],
) -> tuple[type[Following], int]:
    """How attention has to follow a module, and the number of channels there."""
    shape = shapes[place]
    if len(shape) == 4:
        # The two axes in the image's aspect ratio are those of the map; where that leaves it open, the net says it.
        _, one, two, three = shape
        last, first = abs(one * size[1] - two * size[0]), abs(two * size[1] - three * size[0])
        if last < first or (last == first and getattr(net, "output_fmt", None) == "NHWC"):
            return FollowingChannelsLast, three
        return Following, one
    if len(shape) == 3 and patches is not None and shape[1] >= shapes[patches][-2] * shapes[patches][-1]:
        return FollowingTokens, shape[2]
    found = f"a tensor of shape {shape}" if shape else "something else"
    raise ValueError(
        f"module {place!r} does not return a (B, C, H, W) map, nor the tokens of a vision transformer's grid, but "
        f"{found}; name modules whose output is a map, or use at='stage'"
    )
