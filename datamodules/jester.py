"""Jester: 148,092 clips of 27 hand gestures, and others in the same form, such as Something-Something v1.

Paper: Materzynska et al., "The Jester Dataset: A Large-Scale Video Dataset of Human Gestures", ICCV Workshops 2019.
https://doi.org/10.1109/ICCVW.2019.00349

Layout::

    root/1/00001.jpg  00002.jpg  ...      or root/1.mp4
    annotations/jester-v1-labels.csv  jester-v1-train.csv  jester-v1-validation.csv  jester-v1-test.csv

Some gestures differ in left and right only: do not flip clips without exchanging them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datamodules.annotated import AnnotatedDataModule
from datamodules.records import Entry, read_jester

__all__ = ["JesterDataModule"]


class JesterDataModule(AnnotatedDataModule):
    """Jester, or another data set with lists of ``<id>;<class>``.

    Who performs a gesture was never published, so that every video is a group of its own.

    Example:
        >>> data = JesterDataModule("data/jester/20bn-jester-v1", "data/jester", augment=AugmentOptions(flip=0.0))
    """

    layout = "a folder <id> of images, or <id>.mp4"

    def read_annotations(self) -> tuple[Sequence[str], Mapping[str, list[Entry]]]:
        """The annotation files of the three parts."""
        return read_jester(self.annotations)
