"""Shapley values of frames by Captum and by this package: the same orders of frames, side by side.

Captum asks the whole model anew for every coalition, because a model is a black box to it. Here the backbone has seen
each frame once, and only the head is asked.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from temporal_attn.keyframes.scores import FrameGame
from temporal_attn.keyframes.shapley import marginal_contributions
from temporal_attn.model import VideoClassifier

__all__ = ["compare_with_captum"]


def compare_with_captum(permutations: int, frames: int = 16, side: int = 112, seed: int = 0) -> dict[str, Any] | None:
    """CPU seconds and values of both on one clip of noise and a ResNet-18 that has learned nothing.

    Args:
        permutations: Orders of frames that both draw.
        frames: T.
        side: Pixels.
        seed: Of weights, clip and orders.

    Returns:
        ``ours_cpu_s``, ``captum_cpu_s`` and their ``ratio``; ``distance``, the greatest difference of a frame's value
        relative to the greatest value: rounding, because both go through the same orders of frames; None where Captum
        is not installed.
    """
    try:
        from captum.attr import ShapleyValueSampling
    except ImportError:
        return None
    torch.manual_seed(seed)
    model = VideoClassifier(5, backbone="resnet18").eval()
    video = torch.randint(256, (1, frames, 3, side, side), dtype=torch.uint8)

    orders = torch.rand(permutations, frames).argsort(1)
    with torch.no_grad():
        model.encode_frames(video)  # the first pass allocates, and chooses kernels, for both

    start = time.process_time()
    with torch.no_grad():
        game = FrameGame(model, model.encode_frames(video).tokens)
    ours = marginal_contributions(game, orders).mean(0)
    ours_seconds = time.process_time() - start

    @torch.no_grad()
    def ask(shown: Tensor) -> Tensor:
        """The whole model with the frames that are shown: (B, T) of 0 and 1 -> (B,)."""
        tokens = model.encode_frames(video).tokens
        return game.worth(model.classify(tokens.expand(len(shown), -1, -1), shown > 0).logits)

    sampler = ShapleyValueSampling(ask)
    sampler.permutation_generator = lambda _features, _samples: iter(orders.tolist())
    start = time.process_time()
    theirs = sampler.attribute(torch.ones(1, frames), n_samples=permutations)[0].double()
    theirs_seconds = time.process_time() - start
    return {
        "permutations": permutations,
        "frames": frames,
        "side": side,
        "ours_cpu_s": ours_seconds,
        "captum_cpu_s": theirs_seconds,
        "ratio": theirs_seconds / ours_seconds,
        "distance": float((ours - theirs).abs().max() / theirs.abs().max()),
    }
