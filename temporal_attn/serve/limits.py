"""How much a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server.

    Args:
        upload: Bytes of a video.
        length: Seconds of a video.
        wait: Seconds that an inspection may take.
        jobs: Inspections that wait or run at the same time.
        videos: Uploaded videos that are kept; the oldest goes first.
    """

    upload: int = 200_000_000
    length: float = 600.0
    wait: float = 120.0
    jobs: int = 8
    videos: int = 16
