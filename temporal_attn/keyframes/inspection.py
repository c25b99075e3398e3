"""The result of an inspection: what was asked of a clip, what came out, and how it came about."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import temporal_attn
from temporal_attn.keyframes.exports import DEFAULT_FORMATS, save_files
from temporal_attn.keyframes.faithfulness import Faithfulness
from temporal_attn.keyframes.pictures import Image
from temporal_attn.keyframes.scores import Method, resolve_method
from temporal_attn.keyframes.select import Evidence
from temporal_attn.types import ClipSpec

__all__ = ["SCHEMA", "ClassView", "InspectedFrame", "Inspection", "Stretch", "versions"]

SCHEMA = "temporal_attn/scores/1"


@dataclass(frozen=True, slots=True)
class InspectedFrame:
    """One distinct frame of the clip.

    Args:
        index: Position in the file, in display order from 0.
        pts: Seconds in the file.
        score: Signed, in the unit of the method.
        rank: 1 for the best key frame and so on; None when it is no key frame.
        ci: Lower and upper end of the score's 95 % interval; None where the score is not estimated.
    """

    index: int
    pts: float
    score: float
    rank: int | None
    ci: tuple[float, float] | None = None

    @property
    def keyframe(self) -> bool:
        """Whether it is a key frame."""
        return self.rank is not None


@dataclass(frozen=True, slots=True)
class ClassView:
    """The same frames, asked about another class.

    Args:
        target: Class index.
        scores: P scores, by the method of the inspection.
        ci: P intervals of 95 %; None where the scores are not estimated.
        keyframes: Positions of the key frames for this class, best first.
        verdict: In words.
        looked_into: P times whether the frame was asked about by itself; None where all were.
    """

    target: int
    scores: Sequence[float]
    ci: Sequence[tuple[float, float]] | None
    keyframes: Sequence[int]
    verdict: str
    looked_into: Sequence[bool] | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a long video that played as a whole before its frames did.

    Args:
        frames: Positions of its frames in the file.
        start: Seconds of the first of them.
        end: Seconds of the last of them.
        score: What it contributes; the scores of its frames sum to it.
        looked_into: Whether its frames were asked about by themselves; otherwise they share its score alike.
    """

    frames: Sequence[int]
    start: float
    end: float
    score: float
    looked_into: bool


@dataclass(frozen=True)
class Inspection:
    """What was found out about one video.

    Args:
        video: Path of the file, as text that any encoding can hold.
        checkpoint: Path of the model.
        model: What the model is, in words.
        class_names: K names.
        target: Class index that the scores are about.
        method: Name of the frame score.
        reader: Engine that decoded the file.
        clip: How the clip was cut.
        frames: P distinct frames in the order of time.
        file_frames: Frames in the file.
        logits: K logits of the complete clip.
        probabilities: K of them, as the model gives them out: their softmax, or of several labels their sigmoid.
        evidence: The test of the key frames.
        verdict: In words.
        pictures: P frames (H, W, 3) uint8, as the model saw them.
        originals: The key frames as the file holds them, best first.
        against: Class index of a contrast; None when the target is asked about against all other classes.
        removal: What a removed frame becomes.
        classes: The same frames for other probable classes.
        heatmaps: (P, h, w) in [0, 1] on one scale for the clip, where in each frame; None without them.
        regions: What made the heat maps, or why there are none.
        faithfulness: How faithful the scores are; None when it was not measured.
        checkpoint_sha256: Digest of the model's file, empty when there is none.
        file_fps: Mean frames a second of the file; 0 when unknown.
        file_seconds: Seconds at which the last frame of the file ends; 0 when unknown.
        stretches: Of a long video, in the order of time; empty where all frames played at once.
        multi_label: Whether the classes do not exclude each other.
        file_start: Seconds of the first frame of the file.
        topk: At most so many key frames were chosen.
        min_gap_s: Seconds that they are apart at least.
    """

    video: str
    checkpoint: str
    model: str
    class_names: Sequence[str]
    target: int
    method: str
    reader: str
    clip: ClipSpec
    frames: Sequence[InspectedFrame]
    file_frames: int
    logits: Sequence[float]
    probabilities: Sequence[float]
    evidence: Evidence
    verdict: str
    pictures: Sequence[Image]
    originals: Sequence[Image]
    against: int | None = None
    removal: str = "drop"
    classes: Sequence[ClassView] = ()
    heatmaps: NDArray[np.float32] | None = None
    regions: str = ""
    faithfulness: Faithfulness | None = None
    checkpoint_sha256: str = ""
    file_fps: float = 0.0
    file_seconds: float = 0.0
    stretches: Sequence[Stretch] = ()
    multi_label: bool = False
    file_start: float = 0.0
    topk: int = 3
    min_gap_s: float = 0.0

    @property
    def looked_at(self) -> float:
        """Share of the file's frames that the model saw."""
        return len(self.frames) / self.file_frames

    @property
    def target_name(self) -> str:
        """Name of the target class."""
        return self.class_names[self.target]

    @property
    def question(self) -> str:
        """What the frames were asked about, in words."""
        return self.target_name if self.against is None else f"{self.target_name} not {self.class_names[self.against]}"

    @property
    def how(self) -> Method:
        """The method: unit, sign and words."""
        return resolve_method(self.method)

    @property
    def unit(self) -> str:
        """What a score counts; where classes do not exclude each other logits are not centred."""
        return self.how.unit.removeprefix("centred ") if self.multi_label else self.how.unit

    @property
    def keyframes(self) -> list[InspectedFrame]:
        """The key frames, best first."""
        return sorted((f for f in self.frames if f.rank is not None), key=lambda f: f.rank or 0)

    @property
    def provenance(self) -> dict[str, str]:
        """How the result came about, by term."""
        clip = self.clip
        asked = f"{self.target_name} (class {self.target} of {len(self.class_names)})"
        if self.against is not None:
            asked += f" against {self.class_names[self.against]} (class {self.against})"
        terms = {
            "Video": self.video,
            "Frames": f"{len(self.frames)} of {self.file_frames} in the file ({100 * self.looked_at:.3g} %), "
            f"{self.frames[0].pts:.2f} s to {self.frames[-1].pts:.2f} s",
            "Clip": f"{clip['num_frames']} frames, {clip['sampling']}, short side {clip['resize']} px, "
            f"centre {_size(clip['crop'])} px",
            "Checkpoint": self.checkpoint,
            "SHA-256": self.checkpoint_sha256,
            "Model": self.model,
            "Target": asked,
            "Method": f"{self.method}: {self.how.summary}",
            "Removal": self.removal,
            "Regions": self.regions,
            "Seed": str(self.evidence.seed),
            "Decoder": self.reader,
            "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        }
        return {term: text for term, text in terms.items() if text}

    def scores(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON, in the layout of ``schemas/scores-1.json``."""
        return {
            "schema": SCHEMA,
            "video": self.video,
            "checkpoint": self.checkpoint,
            "checkpoint_sha256": self.checkpoint_sha256,
            "target": {"class": self.target_name, "index": self.target},
            "against": None
            if self.against is None
            else {"class": self.class_names[self.against], "index": self.against},
            "method": self.method,
            "removal": self.removal,
            "unit": self.unit,
            "multi_label": self.multi_label,
            "frames": [
                {
                    "index": f.index,
                    "pts": f.pts,
                    "score": f.score,
                    "ci": None if f.ci is None else list(f.ci),
                    "keyframe": f.keyframe,
                    "rank": f.rank,
                }
                for f in self.frames
            ],
            "classes": {
                self.class_names[view.target]: {
                    "index": view.target,
                    "scores": list(view.scores),
                    "ci": None if view.ci is None else [list(ends) for ends in view.ci],
                    "keyframes": [self.frames[position].index for position in view.keyframes],
                    "verdict": view.verdict,
                }
                for view in self.classes
            },
            "logits": dict(zip(self.class_names, self.logits, strict=True)),
            "probabilities": dict(zip(self.class_names, self.probabilities, strict=True)),
            "verdict": self.verdict,
            "evidence": {"finding": self.evidence.finding.value, **asdict(self.evidence)},
            "faithfulness": None
            if self.faithfulness is None
            else {**asdict(self.faithfulness), "doubts": list(self.faithfulness.doubts)},
            "looked_at": self.looked_at,
            "stretches": [asdict(stretch) for stretch in self.stretches],
            "regions": self.regions,
            "clip": dict(self.clip),
            "file_frames": self.file_frames,
            "file_fps": self.file_fps,
            "file_start": self.file_start,
            "file_seconds": self.file_seconds,
            "model": self.model,
            "reader": self.reader,
            "versions": versions(),
        }

    def save(self, out: str | Path, formats: str | Sequence[str] = DEFAULT_FORMATS) -> Path:
        """Write the inspection's files.

        Key frames and thumbnails of an earlier inspection in the same folder are removed; other files stay.

        Args:
            out: Folder, made if missing.
            formats: Names of `temporal_attn.keyframes.exports.FORMATS`, or ``all``; in a list, or text with commas.

        Returns:
            Path of the report, or of the folder when no report is asked for.

        Raises:
            UserError: A format that does not exist, or a folder that cannot be written.
        """
        return save_files(self, Path(out), formats)


def versions() -> dict[str, str]:
    """Versions of what decides the numbers, by distribution."""
    found = {"python": platform.python_version(), "temporal_attn": temporal_attn.__version__}
    for name in ("torch", "timm", "av", "decord"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _size(crop: int | list[int]) -> str:
    """Height and width, in words."""
    return str(crop) if isinstance(crop, int) else " × ".join(map(str, crop))
