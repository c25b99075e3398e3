"""Teachers: what a larger model says of a training clip, asked anew for each batch or read from its predictions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from temporal_attn.checkpoints import read_checkpoint
from temporal_attn.model import VideoClassifier
from temporal_attn.naming import video_names
from temporal_attn.types import UserError, VideoBatch

__all__ = ["AskedTeacher", "StoredTeacher", "Teacher", "class_order", "find_teacher"]

_SMALLEST = 1e-12  # a stored probability of 0 is a rounded one


class Teacher(Protocol):
    """What students learn from."""

    def __call__(self, batch: VideoBatch) -> Tensor:
        """Logits of the batch's clips (B, K), or logarithms of their probabilities, in the student's class order."""
        ...


def class_order(own: Sequence[str], students: Sequence[str], teacher: str) -> list[int]:
    """Where each of the student's classes stands in the teacher's order.

    Args:
        own: Class names of the teacher.
        students: Class names of the student.
        teacher: The teacher's file, for the message.

    Raises:
        UserError: They know different classes.
    """
    if set(own) != set(students):
        lacking = sorted(set(students) - set(own))
        beyond = sorted(set(own) - set(students))
        found = [f"{text} {names[0]}" for text, names in (("does not know", lacking), ("also knows", beyond)) if names]
        raise UserError(f"teacher {teacher}: {' and '.join(found)}; it has to know the student's classes and no others")
    return [list(own).index(name) for name in students]


class AskedTeacher:
    """A trained model that sees the very clips that the student sees, augmented and mixed as they are.

    Paper: Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", CVPR 2022.
        https://arxiv.org/abs/2106.05237

    Args:
        model: It normalises frames by itself, as it was trained to.
        order: Column of its logits for each of the student's classes, see `class_order`.
        path: Its checkpoint, for messages.
    """

    def __init__(self, model: VideoClassifier, order: Sequence[int], path: str, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.model = model.eval().requires_grad_(False)
        self.order = list(order)
        self.path = path

    @classmethod
    def from_checkpoint(cls, path: str, class_names: Sequence[str]) -> AskedTeacher:
        """A teacher from its checkpoint.

        Args:
            path: A ``.ckpt`` of `temporal-attn fit`.
            class_names: The student's.

        Raises:
            UserError: It is none of this package, does not fit this version, or knows other classes.
        """
        checkpoint = read_checkpoint(path)
        settings, state = checkpoint["hyper_parameters"], checkpoint["state_dict"]
        try:
            model = VideoClassifier.from_settings(len(settings["class_names"]), settings)
            model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        except (TypeError, RuntimeError) as error:
            raise UserError(f"teacher {path}: does not fit this version: {str(error).splitlines()[0]}") from None
        temperature = checkpoint.get("calibration", {}).get("temperature", 1.0)
        return cls(model, class_order(settings["class_names"], class_names, path), path, temperature)

    @torch.no_grad()
    def __call__(self, batch: VideoBatch) -> Tensor:
        """Its logits (B, K).

        Raises:
            UserError: The batch has cached features, which are the student's, instead of frames.
        """
        if "video" not in batch:
            raise UserError(
                f"teacher {self.path} needs frames, but training reads cached features: store what it says of the "
                "training videos with `temporal-attn predict`, and give the predictions.jsonl as teacher"
            )
        video = batch["video"]
        channels = 3 * self.model.backbone.streams
        if video.shape[2] < channels:
            raise UserError(
                f"teacher {self.path} has two streams and needs frames in pairs: set clip.lag of the data and "
                "two_stream of the model as they were for the teacher"
            )
        # Of a pair the frame itself comes first, which is all that a teacher of one stream knows.
        logits: Tensor = self.model.to(video.device)(video[:, :, :channels], batch.get("mask"), batch.get("pts")).logits
        return logits.float()[:, self.order] / self.temperature

    def __deepcopy__(self, memo: dict[int, Any]) -> AskedTeacher:
        """A copy of the student, such as an average of its weights, learns from the same teacher."""
        return self


class StoredTeacher:
    """Predictions that a model left in a file; the student may see cached features, and other frames than it saw.

    Clips that are mixed get their teacher's probabilities mixed by the same shares.

    Args:
        path: ``predictions.jsonl`` of `temporal-attn predict`: rows with ``video_id`` and ``probabilities`` by class.
        class_names: The student's.

    Raises:
        UserError: The file is missing or malformed, or its classes are not the student's.
    """

    def __init__(self, path: str, class_names: Sequence[str]) -> None:
        self.path = path
        rows = _read(path, class_names)
        self._failed = {name for name, probabilities in rows.items() if probabilities is None}
        known = {name: row for name, row in rows.items() if row is not None}
        if not known:
            raise UserError(f"teacher {path}: holds no prediction")
        self._rows = {name: number for number, name in enumerate(known)}
        self._probabilities = torch.stack(list(known.values()))

    def match(self, ids: Iterable[str], paths: Iterable[str]) -> None:
        """Find the training videos before the training: by id, or by file, which is what prediction on files stores.

        Args:
            ids: Names of the training videos.
            paths: Their files.

        Raises:
            UserError: The file says nothing of one of them.
        """
        by_file = {os.path.abspath(name): name for name in (*self._rows, *self._failed)}
        missing = []
        for video, path in zip(ids, paths, strict=True):
            if video in self._rows or video in self._failed:
                continue
            stored = by_file.get(os.path.abspath(path))
            if stored is None:
                missing.append(video)
            elif stored in self._rows:
                self._rows[video] = self._rows[stored]
            else:
                self._failed.add(video)
        if missing:
            raise UserError(
                f"teacher {self.path}: says nothing of {len(missing)} training videos, e.g. {missing[0]}; predict on "
                "all of them"
            )

    def __call__(self, batch: VideoBatch) -> Tensor:
        """Logarithms of its probabilities (B, K).

        Raises:
            UserError: The batch does not name its videos, or the file says nothing of one of them.
        """
        names = video_names(batch)
        if names is None:
            raise UserError(f"teacher {self.path}: the batch needs video_id, by which its predictions are found")
        unknown = [name for name in names if name not in self._rows]
        if unknown:
            why = "could not be read when it was predicted" if unknown[0] in self._failed else "is not in it"
            raise UserError(f"teacher {self.path}: {unknown[0]} {why}; predict on all training videos")
        probabilities = self._probabilities[[self._rows[name] for name in names]]
        partner = batch.get("partner")
        if partner is not None:
            share = batch["lam"].cpu()[:, None]
            probabilities = share * probabilities + (1 - share) * probabilities[partner.cpu()]
        return probabilities.clamp(min=_SMALLEST).log().to(batch["label"].device)


def find_teacher(path: str, class_names: Sequence[str], records: Any = None) -> Teacher:  # noqa: ANN401
    """The teacher that a file holds: a checkpoint is asked, anything else are predictions.

    Args:
        path: A ``.ckpt``, or a ``predictions.jsonl``.
        class_names: The student's.
        records: The training videos, a table with ``ids`` and ``paths``; each has to be among the predictions.

    Raises:
        UserError: See `AskedTeacher.from_checkpoint` and `StoredTeacher`.
    """
    if path.endswith(".ckpt"):
        return AskedTeacher.from_checkpoint(path, class_names)
    teacher = StoredTeacher(path, class_names)
    if records is not None:
        teacher.match(records.ids, records.paths)
    return teacher


def _read(path: str, class_names: Sequence[str]) -> dict[str, Tensor | None]:
    """Probabilities (K,) for each video, None where it could not be read.

    Row by row, because a data set of hundreds of classes has more of them than fit into memory as dicts.

    Raises:
        UserError: The file does not exist, a line is not such a row, or its classes are others.
    """
    rows: dict[str, Tensor | None] = {}
    wanted = set(class_names)
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    said = None if row["probabilities"] is None else dict(row["probabilities"])
                    if said is not None and said.keys() != wanted:
                        class_order(list(said), class_names, path)
                    rows[row["video_id"]] = None if said is None else _finite([said[name] for name in class_names])
                except (KeyError, TypeError, ValueError):
                    raise UserError(
                        f"teacher {path}: line {number} has no video_id and probabilities by class name; give a "
                        "predictions.jsonl of `temporal-attn predict`, or a .ckpt"
                    ) from None
    except OSError as error:
        raise UserError(f"teacher {path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise UserError(f"teacher {path}: is no text; give a predictions.jsonl, or a .ckpt") from None
    return rows


def _finite(values: Sequence[float]) -> Tensor:
    """Numbers as float32.

    Raises:
        ValueError: One of them is none.
    """
    found = torch.tensor(values, dtype=torch.float32)
    if not found.isfinite().all():
        raise ValueError("not finite")
    return found
