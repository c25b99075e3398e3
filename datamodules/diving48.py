"""Diving48: 18,404 dives from competitions, 48 classes that differ in a few frames.

Paper: Li et al., "RESOUND: Towards Action Recognition without Representation Bias", ECCV 2018.
https://openaccess.thecvf.com/content_ECCV_2018/html/Yingwei_Li_RESOUND_Towards_Action_ECCV_2018_paper.html

Layout::

    root/-mdUevIDB7c_00001.mp4  ...
    annotations/Diving48_vocab.json  Diving48_V2_train.json  Diving48_V2_test.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from datamodules.annotated import AnnotatedDataModule
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import Entry, read_diving48

__all__ = ["Diving48DataModule"]


class Diving48DataModule(AnnotatedDataModule):
    """The official split of Diving48; whole recordings of the training part validate.

    Args:
        root: Folder of the videos.
        annotations: Folder of the annotation files, of one version.
        classes: Names to use, in label order; None takes those with videos on disk, in the official order.
        val_fraction: Share of each class's groups that validates; a group is the recording from which dives were cut.
        allow_outside: Whether links may lead out of the root.
        clip, augment, loader, reader, seed, cache_dir, predict_paths: As in `VideoDataModule`.

    Raises:
        UserError: A number is out of range; later, when the disk is scanned, a folder or file is missing or malformed.

    Example:
        >>> data = Diving48DataModule("data/diving48/rgb", "data/diving48/annotations")
    """

    layout = "<recording>_<number>.mp4"

    def __init__(
        self,
        root: str,
        annotations: str,
        classes: Sequence[str] | None = None,
        val_fraction: float = 0.1,
        allow_outside: bool = False,
        clip: ClipOptions = ClipOptions(),
        augment: AugmentOptions = AugmentOptions(),
        loader: LoaderOptions = LoaderOptions(),
        reader: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
        seed: int = 0,
        cache_dir: str | None = None,
        predict_paths: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            root,
            annotations,
            "test",
            classes,
            val_fraction,
            allow_outside,
            clip,
            augment,
            loader,
            reader,
            seed,
            cache_dir,
            predict_paths,
        )

    def read_annotations(self) -> tuple[Sequence[str], Mapping[str, list[Entry]]]:
        """The vocabulary and the two lists."""
        return read_diving48(self.annotations)
