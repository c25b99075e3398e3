"""HMDB51: 6,766 clips of 51 human actions from films and the web.

Paper: Kuehne et al., "HMDB: A Large Video Database for Human Motion Recognition", ICCV 2011.
https://doi.org/10.1109/ICCV.2011.6126543

Layout (clips may be missing, and .mp4, .mkv, .webm or .mov may stand for .avi)::

    root/cartwheel/Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi
    splits/cartwheel_test_split1.txt  ...
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from datamodules.base import VideoDataModule
from datamodules.files import VideoFiles
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import Catalogue, SplitPlan, build_catalogue, read_hmdb51_lists
from temporal_attn.types import UserError

__all__ = ["HMDB51DataModule"]


class HMDB51DataModule(VideoDataModule):
    """The official splits of HMDB51, on whatever part of the clips is on disk.

    Tests run on the fold's clips marked 2, training on those marked 1; the others are left out, as the authors did.
    Validation takes whole groups from training. A group is the film that a clip's name begins with, see
    `datamodules.records.parse_hmdb51_name` for how far that goes: the official folds themselves put 133 to 149 films
    on both sides, always under different classes, and the log says so.

    Args:
        root: Folder of the class folders.
        splits: Folder of the official lists ("test_train_splits").
        fold: 1, 2 or 3.
        classes: Names to use, in label order; None takes those with clips on disk, by the alphabet.
        val_fraction: Share of each class's groups that validates.
        allow_outside: Whether links may lead out of the root.
        clip, augment, loader, reader, seed, cache_dir, predict_paths: As in `VideoDataModule`.

    Raises:
        UserError: The fold does not exist; later, when the disk is scanned, a folder or list is missing or malformed.

    Example:
        >>> data = HMDB51DataModule("data/hmdb51", "data/splits/hmdb51", fold=2)
    """

    def __init__(
        self,
        root: str,
        splits: str,
        fold: int = 1,
        classes: Sequence[str] | None = None,
        val_fraction: float = 0.2,
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
        if fold not in (1, 2, 3):
            raise UserError(f"fold is {fold}; HMDB51 has the folds 1, 2 and 3")
        self.root = root
        self.splits = Path(splits)
        self.fold = fold
        self.classes = classes
        self.split_plan = SplitPlan(val_fraction, seed=seed)
        self.allow_outside = allow_outside

    @cached_property
    def files(self) -> VideoFiles:
        """The videos below the root, found by one scan."""
        return VideoFiles(self.root, self.allow_outside)

    def find_videos(self) -> Catalogue:
        """The fold's lists, resolved on disk."""
        class_names, parts = read_hmdb51_lists(self.splits, self.fold)
        return build_catalogue(
            parts, lambda entry: self.files.find(entry.name), class_names, self.classes, self.split_plan
        )

    def explain_missing(self, split: str) -> str:
        """What was expected, and what was found instead."""
        if split == "val":
            return f"{self.root}: no validation clips; choose a larger val_fraction"
        return (
            f"{self.root}: none of the {split} clips in {self.splits}/*_test_split{self.fold}.txt is here; "
            f"expected <root>/<class>/<film>_<class>_....avi (or .mp4, .mkv, .webm, .mov), {self.files}"
        )
