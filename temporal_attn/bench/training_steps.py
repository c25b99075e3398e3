"""Training steps and answers of a model of this package and of torchvision's r3d_18, on the same clips.

r3d_18 is the 3-D net of as many layers as ours. Paper: Tran et al., "A Closer Look at Spatiotemporal Convolutions for
Action Recognition", CVPR 2018. https://arxiv.org/abs/1711.11248
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import VideoBatch

__all__ = ["CLASSES", "CONTESTANTS", "Contestant", "Shape", "added_memory", "make_batch", "make_module", "make_steps"]

Contestant = Literal["temporal_attn", "r3d_18"]
CONTESTANTS: tuple[Contestant, ...] = get_args(Contestant)
CLASSES = 101
_RATE = 1e-4

# Kinetics' channel means and deviations, which torchvision's weights of r3d_18 are made for.
_MEAN, _STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


class Shape(NamedTuple):
    """Of the clips.

    Args:
        batch: B.
        frames: T.
        side: H and W in pixels.
    """

    batch: int
    frames: int
    side: int


def make_batch(shape: Shape, seed: int) -> VideoBatch:
    """Clips of noise; what a step costs does not depend on what they show."""
    draw = torch.Generator().manual_seed(seed)
    batch, frames, side = shape
    return VideoBatch(
        video=torch.randint(0, 256, (batch, frames, 3, side, side), dtype=torch.uint8, generator=draw),
        mask=torch.ones(batch, frames, dtype=torch.bool),
        pts=torch.arange(frames, dtype=torch.float32).expand(batch, frames) / 4,
        label=torch.randint(0, CLASSES, (batch,), generator=draw),
    )


def make_module(seed: int) -> VideoClassificationModule:
    """ResNet-18 with CBAM in its blocks and two blocks of self-attention over time, all of it trained."""
    torch.manual_seed(seed)
    classes = [f"class {number}" for number in range(CLASSES)]
    # Without dropped frames, which are not computed: every step has the same work.
    return VideoClassificationModule(classes, backbone="resnet18", frame_dropout=0.0)


def make_steps(contestant: Contestant, seed: int) -> tuple[nn.Module, dict[str, Callable[[VideoBatch], object]]]:
    """A net, and what it does with a batch: ``train``, a step of AdamW, and ``infer``, logits."""
    net, forward = _ours(seed) if contestant == "temporal_attn" else _r3d_18(seed)
    optimizer = torch.optim.AdamW(net.parameters(), _RATE)

    def train(batch: VideoBatch) -> None:
        net.train()
        loss = cross_entropy(forward(batch), batch["label"])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.inference_mode()
    def infer(batch: VideoBatch) -> Tensor:
        net.eval()
        return forward(batch)

    return net, {"train": train, "infer": infer}


def _ours(seed: int) -> tuple[nn.Module, Callable[[VideoBatch], Tensor]]:
    model = make_module(seed).model
    return model, lambda batch: model(batch["video"], batch["mask"], batch["pts"]).logits


def _r3d_18(seed: int) -> tuple[nn.Module, Callable[[VideoBatch], Tensor]]:
    from torchvision.models.video import r3d_18

    torch.manual_seed(seed)
    net: nn.Module = r3d_18(num_classes=CLASSES)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))

    def forward(batch: VideoBatch) -> Tensor:
        out: Tensor = net(((batch["video"] / 255 - mean) / std).transpose(1, 2))
        return out

    return net, forward


def added_memory(contestant: Contestant, work: str, shape: Shape, seed: int) -> int:
    """Bytes that a net and three of its steps, or answers, add to a process of their own, at most at a time.

    Args:
        contestant: The net.
        work: ``train`` or ``infer``.
        shape: Of the clips.
        seed: Of weights and clips.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_added_here, contestant, work, shape, seed).result()


def _added_here(contestant: Contestant, work: str, shape: Shape, seed: int) -> int:
    torch.set_num_threads(1)
    batch = make_batch(shape, seed)
    import timm
    import torchvision

    assert timm
    assert torchvision
    before = _peak_memory()
    step = make_steps(contestant, seed)[1][work]
    for _ in range(3):
        step(batch)
    return _peak_memory() - before


def _peak_memory() -> int:
    """Bytes of memory that this process has had at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # unlike getrusage, not what the process had that this one was started from
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import platform
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
