"""What one video file really holds: all of it is decoded, in a process that may be killed."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from datamodules.fingerprint import fingerprint, frame_places
from datamodules.heartbeat import beat
from datamodules.readers import open_reader
from datamodules.readers.index import VideoIndex
from datamodules.readers.scan import scan_video
from datamodules.sandbox import Incident, Sandbox
from temporal_attn.types import UnavailableVideo, VideoError

__all__ = ["Examination", "Problem", "examine", "examine_safely", "thumbnail_of"]

Problem = Literal[
    "", "unreadable", "hanging", "crashing", "truncated", "damaged", "over-reported", "mixed-size", "misnumbered"
]
"""What is wrong with a file, empty for nothing: it cannot be read; its decoder hangs, or crashes; fewer frames decode
than it claims; its decoder reports damage; its header counts one frame too many, as many undamaged AVI files do. Of a
folder of images: they differ in size; numbers are missing or appear twice."""

_THUMBNAIL = 96
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Examination:
    """One state of a file, and what was found in it.

    Args:
        path: The file, absolute.
        size: Bytes; 0 like `mtime_ns` where the file could not be had, which says nothing of what it holds.
        mtime_ns: Time of modification in nanoseconds.
        problem: What is wrong, see `Problem`.
        reason: The same in words.
        frames: Frames that decode.
        claimed: Frames that the container speaks of.
        seconds: Duration.
        height: Pixels of an upright frame.
        width: Likewise.
        index: Stored `VideoIndex`, None for a file that cannot be read, empty for a folder of images, which needs none.
        digest: SHA-256 of the content, empty for a file that cannot be opened.
        print: See `datamodules.fingerprint`, empty for a file that cannot be read.
        thumbnail: The middle frame as JPEG, empty for a file that cannot be read.
    """

    path: str
    size: int
    mtime_ns: int
    problem: Problem = ""
    reason: str = ""
    frames: int = 0
    claimed: int = 0
    seconds: float = 0.0
    height: int = 0
    width: int = 0
    index: bytes | None = None
    digest: bytes = b""
    print: bytes = b""
    thumbnail: bytes = b""

    @property
    def is_readable(self) -> bool:
        """Whether frames come out of it, and its index says which."""
        return self.index is not None


def examine_safely(path: str, sandbox: Sandbox) -> Examination:
    """What a file holds, whatever its decoder does.

    Args:
        path: The file.
        sandbox: Where it is decoded. A file that gets no further within its time limit hangs; a long one may take
            as long as it likes.
    """
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
    except OSError as error:
        return Examination(path, 0, 0, "unreadable", f"{error.strerror or error}")
    state = (path, status.st_size, status.st_mtime_ns)
    try:
        found: Examination = sandbox.call(path, examine, *state)
    except Incident as incident:
        problem: Problem = "hanging" if incident.kind == "hang" else "crashing"
        remedy = "; raise --timeout if the disk is slow or the machine busy" if problem == "hanging" else ""
        return Examination(*state, problem, incident.reason + remedy, digest=_digest_safely(path, sandbox))
    except UnavailableVideo as error:  # whatever the file holds: what is said of no state of it is asked again
        return Examination(path, 0, 0, "unreadable", error.reason)
    except VideoError as error:
        return Examination(*state, "unreadable", error.reason, digest=_digest_safely(path, sandbox))
    return found


def examine(path: str, size: int, mtime_ns: int) -> Examination:
    """What a file holds; runs in the child.

    Args:
        path: The file.
        size: Bytes.
        mtime_ns: Time of modification in nanoseconds.

    Raises:
        VideoError: It cannot be read.
    """
    import av.logging

    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as complaints:
        index = scan_video(path)
        with open_reader(path, "pyav", index=index) as reader:
            frames = reader.get_batch(frame_places(len(index)))
    height, width = index.size
    problem, reason = _judge(index, [text.strip() for _, _, text in complaints])
    return Examination(
        path,
        size,
        mtime_ns,
        problem,
        reason,
        frames=len(index),
        claimed=index.claimed,
        seconds=_seconds(index),
        height=height,
        width=width,
        index=index.to_bytes(),
        digest=_digest(path),
        print=fingerprint(frames),
        thumbnail=thumbnail_of(frames[len(frames) // 2]),
    )


def _judge(index: VideoIndex, complaints: list[str]) -> tuple[Problem, str]:
    missing = index.claimed - len(index)
    if missing == 1 and not complaints:
        return "over-reported", f"its header claims {index.claimed} frames, one more than there are"
    if missing > 0:
        return "truncated", f"{len(index)} of {index.claimed} frames decode"
    if complaints:
        return "damaged", f"its decoder reports: {complaints[0]}"
    return "", ""


def _seconds(index: VideoIndex) -> float:
    """Duration, up to where the last frame would end."""
    pts = index.pts
    if len(pts) < 2:
        return 1 / index.fps if index.fps else 0.0
    return float((pts[-1] - pts[0]) * len(pts) / (len(pts) - 1))


def _digest_safely(path: str, sandbox: Sandbox) -> bytes:
    """Digest of a file that its decoder did not survive: mere reading may hang too, on a pipe or a broken disk."""
    try:
        digest: bytes = sandbox.call(path, _digest, path)
    except VideoError:
        return b""
    return digest


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                beat()
                digest.update(block)
    except OSError:
        return b""
    return digest.digest()


def thumbnail_of(frame: npt.NDArray[np.uint8]) -> bytes:
    """A small JPEG of an (H, W, 3) frame."""
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()
