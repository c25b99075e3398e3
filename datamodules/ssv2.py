"""Something-Something v2: 220,847 videos of 174 things that hands do to things.

Paper: Goyal et al., "The 'Something Something' Video Database for Learning and Evaluating Visual Common Sense",
ICCV 2017. https://arxiv.org/abs/1706.04261

Layout::

    root/1.webm  root/2.webm  ...
    annotations/labels.json  train.json  validation.json  test.json  test-answers.csv (optional)

Many classes are told apart by the direction of a movement: do not flip clips without exchanging left and right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datamodules.annotated import AnnotatedDataModule
from datamodules.records import Entry, read_ssv2

__all__ = ["SSv2DataModule"]


class SSv2DataModule(AnnotatedDataModule):
    """Something-Something v2, or what of it is on disk.

    Who filmed a video was never published, so that every video is a group of its own.

    Example:
        >>> data = SSv2DataModule("data/ssv2/videos", "data/ssv2/labels", augment=AugmentOptions(flip=0.0))
    """

    layout = "<id>.webm (or .mp4, or a folder <id> of images)"

    def read_annotations(self) -> tuple[Sequence[str], Mapping[str, list[Entry]]]:
        """The annotation files of the three parts."""
        return read_ssv2(self.annotations)
