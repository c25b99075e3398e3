"""Kinetics-400, -600 and -700: ten-second clips of YouTube videos, as many classes as the number says.

Paper: Kay et al., "The Kinetics Human Action Video Dataset", 2017. https://arxiv.org/abs/1705.06950;
Carreira et al., "A Short Note about Kinetics-600", 2018. https://arxiv.org/abs/1808.01340;
Smaira et al., "A Short Note on the Kinetics-700-2020 Human Action Dataset", 2020. https://arxiv.org/abs/2010.10864

Layout (many clips are gone from YouTube; class folders, folders of parts, both or none)::

    root/abseiling/0347ZoDXyP0_000095_000105.mp4
    annotations/train.csv  validate.csv  test.csv    label,youtube_id,time_start,time_end,split
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datamodules.annotated import AnnotatedDataModule
from datamodules.records import Entry, read_kinetics

__all__ = ["KineticsDataModule"]


class KineticsDataModule(AnnotatedDataModule):
    """Whatever clips of Kinetics are on disk, under their official annotations.

    `annotations` may also be a single CSV file with the column ``split``. Clips of one YouTube video are a group.

    Example:
        >>> data = KineticsDataModule("data/kinetics400/videos", "data/kinetics400/annotations")
    """

    layout = "<id>_<start>_<end>.mp4 (six digits a second) in class folders or not"

    def read_annotations(self) -> tuple[Sequence[str], Mapping[str, list[Entry]]]:
        """The annotation files of the three parts."""
        return read_kinetics(self.annotations)
