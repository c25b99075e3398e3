"""torchcodec behind the common interface, for who has it, on the files that it reads exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.readers.base import BaseReader, scaled_size
from datamodules.readers.exactness import why_not_torchcodec
from datamodules.readers.index import VideoIndex
from datamodules.readers.scaling import FrameScaler
from temporal_attn.types import UserError, VideoError

__all__ = ["TorchCodecReader"]


class TorchCodecReader(BaseReader):
    """Reads with torchcodec in its exact mode, which searches the file by itself when it opens it.

    Args:
        path: The file.
        index: What torchcodec must agree with.
        short_side: Pixels of the short side of the frames returned, by bilinear scaling; None for the size in the file.

    Raises:
        VideoError: torchcodec cannot open the file, or is not exact on it.
        UserError: torchcodec is not installed, or finds no FFmpeg.
    """

    engine = "torchcodec"

    def __init__(self, path: str, index: VideoIndex, short_side: int | None = None) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, OSError, RuntimeError) as error:
            raise UserError(
                f"reader: torchcodec cannot be loaded ({type(error).__name__}): `pip install torchcodec`, and FFmpeg "
                "beside it; or set `reader: auto`"
            ) from error
        reason = why_not_torchcodec(index)
        if reason:
            raise VideoError(path, reason)
        try:
            self._video: Any = VideoDecoder(
                path, stream_index=index.stream, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
            )
            frames = len(self._video)
        except Exception as error:  # RuntimeError, ValueError, and what FFmpeg's parts throw
            raise VideoError(path, f"torchcodec cannot open it ({str(error).splitlines()[0]})") from error
        if frames != len(index):
            raise VideoError(path, f"torchcodec counts {frames} frames, {len(index)} decode")
        size = scaled_size(*index.size, short_side)
        self._scale = FrameScaler(size)
        super().__init__(path, index.pts, index.fps, size)

    def close(self) -> None:
        """Give memory and file back."""
        self._video = None

    def _read(self, wanted: list[int]) -> npt.NDArray[np.uint8]:
        try:
            frames = self._video.get_frames_at(indices=wanted).data.numpy()
        except Exception as error:
            raise VideoError(self.path, f"torchcodec fails on a frame ({str(error).splitlines()[0]})") from error
        return np.stack([self._scale(frame) for frame in frames])
