"""Frames brought to RGB and to a size by FFmpeg's scaler: decoded ones, and pictures that are no video."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

__all__ = ["FrameConverter", "FrameScaler"]


class FrameConverter:
    """Decoded frames as upright RGB pictures, by bilinear scaling where they have another size.

    What is scaled comes in colour planes. FFmpeg's interleaved RGB takes three times as long, and at even widths it
    drops every second sample of the colours that it has just scaled; at odd ones the bits are the same. At the size
    of the file nothing is scaled, and the frames are those that ``VideoFrame.to_ndarray(format="rgb24")`` gives.

    Args:
        coded: (height, width) of the frames as they are decoded.
        size: (height, width) of the pictures wanted, upright.
        quarter_turns: Counter-clockwise, by which a decoded frame is turned to stand upright.
    """

    def __init__(self, coded: tuple[int, int], size: tuple[int, int], quarter_turns: int = 0) -> None:
        from av.video.reformatter import VideoReformatter

        self.size = size
        self._lying = size if quarter_turns % 2 == 0 else (size[1], size[0])
        self._turns = quarter_turns
        self._is_scaled = self._lying != coded
        self._reformatter = VideoReformatter()

    def empty(self, count: int) -> npt.NDArray[np.uint8]:
        """(count, height, width, 3) for `write`; where frames are scaled, its memory is (count, 3, height, width)."""
        if not self._is_scaled:
            return np.empty((count, *self.size, 3), np.uint8)
        pictures: npt.NDArray[np.uint8] = np.empty((count, 3, *self.size), np.uint8).transpose(0, 2, 3, 1)
        return pictures

    def write(self, frame: VideoFrame, picture: npt.NDArray[np.uint8]) -> None:
        """Convert a frame.

        Args:
            frame: Of any pixel format, and of any size: a stream may change it.
            picture: (height, width, 3), which is filled.
        """
        height, width = self._lying
        kind = "gbrp" if self._is_scaled else "rgb24"
        scaled = self._reformatter.reformat(frame, width, height, kind, interpolation="BILINEAR", threads=1)
        lying = np.rot90(picture, -self._turns) if self._turns else picture
        if not self._is_scaled:
            lying[:] = scaled.to_ndarray()
            return
        for plane, colour in zip(scaled.planes, (1, 2, 0), strict=True):
            lying[..., colour] = np.frombuffer(memoryview(plane), np.uint8).reshape(height, -1)[:, :width]


class FrameScaler:
    """Bilinear scaling of single RGB pictures.

    Args:
        size: (height, width) of what comes out.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._reformatter: VideoReformatter | None = None

    def __call__(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(height, width, 3) RGB frame in the wanted size; the frame itself if it has it already."""
        if frame.shape[:2] == self.size:
            return frame
        from av import VideoFrame
        from av.video.reformatter import VideoReformatter

        self._reformatter = self._reformatter or VideoReformatter()
        height, width = self.size
        source = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        scaled = self._reformatter.reformat(source, width, height, "rgb24", interpolation="BILINEAR", threads=1)
        return scaled.to_ndarray().astype(np.uint8, copy=False)
