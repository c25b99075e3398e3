"""Frame scores on disk while they are made: a shard for each process, and what is in one is not made again."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from temporal_attn.types import VideoBatch

__all__ = ["SCHEMA", "ScoreShards", "clip_digest"]

SCHEMA = "temporal_attn/keyframes/1"


class ScoreShards:
    """Rows of scored videos, ``part-00000.jsonl`` for the first process, and which of them stand for a video now.

    A row is found again by three things: the settings that it was made with, the video's name, and what of the video
    the model saw. A video without a name is never found again, since nothing says that it is the same.

    Args:
        folder: Of the shards.
        rank: Of this process.
        settings: Digest of the weights and of all that decides a score.

    Attributes:
        seen: Of each video that this process met in this run, what of it the model saw.
        resumed: Those of them whose scores were there already.
    """

    def __init__(self, folder: Path, rank: int, settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.seen: dict[str, str] = {}
        self.resumed: set[str] = set()
        self._own = folder / f"part-{rank:05d}.jsonl"
        self._run = f"run {uuid.uuid4().hex}"
        if self._own.exists():  # the line that a stopped process left unfinished must not spoil the next one
            text = self._own.read_text("utf-8")
            self._own.write_text(text[: text.rfind("\n") + 1], "utf-8")
        self._done = {(row["id"], row["clip"]) for row in self._rows() if row["failed"] is None}

    def needs(self, name: str, clip: str | None) -> bool:
        """Whether a video has to be scored; of several clips of one video the first that is met stands for it.

        Args:
            name: Of the video.
            clip: `clip_digest` of what the model sees of it; None where the name is none of its own.
        """
        if name in self.seen:
            return False
        self.seen[name] = self._run if clip is None else clip
        if (name, self.seen[name]) not in self._done:
            return True
        self.resumed.add(name)
        return False

    def append(self, name: str, scores: dict[str, Any]) -> None:
        """Write the scores of a video that `needs` asked for."""
        self._write({"id": name, "clip": self.seen[name], "failed": None, "scores": scores})

    def append_failed(self, name: str, reason: str) -> None:
        """Write why a video could not be read."""
        self._write({"id": name, "failed": reason})

    def table(self, seen: dict[str, str]) -> dict[str, dict[str, Any]]:
        """Scores of videos, by name.

        Args:
            seen: The videos, as in `seen`, of all processes.
        """
        found = (row for row in self._rows() if row["failed"] is None)
        return {row["id"]: row["scores"] for row in found if seen.get(row["id"]) == row["clip"]}

    def _write(self, row: dict[str, Any]) -> None:
        with self._own.open("a", encoding="utf-8") as shard:
            shard.write(json.dumps({"schema": SCHEMA, "settings": self.settings, **row}) + "\n")

    def _rows(self) -> list[dict[str, Any]]:
        """Whole lines of all shards that were made with these settings."""
        found = []
        for shard in sorted(self.folder.glob("part-*.jsonl")):
            for line in shard.read_text("utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # unfinished
                    continue
                if row.get("settings") == self.settings:
                    found.append(row)
        return found


def clip_digest(batch: VideoBatch, row: int) -> str:
    """Digest of what a batch shows of a video: how many frames, which are real, when they are shown, and which.

    Args:
        batch: Where it says neither when its frames are shown nor which they are, their values have to do.
        row: Of the clip.
    """
    fields = cast(dict[str, Tensor], batch)
    clip = fields["features" if "features" in batch else "video"][row]
    found = hashlib.sha256(str(len(clip)).encode())
    for key in ("mask", "pts", "frame_index"):
        if key in batch:
            found.update(repr((key, fields[key][row].tolist())).encode())
    if "pts" not in batch and "frame_index" not in batch:
        found.update(clip.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
