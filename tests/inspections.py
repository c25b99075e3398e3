"""An inspection made up for tests of what is drawn from it: hard pictures and known numbers."""

from __future__ import annotations

import numpy as np

from temporal_attn.keyframes import Evidence
from temporal_attn.keyframes.faithfulness import Faithfulness
from temporal_attn.keyframes.inspection import ClassView, InspectedFrame, Inspection

CLASSES = ["Archery", "Bowling", "Golf", "Swing", "Diving", "Rowing", "Surfing"]


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """The hardest picture to compress."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_inspection(length: int = 8, side: int = 64, video: str = "clips/v_01.mp4") -> Inspection:
    """A plain inspection: scores of one class, nothing else."""
    scores = [0.25 * (-1) ** i * (i + 1) for i in range(length)]
    order = best(scores)
    rank = {position: place for place, position in enumerate(order, start=1)}
    return Inspection(
        video=video,
        checkpoint="best.ckpt",
        model="VideoClassifier",
        class_names=CLASSES,
        target=0,
        method="loo+loi",
        reader="pyav",
        clip={"num_frames": length, "sampling": "uniform", "stride": 1, "resize": 64, "crop": 64, "repeat_short": True},
        frames=[InspectedFrame(5 * i, 0.2 * i, score, rank.get(i)) for i, score in enumerate(scores)],
        file_frames=5 * length,
        logits=[4.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0],
        probabilities=[0.72, 0.08, 0.02, 0.02, 0.02, 0.02, 0.12],
        evidence=Evidence(length, len(order), 0.72, 0.70, 0.11, 0.33, 0.66, 20, 0),
        verdict="3 of 8 frames decide.",
        pictures=[noise(side, side, i) for i in range(length)],
        originals=[noise(side, 2 * side, 100 + i) for i in range(len(order))],
        file_fps=25.0,
        file_seconds=0.2 * length,
    )


def make_complete_inspection(length: int = 8, side: int = 64, video: str = "clips/v_01.mp4") -> Inspection:
    """An inspection with intervals, other classes, heat maps, faithfulness and a digest."""
    plain = make_inspection(length, side, video)
    rng = np.random.default_rng(7)
    views = []
    for target in (6, 1):
        scores = rng.normal(size=length).round(3).tolist()
        ci = [(score - 0.1, score + 0.2) for score in scores]
        views.append(ClassView(target, scores, ci, best(scores), f"What {CLASSES[target]} rests on."))
    values = {name: 0.25 for name in Faithfulness.__dataclass_fields__}
    values |= {"violation": False, "split_half_tau": None, "doubts": ("two halves of the budget disagree",)}
    frames = [InspectedFrame(f.index, f.pts, f.score, f.rank, (f.score - 0.25, f.score + 0.125)) for f in plain.frames]
    fields = {name: getattr(plain, name) for name in Inspection.__dataclass_fields__}
    fields |= {
        "method": "auto",
        "frames": frames,
        "classes": views,
        "heatmaps": rng.random((length, 7, 7)).astype(np.float32),
        "regions": "hirescam, one colour scale for the clip",
        "faithfulness": Faithfulness(**values),  # type: ignore[arg-type]
        "checkpoint_sha256": "0f" * 32,
    }
    return Inspection(**fields)


def best(scores: list[float]) -> list[int]:
    """Positions of at most three positive scores, the highest first."""
    return [i for i in sorted(range(len(scores)), key=scores.__getitem__, reverse=True) if scores[i] > 0][:3]
