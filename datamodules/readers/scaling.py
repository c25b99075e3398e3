"""RGB frames that are no video, brought to a size by the scaler that scales those of a video."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.reformatter import VideoReformatter

__all__ = ["FrameScaler"]


class FrameScaler:
    """Bilinear scaling of single frames.

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
