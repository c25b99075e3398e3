"""What the data sets share whose videos are named by ids and whose annotation files give three official parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import Catalogue, Entry, SplitPlan, build_catalogue
from temporal_attn.types import UserError

__all__ = ["AnnotatedDataModule"]


class AnnotatedDataModule(VideoDataModule):
    """Base of data sets with an official validation part.

    The labels of their test parts were kept back, so that results are commonly reported on the validation part. It
    must not choose the checkpoint then; by default it tests, and whole groups of the training part validate.

    A video is found by its id in whatever folder below the root it lies: as a file with any video suffix, or as a
    folder of images.

    Args:
        root: Folder of the videos.
        annotations: Folder of the annotation files.
        test_part: ``validation`` tests on the official validation part, and takes `val_fraction` of the training part
            for validation. ``test`` tests on the official test part, and validates on the official validation part.
        classes: Names to use, in label order; None takes those with videos on disk, in the official order.
        val_fraction: Share of each class's groups that validates.
        allow_outside: Whether links may lead out of the root.
        clip, augment, loader, reader, seed, cache_dir, predict_paths: As in `VideoDataModule`.

    Raises:
        UserError: A number is out of range; later, when the disk is scanned, a folder or file is missing or malformed.
    """

    def __init__(
        self,
        root: str,
        annotations: str,
        test_part: Literal["validation", "test"] = "validation",
        classes: Sequence[str] | None = None,
        val_fraction: float = 0.05,
        allow_outside: bool = False,
        clip: ClipOptions = ClipOptions(),
        augment: AugmentOptions = AugmentOptions(),
        loader: LoaderOptions = LoaderOptions(),
        reader: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
        seed: int = 0,
        cache_dir: str | None = None,
        predict_paths: Sequence[str] | None = None,
    ) -> None:
        super().__init__(clip, augment, loader, reader, seed, cache_dir, predict_paths)
        if test_part not in ("validation", "test"):
            raise UserError(f"test_part is {test_part!r}; it has to be validation or test")
        self.root = root
        self.annotations = Path(annotations)
        self.test_part = test_part
        self.classes = classes
        self.split_plan = SplitPlan(val_fraction, seed=seed)
        self.allow_outside = allow_outside

    @abstractmethod
    def read_annotations(self) -> tuple[Sequence[str], Mapping[str, list[Entry]]]:
        """Class names in the official order, and the videos by ``train``, ``val`` and ``test``.

        Raises:
            UserError: A file is missing or malformed.
        """

    @property
    @abstractmethod
    def layout(self) -> str:
        """Where a video is expected, for a person who reads it in an error message."""

    @cached_property
    def files(self) -> VideoFiles:
        """The videos below the root, found by one scan."""
        return VideoFiles(self.root, self.allow_outside)

    def find_videos(self) -> Catalogue:
        """The annotated videos, resolved on disk."""
        class_names, official = self.read_annotations()
        parts = dict(official)
        if self.test_part == "validation":
            parts["test"] = parts.pop("val", [])
        return build_catalogue(parts, self._find, class_names, self.classes, self.split_plan)

    def explain_missing(self, split: str) -> str:
        """What was expected, and what was found instead."""
        if split == "val" and self.test_part == "validation":
            return f"{self.root}: no validation videos; choose a larger val_fraction"
        return (
            f"{self.root}: none of the {split} videos in {self.annotations} is here; "
            f"expected {self.layout}, {self.files}"
        )

    def _find(self, entry: Entry) -> str | None:
        return self.files.find_by_id(entry.name, entry.classes if isinstance(entry.classes, str) else None)
