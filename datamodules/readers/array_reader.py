"""Videos that are NumPy arrays already, in memory or as an ``.npy`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.scaling import FrameScaler
from temporal_attn.types import UnavailableVideo, UserError, VideoError

__all__ = ["ArrayReader"]


class ArrayReader(BaseReader):
    """Frames of an array, which is not copied; of a file, only the frames asked for are read.

    Args:
        video: (T, H, W, 3) uint8 RGB, or the path of an ``.npy`` file that holds such an array.
        short_side: Pixels of the short side of the frames returned, by bilinear scaling; None for the size as it is.
        fps: Frames per second, which an array does not know.

    Raises:
        VideoError: The file cannot be read, or holds another kind of array.
        UserError: The array is of another shape or type, or fps is not positive.
    """

    engine = "array"

    def __init__(
        self, video: npt.NDArray[np.uint8] | str | Path, short_side: int | None = None, fps: float = 25
    ) -> None:
        if not fps > 0:
            raise UserError(f"fps: {fps:g} frames per second; give a positive number")
        if isinstance(video, np.ndarray):
            path = "<array>"
            frames = video
            fault = _fault(frames)
            if fault:
                raise UserError(f"video: {fault}")
        else:
            path = str(video)
            frames = _load(path)
            fault = _fault(frames)
            if fault:
                raise VideoError(path, fault)
        self._frames: npt.NDArray[np.uint8] | None = frames
        size = scaled_size(frames.shape[1], frames.shape[2], short_side)
        self._scale = FrameScaler(size)
        super().__init__(path, np.arange(len(frames)) / fps, fps, size)

    def close(self) -> None:
        """Let go of the array."""
        self._frames = None

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        if self._frames is None:
            raise VideoError(self.path, "the reader is closed")
        return np.stack([self._scale(np.asarray(self._frames[index])) for index in wanted])


def _load(path: str) -> npt.NDArray[np.uint8]:
    try:
        frames: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UnavailableVideo(path, "the file does not exist") from error
    except PermissionError as error:
        raise UnavailableVideo(path, error.strerror or str(error)) from error
    except (OSError, ValueError, EOFError) as error:
        raise VideoError(path, f"not an array of NumPy, or cut off ({error})") from error
    if not isinstance(frames, np.ndarray):
        raise VideoError(path, "an archive of arrays; save the frames alone with numpy.save")
    return frames


def _fault(frames: npt.NDArray[np.generic]) -> str:
    """What is wrong with an array of frames, empty where nothing is."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        return f"an array of shape {frames.shape}; a video is (frames, height, width, 3)"
    return "" if frames.dtype == np.uint8 else f"an array of {frames.dtype}; a video is uint8, 0 to 255"
