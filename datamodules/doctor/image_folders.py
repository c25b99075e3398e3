"""What a video holds that is a folder of images: every image is decoded."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

from datamodules.examination import Examination, thumbnail_of
from datamodules.fingerprint import fingerprint, frame_places
from datamodules.readers.frame_folder import FrameFolderReader, image_names
from datamodules.readers.select import FRAMES_PER_SECOND
from temporal_attn.types import VideoError

__all__ = ["examine_folder", "examine_folders"]

_NAMED = 5


def examine_folders(paths: Sequence[str], workers: int | None = None) -> list[Examination]:
    """What folders of images hold, each see `examine_folder`.

    It is not stored: the time of a folder does not tell whether its images have changed.

    Args:
        paths: The folders.
        workers: Of them that are read at a time; None for one a processor.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(examine_folder, paths))


def examine_folder(path: str) -> Examination:
    """What a folder of images holds.

    Its problems are images that cannot be read (``damaged``, or ``unreadable`` where that is all of them), images of
    different sizes (``mixed-size``), of which no reader makes a video, and numbers that are missing or appear twice
    (``misnumbered``).

    Args:
        path: The folder.
    """
    unknown = Examination(path, 0, 0)
    try:
        names = image_names(path)
    except VideoError as error:
        return replace(unknown, problem="unreadable", reason=error.reason)
    digest = hashlib.sha256()
    size, sizes, unread = 0, dict[str, tuple[int, int]](), dict[str, str]()
    for name in names:
        try:
            data, sizes[name] = _read(os.path.join(path, name))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all of them
            unread[name] = str(error)
            continue
        digest.update(data)
        size += len(data)
    if not sizes:
        return replace(unknown, problem="unreadable", reason=f"none of its {len(names)} images can be read")
    height, width = next(iter(sizes.values()))
    found = replace(
        unknown,
        size=size,
        mtime_ns=os.stat(path).st_mtime_ns,
        frames=len(sizes),
        claimed=len(names),
        seconds=len(names) / FRAMES_PER_SECOND,
        height=height,
        width=width,
        index=b"",
        digest=digest.digest(),
    )
    if unread:
        first, why = next(iter(unread.items()))
        reason = f"{len(unread)} of {len(names)} images cannot be read, the first of them {first} ({why})"
        return replace(found, problem="damaged", reason=reason)
    other = next((name for name in names if sizes[name] != (height, width)), None)
    if other is not None:
        high, wide = sizes[other]
        reason = f"{other} has {wide} × {high} pixels, {names[0]} {width} × {height}"
        return replace(found, problem="mixed-size", reason=reason)
    with FrameFolderReader(path) as reader:
        frames = reader.get_batch(frame_places(len(reader)))
    found = replace(found, print=fingerprint(frames), thumbnail=thumbnail_of(frames[len(frames) // 2]))
    fault = _numbering_fault(names)
    return replace(found, problem="misnumbered", reason=fault) if fault else found


def _read(path: str) -> tuple[bytes, tuple[int, int]]:
    """Bytes of an image, and its (height, width) as it stands upright; it is decoded to its end."""
    from PIL import Image, ImageOps

    if not os.path.isfile(path):
        raise OSError("no file")
    with open(path, "rb") as file:
        data = file.read()
        with Image.open(file) as image:
            width, height = ImageOps.exif_transpose(image).size
    return data, (height, width)


def _numbering_fault(names: Sequence[str]) -> str:
    """What is wrong with the numbers that end the names, empty for nothing; every n-th frame alone is no fault."""
    matches = [re.search(r"(\d+)\D*$", os.path.splitext(name)[0]) for name in names]
    numbers = sorted(int(match[1]) for match in matches if match is not None)
    if len(numbers) < len(names):
        return ""  # not all have one, so that it is none
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    if twice:
        return f"number {twice[0]} appears twice"
    steps = Counter(after - before for before, after in pairwise(numbers))
    if not steps:
        return ""
    usual = min(steps, key=lambda step: (-steps[step], step))
    gaps = [
        f"{before + usual} to {after - usual}" if after - before > 2 * usual else str(before + usual)
        for before, after in pairwise(numbers)
        if after - before > usual
    ]
    more = f" and {len(gaps) - _NAMED} more gaps" if len(gaps) > _NAMED else ""
    return f"missing numbers: {', '.join(gaps[:_NAMED])}{more}" if gaps else ""
