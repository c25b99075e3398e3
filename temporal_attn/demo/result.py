"""What the demo found out, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporal_attn.keyframes import Inspection

__all__ = ["SCHEMA", "DemoResult", "Event", "Run", "auroc"]

SCHEMA = "temporal_attn/demo/1"


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Probability that a positive scores higher than a negative; a tie counts half.

    Args:
        scores: One a frame.
        positive: Which frames should score high; at least one should, and one should not.

    Example:
        >>> auroc([0.9, 0.2, 0.5], [True, False, False])
        1.0
    """
    high = [score for score, is_positive in zip(scores, positive, strict=True) if is_positive]
    low = [score for score, is_positive in zip(scores, positive, strict=True) if not is_positive]
    return sum((p > n) + (p == n) / 2 for p in high for n in low) / (len(high) * len(low))


@dataclass(frozen=True)
class Run:
    """Training and test of one model.

    Args:
        loss: Training loss by epoch.
        accuracy: Validation accuracy by epoch.
        summary: What the test found, see `temporal_attn.evaluation.summarise`.
        seconds: Wall time of both.
    """

    loss: Sequence[float]
    accuracy: Sequence[float]
    summary: dict[str, Any]
    seconds: float

    @property
    def top1(self) -> float:
        """Accuracy over the test videos."""
        return float(self.summary["top1"])


@dataclass(frozen=True)
class Event:
    """A test video whose class shows in few frames, asked for the frames that speak for this class.

    Args:
        inspection: Frame scores and key frames for the true class.
        truth: Frames of the file that decide by construction.
    """

    inspection: Inspection
    truth: tuple[int, ...]

    @property
    def auroc(self) -> float:
        """How surely a deciding frame scores above another; 0.5 is chance."""
        frames = self.inspection.frames
        return auroc([frame.score for frame in frames], [frame.index in self.truth for frame in frames])

    @property
    def found(self) -> float:
        """Share of the deciding frames among the key frames."""
        return len({frame.index for frame in self.inspection.keyframes} & set(self.truth)) / len(self.truth)


@dataclass(frozen=True)
class DemoResult:
    """All that the demo found out.

    Args:
        task: Name of the synthetic task.
        bound: Best accuracy of a model that ignores order.
        mean_pool: The model that averages its frames.
        temporal: The model that attends over time.
        events: The test videos of all event classes.
        pair: A test video and its time reversal, asked about what the model predicts.
        settings: What the demo was asked for.
        seconds: Wall time of everything.
    """

    task: str
    bound: float
    mean_pool: Run
    temporal: Run
    events: Sequence[Event]
    pair: Sequence[Inspection]
    settings: dict[str, Any]
    seconds: float

    @property
    def keyframes(self) -> dict[str, Any]:
        """How well frame scores find the frames that decide by construction: means over the event videos."""
        return {
            "method": self.events[0].inspection.method,
            "auroc": sum(event.auroc for event in self.events) / len(self.events),
            "found": sum(event.found for event in self.events) / len(self.events),
            "videos": len(self.events),
        }

    def metrics(self) -> dict[str, Any]:
        """The document ``metrics.json``."""
        runs = {"temporal": self.temporal, "mean_pool": self.mean_pool}
        return {
            "schema": SCHEMA,
            "task": self.task,
            "frame_average_bound": self.bound,
            **{name: {**run.summary, "seconds": round(run.seconds, 1)} for name, run in runs.items()},
            "keyframes": self.keyframes,
            "settings": self.settings,
            "seconds": round(self.seconds, 1),
        }
