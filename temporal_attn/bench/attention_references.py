"""What the mechanisms are measured against, with the same weights: timm, torchvision, and the papers' equations.

A literal reference computes what the paper's equation says, operation by operation, with the weights of our module; a
twin is the library's module with our weights copied into it. Either gives our output, which the benchmark checks before
it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, batch_norm, conv1d, conv2d, grid_sample, hardswish, layer_norm, max_pool2d

from temporal_attn.attention import build

__all__ = ["Reference", "copy_weights", "references"]

_WITHOUT_EFFECT = {"conv_attn.bias", "conv1.bias", "z.bias"}  # of timm's GlobalContext, CoordAttn and NonLocalAttn


class Reference(NamedTuple):
    """One comparison: where the reference comes from, our module, and the other with the same weights."""

    source: str
    ours: nn.Module
    theirs: nn.Module


class _Literal(nn.Module):
    """The equation as a module, so that it compiles and trains like the others."""

    def __init__(self, weights: nn.Module, equation: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.weights = weights
        self.equation = equation

    def forward(self, x: Tensor) -> Tensor:
        return self.equation(self.weights, x)


def references(name: str, channels: int) -> list[Reference]:
    """Every reference of a mechanism, all weights at ordinary values; none where nobody has written one.

    Args:
        name: A mechanism, see `temporal_attn.attention.names`.
        channels: C of the maps.
    """
    found = []
    if name in _EQUATIONS:
        ours = _ordinary(build(name, channels))
        found.append(Reference("literal", ours, _Literal(ours, _EQUATIONS[name])))
    for twin in _TWINS.get(name, ()):
        ours = _ordinary(build(name, channels, **twin.ours(channels)))
        theirs = twin.theirs(channels)
        copy_weights(ours, theirs)
        found.append(Reference(twin.source, ours, theirs.eval()))
    return found


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy parameters and statistics in the order in which both modules hold them.

    Biases of the other that a softmax or a normalisation takes out again have no partner: they become zero.

    Raises:
        ValueError: The two do not hold the same weights.
    """
    source = list(_single(ours.state_dict()))
    target = {name: value for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name in target.keys() & _WITHOUT_EFFECT:
        target.pop(name).zero_()
    if sum(value.numel() for value in source) != sum(value.numel() for value in target.values()):
        raise ValueError(f"{type(ours).__name__} and {type(theirs).__name__} do not hold the same weights")
    flat = torch.cat([value.flatten() for value in source])
    for value in target.values():
        value.copy_(flat[: value.numel()].view_as(value))
        flat = flat[value.numel() :]


def _single(state: dict[str, Tensor]) -> Iterator[Tensor]:
    """Weights in order, those of a joint projection as the two that a library has: each its weight, then its bias."""
    for name, value in state.items():
        if name == "key_value.weight":
            pairs = zip(value.chunk(2), state["key_value.bias"].chunk(2), strict=True)
            yield from (part for pair in pairs for part in pair)
        elif name != "key_value.bias" and not name.endswith("num_batches_tracked"):
            yield value


@torch.no_grad()
def _ordinary(module: nn.Module) -> nn.Module:
    """Gains, biases and statistics that are neither 0 nor 1, so that a forgotten one shows."""
    for parameter in module.parameters():
        if parameter.ndim < 2:
            parameter.uniform_(0.25, 0.75)
    for name, value in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return module.eval()


def _norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.training, 0.1, layer.eps
    )


def _pointwise(weight: Tensor, bias: Tensor | None, pooled: Tensor) -> Tensor:
    """A fully connected layer as papers' code writes it: a 1×1 convolution of (B, C, 1, 1)."""
    return conv2d(pooled, weight.flatten(1)[:, :, None, None], bias)


def _mlp(mlp: Any, pooled: Tensor) -> Tensor:  # noqa: ANN401
    hidden = torch.relu(_pointwise(mlp.down.weight, mlp.down.bias, pooled))
    return _pointwise(mlp.up.weight, mlp.up.bias, hidden)


def _average(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _cbam_channel(part: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    return _mlp(part, _average(x)) + _mlp(part, x.amax((2, 3), keepdim=True))


def _cbam_spatial(part: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
    return _norm(part.norm, conv2d(pooled, part.conv.weight, padding=part.conv.padding))


def _se(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    return x * torch.sigmoid(_mlp(m.logits.mlp, _average(x)))


def _eca(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    kernel = m.logits.conv.weight
    logits = conv1d(_average(x).squeeze(-1).transpose(1, 2), kernel, padding=kernel.shape[-1] // 2)
    return x * torch.sigmoid(logits.transpose(1, 2).unsqueeze(-1))


def _soca(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    rows = m.logits.reduce(x).flatten(2)
    batch, channels, places = rows.shape
    eye = torch.eye(channels).expand(batch, -1, -1)
    centring = torch.eye(places) / places - torch.ones(places, places) / places**2
    sigma = rows @ centring @ rows.transpose(1, 2)
    trace = (sigma * eye).sum((1, 2), keepdim=True)
    y, z = sigma / trace, eye
    for _ in range(m.logits.iterations):
        y, z = 0.5 * y @ (3 * eye - z @ y), 0.5 * (3 * eye - z @ y) @ z
    pooled = (trace.sqrt() * y).mean(2)[:, :, None, None]
    return x * torch.sigmoid(_mlp(m.logits.mlp, pooled))


def _coord(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    height = x.shape[2]
    strip = torch.cat((x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)), 2)
    strip = hardswish(_norm(m.norm, _pointwise(m.reduce.weight, None, strip)))
    rows = _pointwise(m.rows.weight, m.rows.bias, strip[:, :, :height])
    columns = _pointwise(m.columns.weight, m.columns.bias, strip[:, :, height:]).transpose(2, 3)
    return x * torch.sigmoid(columns) * torch.sigmoid(rows)


def _gc(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    weights = m.places.score(x).flatten(2).softmax(2).transpose(1, 2)
    context = (x.flatten(2) @ weights).squeeze(2)
    hidden = layer_norm(m.down(context), m.norm.normalized_shape, m.norm.weight, m.norm.bias, m.norm.eps)
    shift: Tensor = m.up(torch.relu(hidden))[:, :, None, None]
    return x + shift


def _attended(q: Tensor, k: Tensor, v: Tensor, like: Tensor, scale: float = 1.0) -> Tensor:
    """softmax(qᵀk · scale) with all weights in memory, for maps (B, C', H, W)."""
    weights = (q.flatten(2).transpose(1, 2) @ k.flatten(2) * scale).softmax(2)
    return (v.flatten(2) @ weights.transpose(1, 2)).view(*v.shape[:2], *like.shape[2:])


def _nonlocal(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    k, v = m.key_value(max_pool2d(x, 2, ceil_mode=True)).chunk(2, 1)
    return x + _norm(m.norm, m.out(_attended(m.query(x), k, v, x, m.scale)))


def _position(mixing: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    q, k, v = mixing.query_key_value(x).split(list(mixing.widths), 1)
    return _attended(q, k, v, x)


def _channels(x: Tensor) -> Tensor:
    rows = x.flatten(2)
    energy = rows @ rows.transpose(1, 2)
    weights = (energy.amax(2, keepdim=True) - energy).softmax(2)
    return (weights @ rows).view_as(x)


def _qkv(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    q, k, v = m.query_key_value(x).chunk(3, 1)
    added: Tensor = m.out(_attended(q, k, v, x, q.shape[1] ** -0.5))
    return x + added


def _bam(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    return x * (1 + torch.sigmoid(m.logits.channel(x) + m.logits.spatial(x)))


def _scse(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    return x * torch.sigmoid(_mlp(m.channel.mlp, _average(x))) + x * torch.sigmoid(m.spatial(x))


def _cbam(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    x = x * torch.sigmoid(_cbam_channel(m.channel, x))
    return x * torch.sigmoid(_cbam_spatial(m.spatial, x))


def _stn(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    grid = affine_grid(m.localisation(x), list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode=m.padding, align_corners=False)


def _aspp(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    pooled = m.image(_average(x)).expand(-1, -1, *x.shape[2:])
    projected: Tensor = m.project(torch.cat((*(branch(x) for branch in m.context), pooled), 1))
    return projected


def _pfa(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    seen = torch.cat([branch(x) for branch in m.context.levels[0]], 1)
    seen = _se(m.context.channel, seen)
    return x * torch.sigmoid(m.space.rows(seen) + m.space.columns(seen))


def _selected(maps: Tensor, select: Any) -> Tensor:  # noqa: ANN401
    """Branches (B, R, C, H, W) weighed by a softmax over R."""
    pooled = _average(maps.sum(1))
    logits = select.up(torch.relu(_norm(select.norm, select.down(pooled))))
    weights: Tensor = logits.view(*maps.shape[:3], 1, 1).softmax(1)
    return (maps * weights).sum(1)


def _sk(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    return _selected(torch.stack([branch(x) for branch in m.branches], 1), m.select)


def _split(m: Any, x: Tensor) -> Tensor:  # noqa: ANN401
    return _selected(m.splits(x).unflatten(1, (m.radix, -1)), m.select)


_EQUATIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "aspp": _aspp,
    "bam": _bam,
    "cbam": _cbam,
    "cbam_spatial": lambda m, x: x * torch.sigmoid(_cbam_spatial(m.logits, x)),
    "channel_attention": lambda m, x: x + m.gamma * _channels(x),
    "channel_gate": lambda m, x: x * torch.sigmoid(_cbam_channel(m.logits, x)),
    "conv1x1": lambda m, x: x * torch.sigmoid(m.logits(x)),
    "coord": _coord,
    "danet": lambda m, x: x + m.alpha * _position(m.position, x) + m.beta * _channels(x),
    "eca": _eca,
    "gc": _gc,
    "nonlocal": _nonlocal,
    "pfa": _pfa,
    "position_attention": lambda m, x: x + m.gamma * _position(m.mixing, x),
    "qkv": _qkv,
    "scse": _scse,
    "se": _se,
    "sk": _sk,
    "soca": _soca,
    "split": _split,
    "stn": _stn,
}


def _timm(path: str, options: Callable[[int], dict[str, Any]]) -> Callable[[int], nn.Module]:
    def make(channels: int) -> nn.Module:
        module, _, name = path.rpartition(".")
        made: nn.Module = getattr(import_module(f"timm.layers.{module}"), name)(channels, **options(channels))
        return made

    return make


def _torchvision_se(channels: int) -> nn.Module:
    from torchvision.ops import SqueezeExcitation

    made: nn.Module = SqueezeExcitation(channels, channels // 16)
    return made


def _torchvision_aspp(channels: int) -> nn.Module:
    from torchvision.models.segmentation.deeplabv3 import ASPP

    made: nn.Module = ASPP(channels, [1, 2, 3], out_channels=channels)
    return made


class _Twin(NamedTuple):
    """A library's module, and the options with which each computes what the other does, by the number of channels."""

    source: str
    theirs: Callable[[int], nn.Module]
    ours: Callable[[int], dict[str, Any]] = lambda _channels: {}


_TWINS: dict[str, tuple[_Twin, ...]] = {
    "aspp": (_Twin("torchvision", _torchvision_aspp, lambda _: {"reduction": 1}),),
    "cbam": (_Twin("timm", _timm("cbam.CbamModule", lambda _: {"rd_ratio": 1 / 16, "mlp_bias": True})),),
    "coord": (_Twin("timm", _timm("coord_attn.CoordAttn", lambda c: {"rd_channels": max(8, c // 32), "bias": True})),),
    "eca": (_Twin("timm", _timm("eca.EcaModule", lambda _: {})),),
    "gc": (
        _Twin(
            "timm",
            _timm(
                "global_context.GlobalContext",
                lambda c: {"fuse_add": True, "fuse_scale": False, "rd_channels": max(1, c // 16)},
            ),
        ),
    ),
    "nonlocal": (
        _Twin(
            "timm",
            _timm("non_local_attn.NonLocalAttn", lambda _: {}),
            lambda c: {"reduction": 8, "sub_sample": False, "scale": c**-0.5},
        ),
    ),
    "se": (
        _Twin("timm", _timm("squeeze_excite.SEModule", lambda c: {"rd_channels": c // 16})),
        _Twin("torchvision", _torchvision_se),
    ),
    "sk": (
        _Twin(
            "timm",
            _timm("selective_kernel.SelectiveKernel", lambda _: {"groups": 32, "rd_divisor": 32, "split_input": False}),
        ),
    ),
    "split": (_Twin("timm", _timm("split_attn.SplitAttn", lambda _: {"norm_layer": nn.BatchNorm2d})),),
}
