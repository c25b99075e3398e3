"""What tests of frame stores share: three short videos, settings that keep pixels exactly, and who opens videos."""

from __future__ import annotations

from pathlib import Path

import videos

from datamodules.frame_store import FrameSettings
from datamodules.readers import open_reader

EXACT = FrameSettings(32, "uint8")


def opener():
    return open_reader


def three_videos(folder: Path) -> list[str]:
    """Videos of numbered frames in two containers, with names that are hard on paths."""
    place = folder / "videos ü"
    place.mkdir()
    lengths = {"a.mp4": 40, "b.avi": 7, "c +!.mp4": 25}
    codec = {".avi": "mpeg4", ".mp4": "libx264"}
    return [
        str(videos.write_video(place / name, videos.numbered_frames(length), codec=codec[name[-4:]]))
        for name, length in lengths.items()
    ]
