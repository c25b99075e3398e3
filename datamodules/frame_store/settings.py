"""What a frame store holds of each video: said once, when it is made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from datamodules.atomic import write_atomically
from temporal_attn.types import UserError

__all__ = ["FrameSettings"]

_SCHEMA = "temporal-attn/frame-store/1"
_FILE = "settings.json"


@dataclass(frozen=True)
class FrameSettings:
    """How frames are stored.

    Args:
        short_side: Pixels of the short side to which the reader scales a frame.
        encoding: ``jpeg``: small, each frame is decompressed when it is read. ``uint8``: exact, copied when it is read,
            about nine times as large.
        quality: Of the JPEG, 1 to 95.
        max_frames: Most frames of a video, the middles of as many equal parts; None stores all of them. A store of some
            serves clips of no more frames that are spread over whole videos, and no others.
        reader: Engine of `datamodules.readers.open_reader`.

    Raises:
        UserError: A number is out of its range, or the encoding is unknown.
    """

    short_side: int = 128
    encoding: Literal["jpeg", "uint8"] = "jpeg"
    quality: int = 90
    max_frames: int | None = None
    reader: str = "auto"

    def __post_init__(self) -> None:
        if self.short_side < 1:
            raise UserError(f"short_side is {self.short_side}; it has to be a positive number of pixels")
        if self.encoding not in ("jpeg", "uint8"):
            raise UserError(f"encoding is {self.encoding!r}; it has to be jpeg or uint8")
        if not 1 <= self.quality <= 95:
            raise UserError(f"quality is {self.quality}; it has to be between 1 and 95")
        if self.max_frames is not None and self.max_frames < 1:
            raise UserError(f"max_frames is {self.max_frames}; it has to be positive, or left out for all frames")

    def choose(self, length: int) -> npt.NDArray[np.int64]:
        """Frames of a video that are stored: all, or the middles of `max_frames` equal segments.

        Args:
            length: Frames of the video.

        Returns:
            Ascending indices in [0, length).

        Example:
            >>> FrameSettings(max_frames=4).choose(8).tolist()
            [1, 3, 5, 7]
        """
        count = length if self.max_frames is None else min(length, self.max_frames)
        return (2 * np.arange(count, dtype=np.int64) + 1) * length // (2 * max(count, 1))

    def save(self, folder: Path) -> None:
        """Write them into the store's folder, which is made if it is missing.

        Raises:
            UserError: The folder holds frames of other settings, or cannot be written.
        """
        if (folder / _FILE).exists():
            known = asdict(self.load(folder))
            changed = [f"{name} {known[name]}" for name, value in asdict(self).items() if known[name] != value]
            if changed:
                raise UserError(
                    f"{folder}: its frames were stored with {', '.join(changed)}; choose another folder, or delete it"
                )
            return
        text = json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=2) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _FILE, text.encode())
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None

    @classmethod
    def load(cls, folder: Path) -> FrameSettings:
        """Those of a store.

        Raises:
            UserError: The folder is no frame store of this version.
        """
        try:
            content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{folder}: no frame store; `temporal-attn cache frames` makes one") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / _FILE}: cannot be read ({error}); delete the folder, and store again") from None
        if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
            raise UserError(f"{folder}: not a frame store of the format {_SCHEMA}; choose another folder")
        return cls(**{field.name: content[field.name] for field in fields(cls)})
