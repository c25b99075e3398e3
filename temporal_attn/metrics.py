"""Scores of views that stay exact when a distributed sampler pads, one row a video."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

__all__ = ["VideoScore", "VideoScores", "average_views"]


@dataclass(frozen=True)
class VideoScore:
    """One row a video, or a view, sorted by index.

    Args:
        index: (N,) position of each video in its data set.
        scores: (N, K): of a video the mean over its views.
        label: (N,) class index, -1 = unknown; of several labels (N, K), rows of -1 = unknown.
    """

    index: Tensor
    scores: Tensor
    label: Tensor


class VideoScores(Metric):
    """Collects the scores of views, logits or probabilities, and averages them into one row a video.

    A pair of video and view counts once, however often a distributed sampler repeats it to fill its last batch, so
    the result on any number of processes is that of one.

    Args:
        num_classes: K.
        multi_label: Whether labels are (B, K), because a video may belong to several classes.
    """

    full_state_update = False
    index: list[Tensor]
    view: list[Tensor]
    scores: list[Tensor]
    label: list[Tensor]

    def __init__(self, num_classes: int, multi_label: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.multi_label = multi_label
        for name in ("index", "view", "scores", "label"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all videos."""
        super().reset()
        # A process whose videos all failed takes part in the gathering too: with nothing, but of the right shape.
        none = torch.zeros(0, dtype=torch.long, device=self.device)
        self.index, self.view = [none], [none]
        # Said outright: under bf16-true what is made without a type is bfloat16.
        nothing = torch.zeros(0, self.num_classes, device=self.device, dtype=torch.float)
        self.scores, self.label = [nothing], [nothing if self.multi_label else none]

    def update(self, index: Tensor, view: Tensor, scores: Tensor, label: Tensor) -> None:
        """Add views.

        Args:
            index: (B,) int64 video index.
            view: (B,) int64 view of the video.
            scores: (B, K).
            label: (B,) int64; of several labels (B, K) float.
        """
        self.index.append(index)
        self.view.append(view)
        self.scores.append(scores.float())
        self.label.append(label.float() if self.multi_label else label)

    def by_clip(self) -> VideoScore:
        """One row a view, merged over all processes; a video with several views has several rows."""
        index, scores, label = self.compute()
        # torchmetrics squeezes results of one element: a single video would lose its dimension
        scores = scores.reshape(-1, self.num_classes)
        return VideoScore(index.reshape(-1), scores, label.reshape(scores.shape if self.multi_label else -1))

    def by_video(self) -> VideoScore:
        """One row a video, merged over all processes."""
        return average_views(self.by_clip())

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index, scores and label of every view, each once; `by_clip` and `by_video` name them."""
        index, view, label = (dim_zero_cat(state) for state in (self.index, self.view, self.label))
        scores = dim_zero_cat(self.scores)
        keys, inverse = torch.unique(torch.stack((index, view), dim=1), dim=0, return_inverse=True)
        # Position of one occurrence of every key; which one does not matter, repeats are identical.
        first = torch.empty(len(keys), dtype=torch.long, device=index.device).scatter_(
            0, inverse, torch.arange(len(index), device=index.device)
        )
        return index[first], scores[first], label[first]


def average_views(views: VideoScore) -> VideoScore:
    """The mean over the rows of each video.

    Args:
        views: One row a view.
    """
    videos, row = torch.unique(views.index, return_inverse=True)
    ones = torch.ones_like(row, dtype=torch.float)  # named, because under bf16-true the default is another
    count = torch.zeros(len(videos), device=row.device, dtype=torch.float).index_add_(0, row, ones)
    total = views.scores.new_zeros(len(videos), views.scores.shape[1]).index_add_(0, row, views.scores)
    label = views.label.new_empty(len(videos), *views.label.shape[1:])
    label[row] = views.label
    return VideoScore(videos, total / count[:, None], label)
