"""The result of an inspection, and its files: scores as JSON and CSV, key frames as JPEG, a report as HTML."""

from __future__ import annotations

import csv
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import temporal_attn
from temporal_attn.keyframes.pictures import Image, jpeg
from temporal_attn.keyframes.report import render_report
from temporal_attn.keyframes.scores import METHODS, Method
from temporal_attn.keyframes.select import Evidence
from temporal_attn.types import ClipSpec, UserError

__all__ = ["SCHEMA", "InspectedFrame", "Inspection"]

SCHEMA = "temporal_attn/scores/1"

_KEYFRAME_FILE = re.compile(r"keyframe_\d+_-?\d+\.\d{3}s_frame\d+\.jpg")


@dataclass(frozen=True, slots=True)
class InspectedFrame:
    """One distinct frame of the clip.

    Args:
        index: Position in the file, in display order from 0.
        pts: Seconds in the file.
        score: Signed, in the unit of the method.
        rank: 1 for the best key frame and so on; None when it is no key frame.
    """

    index: int
    pts: float
    score: float
    rank: int | None

    @property
    def keyframe(self) -> bool:
        """Whether it is a key frame."""
        return self.rank is not None


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
        probabilities: Their softmax.
        evidence: The test of the key frames.
        verdict: In words.
        pictures: P frames (H, W, 3) uint8, as the model saw them.
        originals: The key frames as the file holds them, best first.
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

    @property
    def target_name(self) -> str:
        """Name of the target class."""
        return self.class_names[self.target]

    @property
    def how(self) -> Method:
        """The method: unit, sign and words."""
        return METHODS[self.method]

    @property
    def keyframes(self) -> list[InspectedFrame]:
        """The key frames, best first."""
        return sorted((f for f in self.frames if f.rank is not None), key=lambda f: f.rank or 0)

    @property
    def provenance(self) -> dict[str, str]:
        """How the result came about, by term."""
        clip = self.clip
        return {
            "Video": self.video,
            "Frames": f"{len(self.frames)} of {self.file_frames} in the file, "
            f"{self.frames[0].pts:.2f} s to {self.frames[-1].pts:.2f} s",
            "Clip": f"{clip['num_frames']} frames, {clip['sampling']}, short side {clip['resize']} px, "
            f"centre {clip['crop']} px",
            "Checkpoint": self.checkpoint,
            "Model": self.model,
            "Target": f"{self.target_name} (class {self.target} of {len(self.class_names)})",
            "Method": f"{self.method}: {self.how.summary}",
            "Reader": self.reader,
            "Versions": f"temporal_attn {temporal_attn.__version__}, torch {torch.__version__}, "
            f"Python {platform.python_version()}",
        }

    def scores(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON; ``schema`` names the layout."""
        return {
            "schema": SCHEMA,
            "video": self.video,
            "checkpoint": self.checkpoint,
            "target": {"class": self.target_name, "index": self.target},
            "method": self.method,
            "unit": self.how.unit,
            "frames": [
                {"index": f.index, "pts": f.pts, "score": f.score, "keyframe": f.keyframe, "rank": f.rank}
                for f in self.frames
            ],
            "logits": dict(zip(self.class_names, self.logits, strict=True)),
            "probabilities": dict(zip(self.class_names, self.probabilities, strict=True)),
            "verdict": self.verdict,
            "evidence": {"finding": self.evidence.finding.value, **asdict(self.evidence)},
            "clip": dict(self.clip),
            "file_frames": self.file_frames,
            "model": self.model,
            "reader": self.reader,
        }

    def save(self, out: str | Path) -> Path:
        """Write ``scores.json``, ``scores.csv``, ``report.html`` and the key frames as JPEG.

        Key frames of an earlier inspection in the same folder are removed; other files stay.

        Args:
            out: Folder, made if missing.

        Returns:
            Path of the report.

        Raises:
            UserError: The folder cannot be written.
        """
        folder = Path(out)
        report = folder / "report.html"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for stale in folder.iterdir():
                if _KEYFRAME_FILE.fullmatch(stale.name):
                    stale.unlink()
            text = json.dumps(self.scores(), indent=2, allow_nan=False)
            (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
            with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as stream:
                table = csv.writer(stream)
                table.writerow(["index", "pts", "score", "keyframe"])
                table.writerows([f.index, f"{f.pts:.6f}", f"{f.score:.6f}", int(f.keyframe)] for f in self.frames)
            for frame, image in zip(self.keyframes, self.originals, strict=True):
                name = f"keyframe_{frame.rank:02d}_{frame.pts:.3f}s_frame{frame.index:04d}.jpg"
                (folder / name).write_bytes(jpeg(image, quality=92))
            report.write_text(render_report(self), encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
        return report
