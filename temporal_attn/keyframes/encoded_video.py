"""A clip of a video file after the backbone: seen once, asked about as often as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from datamodules.dataset import load_clip
from datamodules.readers import open_reader
from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.long_video import MAX_STEP_S, clip_of_long_video, divide
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.time_mixing import EncodedClip, encode_clip
from temporal_attn.types import ClipSpec, UserError, VideoBatch

if TYPE_CHECKING:
    from temporal_attn.inference import LoadedClassifier

__all__ = ["EncodedVideo", "check_step", "encode_video"]


class EncodedVideo(NamedTuple):
    """A clip of a file after the backbone: what every question is asked of.

    Args:
        path: The file.
        clip: How the clip is cut; of a long video with more frames than the checkpoint says.
        batch: The clip as the dataset cuts it.
        encoded: The clip after the backbone.
        stretches: Of a long video: lists of its frames, which play first; None where frames play at once.
    """

    path: str | Path
    clip: ClipSpec
    batch: VideoBatch
    encoded: EncodedClip
    stretches: Sequence[Sequence[int]] | None = None

    def play(
        self, loaded: LoadedClassifier, asked: int | tuple[int, int] | None = None, removal: str = "drop"
    ) -> FrameGame:
        """The game of the clip, in the probabilities that the classifier gives out.

        Args:
            loaded: The classifier that encoded the clip.
            asked: Class index, two of them for a contrast, None for the predicted class.
            removal: What a removed frame becomes.
        """
        batch, device = self.batch, _device(loaded)
        mask, pts = batch["mask"].to(device), batch["pts"].to(device)
        scoring = loaded.scoring
        encoded = self.encoded._replace(temperature=scoring.temperature, multi_label=scoring.multi_label)
        return encoded.play(mask, pts, batch["frame_index"], target=asked, removal=removal)


def check_step(max_step_s: float) -> None:
    """Refuse seconds between two frames that are none.

    Raises:
        UserError: They are not above 0.
    """
    if not max_step_s > 0:
        raise UserError(f"max_step_s: {max_step_s} is no distance between two frames; give seconds above 0, or inf")


def encode_video(
    loaded: LoadedClassifier, path: str | Path, reader: str = "auto", max_step_s: float = MAX_STEP_S
) -> EncodedVideo:
    """Cut the clip of a file and let the backbone see it.

    Args:
        loaded: A classifier.
        path: The video.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.
        max_step_s: See `temporal_attn.keyframes.inspect_video`. A backbone that mixes time takes every video as the
            checkpoint does, because each coalition of many frames would be a pass of the whole model.

    Raises:
        VideoError: The file cannot be read.
        UserError: max_step_s is not positive.
    """
    check_step(max_step_s)
    clip = loaded.clip
    if not getattr(loaded.model, "mixes_time", False):
        with open_reader(path, reader) as video:
            clip = clip_of_long_video(clip, len(video), float(video.pts[-1] - video.pts[0]), max_step_s)
    batch = load_clip(path, clip, reader)
    encoded = encode_clip(loaded.model, batch["video"].to(_device(loaded)), evaluations=2 * BUDGET)
    stretches = None if clip is loaded.clip else divide(encoded.tokens[0])
    return EncodedVideo(path, clip, batch, encoded, stretches)


def _device(loaded: LoadedClassifier) -> torch.device:
    return next(loaded.model.parameters()).device
