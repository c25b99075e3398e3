"""What a trained classifier costs: parameters, floating-point operations, and the time of an answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from temporal_attn.inference import LoadedClassifier
from temporal_attn.types import VideoBatch

__all__ = ["Costs", "count_flops", "count_parameters", "measure_costs"]


class Costs(NamedTuple):
    """What a classifier costs.

    Args:
        trained: Parameters that training changes.
        parameters: All of them.
        gflops: 10⁹ floating-point operations for the clip of one video; a multiplication and an addition are two.
        predict_cpu_s: Seconds of CPU time, of all threads, from the pixels of that clip to its probabilities.
    """

    trained: int
    parameters: int
    gflops: float
    predict_cpu_s: float


@torch.inference_mode()
def measure_costs(loaded: LoadedClassifier, clips: Sequence[VideoBatch]) -> Costs:
    """Count and time a classifier on clips, one at a time.

    Args:
        loaded: The classifier.
        clips: At least one, each a batch of one; the time is the median over them.
    """
    seconds = []
    _probabilities(loaded, clips[0])  # what is allocated once is allocated now
    for clip in clips:
        start = time.process_time()
        _probabilities(loaded, clip)
        seconds.append(time.process_time() - start)
    trained, parameters = count_parameters(loaded.model)
    return Costs(trained, parameters, count_flops(loaded, clips[0]) / 1e9, statistics.median(seconds))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Numbers that training changes, and all of them."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def count_flops(loaded: LoadedClassifier, clip: VideoBatch) -> int:
    """Floating-point operations of an answer; a multiplication and an addition are two."""
    # Fused attention has no formula for a CPU; taken apart it is matrix products, which have.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _probabilities(loaded, clip)
    return int(counter.get_total_flops())


def _probabilities(loaded: LoadedClassifier, clip: VideoBatch) -> torch.Tensor:
    logits = loaded.model(clip["video"], clip["mask"], clip["pts"]).logits
    return loaded.scoring.probabilities(logits).cpu()
