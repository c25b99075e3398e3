"""Who takes part in the decoding benchmark: ways to get a few frames of a video at a target size."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.readers import VideoIndex, open_reader

__all__ = ["Clip", "Frames", "Reference", "contestants", "mean_cells", "sequential_reference"]

Frames = npt.NDArray[np.uint8]

_CELLS = 32
"""Cells along the short side of a frame."""


@dataclass(frozen=True)
class Clip:
    """What is asked of every reader.

    Args:
        path: The file.
        index: Of the file, for those who can use it.
        wanted: Display indices of the frames, ascending.
        short_side: Pixels of the short side, None for the size in the file.
    """

    path: str
    index: VideoIndex
    wanted: Sequence[int]
    short_side: int | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames wanted."""
        from datamodules.readers.base import scaled_size

        return scaled_size(*self.index.size, self.short_side)


def contestants() -> dict[str, Callable[[Clip], Frames | None]]:
    """Readers that can run here, by the name under which they are reported.

    Each opens the file anew, and returns (T, height, width, 3) uint8, or None where it returns no frames by design.
    """
    readers: dict[str, Callable[[Clip], Frames | None]] = {
        "auto (stored index)": _read_auto,
        "pyav (indexed at open)": _read_pyav,
    }
    if importlib.util.find_spec("decord") is not None:
        readers["decord at target size"] = _read_decord
        readers["decord full, then resize"] = _read_decord_full
    if importlib.util.find_spec("cv2") is not None:
        readers["opencv"] = _read_opencv
    if shutil.which("ffmpeg") is not None:
        readers["ffmpeg floor"] = _decode_ffmpeg
    return readers


class Reference(NamedTuple):
    """What one decode of a file from start to end gives.

    Args:
        frames: (T, H, W, 3), the frames wanted.
        cells: (N, h, w, 3), `mean_cells` of all frames.
    """

    frames: Frames
    cells: npt.NDArray[np.float32]


def sequential_reference(clip: Clip) -> Reference:
    """Frames by a decode in one thread, without any seek: what every reader is held against."""
    import av
    import av.error
    from av.video.reformatter import VideoReformatter

    turns = clip.index.quarter_turns
    height, width = clip.size if turns % 2 == 0 else clip.size[::-1]
    reformatter = VideoReformatter()
    frames: list[Frames] = []
    cells: list[npt.NDArray[np.float32]] = []
    with av.open(clip.path, metadata_errors="replace") as container:
        stream = next(stream for stream in container.streams.video if stream.index == clip.index.stream)
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                scaled = reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1)
                pixels = np.rot90(scaled.to_ndarray().astype(np.uint8, copy=False), turns)
                frames += [pixels] * clip.wanted.count(len(cells))
                cells.append(mean_cells(pixels[None])[0])
    return Reference(np.stack(frames), np.stack(cells))


def mean_cells(frames: Frames) -> npt.NDArray[np.float32]:
    """(T, h, w, 3) mean colour of square cells, in which it hardly matters how a reader converts colours."""
    count, height, width, colours = frames.shape
    cell = max(1, min(height, width) // _CELLS)
    rows, columns = height // cell, width // cell
    cut = frames[:, : rows * cell, : columns * cell].reshape(count, rows, cell, columns, cell, colours)
    cells: npt.NDArray[np.float32] = cut.mean(axis=(2, 4), dtype=np.float32)
    return cells


def _read_auto(clip: Clip) -> Frames:
    with open_reader(clip.path, "auto", clip.short_side, clip.index) as reader:
        return reader.get_batch(clip.wanted)


def _read_pyav(clip: Clip) -> Frames:
    with open_reader(clip.path, "pyav", clip.short_side) as reader:
        return reader.get_batch(clip.wanted)


def _read_decord(clip: Clip) -> Frames:
    import decord

    height, width = clip.size
    video = decord.VideoReader(clip.path, width=width, height=height, num_threads=1)
    return np.asarray(video.get_batch(list(clip.wanted)).asnumpy())


def _read_decord_full(clip: Clip) -> Frames:
    import decord
    import torch
    from torchvision.transforms.v2.functional import resize

    frames = decord.VideoReader(clip.path, num_threads=1).get_batch(list(clip.wanted)).asnumpy()
    resized = resize(torch.from_numpy(frames).permute(0, 3, 1, 2), list(clip.size))
    return np.asarray(resized.permute(0, 2, 3, 1).numpy())


def _read_opencv(clip: Clip) -> Frames:
    import cv2

    height, width = clip.size
    capture = cv2.VideoCapture(clip.path)
    frames = []
    try:
        for number in range(clip.wanted[-1] + 1):
            if not capture.grab():
                raise ValueError(f"no frame {number}")
            if number in clip.wanted:
                resized = cv2.resize(capture.retrieve()[1], (width, height), interpolation=cv2.INTER_LINEAR)
                frames.append(resized[..., ::-1])
    finally:
        capture.release()
    return np.stack(frames)


def _decode_ffmpeg(clip: Clip) -> None:
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", clip.path, "-f", "null", os.devnull]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
