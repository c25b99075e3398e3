"""Video-level scores that stay exact when a distributed sampler pads, and the metrics made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

__all__ = ["MeanClassAccuracy", "VideoScore", "VideoScores", "classification_metrics"]


@dataclass(frozen=True)
class VideoScore:
    """One row a video, sorted by index.

    Args:
        index: (N,) position of each video in its data set.
        probabilities: (N, K), the mean over the video's views.
        label: (N,) class index, -1 = unknown.
    """

    index: Tensor
    probabilities: Tensor
    label: Tensor


class MeanClassAccuracy(MulticlassAccuracy):
    """Mean of the accuracies of all classes that have a video: the macro mean of torchmetrics counts a class that is
    only predicted, and never true, as one with accuracy zero.

    Equation: mean over classes k with n_k > 0 of (correct videos of class k) / n_k.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="macro", ignore_index=-1, sync_on_compute=False)

    def compute(self) -> Tensor:
        """The mean, 0 when no video has a label."""
        correct, _, _, wrong = self._final_state()
        videos = correct + wrong
        accuracy = correct / videos.clamp(min=1)
        return accuracy.sum() / (videos > 0).sum().clamp(min=1)


class VideoScores(Metric):
    """Collects probabilities of views and averages them into one row a video.

    A pair of video and view counts once, however often a distributed sampler repeats it to fill its last batch, so
    the result on any number of processes is that of one.

    Args:
        num_classes: K.
    """

    full_state_update = False
    index: list[Tensor]
    view: list[Tensor]
    probabilities: list[Tensor]
    label: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("index", "view", "probabilities", "label"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all videos."""
        super().reset()
        # A process whose videos all failed takes part in the gathering too: with nothing, but of the right shape.
        none = torch.zeros(0, dtype=torch.long, device=self.device)
        self.index, self.view, self.label = [none], [none], [none]
        self.probabilities = [torch.zeros(0, self.num_classes, device=self.device)]

    def update(self, index: Tensor, view: Tensor, probabilities: Tensor, label: Tensor) -> None:
        """Add views.

        Args:
            index: (B,) int64 video index.
            view: (B,) int64 view of the video.
            probabilities: (B, K).
            label: (B,) int64.
        """
        self.index.append(index)
        self.view.append(view)
        self.probabilities.append(probabilities.float())
        self.label.append(label)

    def by_clip(self) -> VideoScore:
        """One row a view, merged over all processes; a video with several views has several rows."""
        index, probabilities, label = self.compute()
        # torchmetrics squeezes results of one element: a single video would lose its dimension
        return VideoScore(index.reshape(-1), probabilities.reshape(-1, self.num_classes), label.reshape(-1))

    def by_video(self) -> VideoScore:
        """One row a video, merged over all processes."""
        clips = self.by_clip()
        videos, row = torch.unique(clips.index, return_inverse=True)
        count = torch.zeros(len(videos), device=row.device).index_add_(0, row, torch.ones_like(row, dtype=torch.float))
        total = torch.zeros(len(videos), self.num_classes, device=row.device).index_add_(0, row, clips.probabilities)
        label = torch.empty(len(videos), dtype=torch.long, device=row.device).scatter_(0, row, clips.label)
        return VideoScore(videos, total / count[:, None], label)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index, probabilities and label of every view, each once; `by_clip` and `by_video` name them."""
        index, view, label = (dim_zero_cat(state) for state in (self.index, self.view, self.label))
        probabilities = dim_zero_cat(self.probabilities)
        keys, inverse = torch.unique(torch.stack((index, view), dim=1), dim=0, return_inverse=True)
        # Position of one occurrence of every key; which one does not matter, repeats are identical.
        first = torch.empty(len(keys), dtype=torch.long, device=index.device).scatter_(
            0, inverse, torch.arange(len(index), device=index.device)
        )
        return index[first], probabilities[first], label[first]


def classification_metrics(num_classes: int, prefix: str = "") -> MetricCollection:
    """Top-1, top-5 (clamped to the class count), mean class accuracy and the confusion matrix.

    They are computed of what one process was given, without asking the others: `VideoScores` has merged them before.
    Labels of -1 are left out. Classes without any video do not enter the mean class accuracy.

    Args:
        num_classes: K.
        prefix: In front of each name, e.g. ``val/``.
    """
    accuracy = {
        "top1": MulticlassAccuracy(num_classes, top_k=1, average="micro", ignore_index=-1, sync_on_compute=False),
        "top5": MulticlassAccuracy(
            num_classes, top_k=min(5, num_classes), average="micro", ignore_index=-1, sync_on_compute=False
        ),
        "mean_class_accuracy": MeanClassAccuracy(num_classes),
        "confusion": MulticlassConfusionMatrix(num_classes, ignore_index=-1, sync_on_compute=False),
    }
    # compute groups would share states between top-1 and the macro mean: they differ in their averaging
    return MetricCollection(dict(accuracy), prefix=prefix, compute_groups=False)
