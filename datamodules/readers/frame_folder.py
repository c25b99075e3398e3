"""Videos that are folders of images, one a frame, as many data sets are shipped."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.scaling import FrameScaler
from temporal_attn.types import UnavailableVideo, UserError, VideoError

__all__ = ["IMAGE_SUFFIXES", "FrameFolderReader", "image_names", "natural_order"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Lower-case suffixes of the files that are taken for frames."""

_FRAMES = "img_#"
_NAMED = 5


class FrameFolderReader(BaseReader):
    """JPEG and PNG files of a folder, in the order in which people count: ``frame_2`` comes before ``frame_10``.

    Hidden files are none of them. Where numbered images of several kinds lie together, as in folders of raw frames and
    optical flow, those whose names begin with ``img_`` are the video. The first image tells the size. Images are turned
    upright as their EXIF data says.

    Args:
        path: The folder.
        short_side: Pixels of the short side of the frames returned, by bilinear scaling; None for the size as it is.
        fps: Frames per second, which images do not know.

    Raises:
        VideoError: There is no such folder, no image in it, several kinds of them, or the first cannot be read.
        UserError: fps is not positive.
    """

    engine = "frames"

    def __init__(self, path: str | Path, short_side: int | None = None, fps: float = 25) -> None:
        if not fps > 0:
            raise UserError(f"fps: {fps:g} frames per second; give a positive number")
        self.path = str(path)
        self._names = names = image_names(self.path)
        first = self._load(0)
        self._stored_size = first.shape[:2]
        size = scaled_size(first.shape[0], first.shape[1], short_side)
        self._scale = FrameScaler(size)
        super().__init__(self.path, np.arange(len(names)) / fps, fps, size)

    def close(self) -> None:
        """Nothing is open between two reads."""

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        frames = np.empty((len(wanted), *self.size, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        for index, where in places.items():
            frame = self._load(index)
            if frame.shape[:2] != self._stored_size:
                (height, width), (others, wide) = frame.shape[:2], self._stored_size
                reason = f"{self._names[index]} has {width} × {height} pixels, the first frame {wide} × {others}"
                raise VideoError(self.path, reason)
            frames[where] = self._scale(frame)
        return frames

    def _load(self, index: int) -> npt.NDArray[np.uint8]:
        from PIL import Image, ImageOps, UnidentifiedImageError

        name = self._names[index]
        try:
            with Image.open(os.path.join(self.path, name)) as image:
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk; Pillow's own have no number
                raise UnavailableVideo(self.path, f"{name}: {error.strerror}") from error
            raise VideoError(self.path, f"{name} is no readable image ({error})") from error


def image_names(path: str) -> list[str]:
    """Names of the images in a folder that are its frames, see `FrameFolderReader`, in `natural_order`.

    Raises:
        VideoError: There is no such folder, no image in it, or several kinds of them.
    """
    try:  # macOS leaves a hidden ._00001.jpg beside 00001.jpg, which is no image
        listed = [name for name in os.listdir(path) if not name.startswith(".")]
        names = [name for name in listed if name.lower().endswith(IMAGE_SUFFIXES)]
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise UnavailableVideo(path, "the folder does not exist" if missing else str(error.strerror)) from error
    if not names:
        raise VideoError(path, f"a folder without frames: none of its files ends in {' '.join(IMAGE_SUFFIXES)}")
    return natural_order(_of_one_kind(names, path))


def _of_one_kind(names: list[str], path: str) -> list[str]:
    """The names that number the frames of one film: a kind is what stands around the numbers."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem = name.rpartition(".")[0].lower()
        kinds[re.sub(r"\d+", "#", stem)].append(name)
    numbered = {kind: alike for kind, alike in kinds.items() if "#" in kind}
    if len(numbered) < 2:
        return names
    if _FRAMES in numbered:
        return numbered[_FRAMES]
    found = ", ".join(f"{kind} ({len(alike)})" for kind, alike in sorted(numbered.items())[:_NAMED])
    raise VideoError(
        path, f"a folder with images of several kinds: {found}; give each a folder, or call the frames img_#"
    )


def natural_order(names: list[str]) -> list[str]:
    """File names in the order of the numbers in them; equal ones (``a1``, ``a01``) by their letters."""
    return sorted(names, key=lambda name: ([*_parts(name)], name))


def _parts(name: str) -> list[tuple[int, str]]:
    """Text and numbers by turns, so that like is compared with like."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]
