"""Which frames decided: frame scores, key frames and a tested verdict.

`scores` and `select` need nothing but a model's head. `inspect` reads videos and writes reports; its names are loaded
on first use, so that training code that scores frames pulls in no decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_attn.keyframes.scores import METHODS, FrameGame, Method, names, resolve_target, score_frames
from temporal_attn.keyframes.select import Evidence, Finding, select_keyframes, state_verdict, weigh_evidence

if TYPE_CHECKING:
    from temporal_attn.keyframes.inspect import inspect_video, inspect_videos
    from temporal_attn.keyframes.inspection import Inspection

__all__ = [
    "METHODS",
    "Evidence",
    "Finding",
    "FrameGame",
    "Inspection",
    "Method",
    "inspect_video",
    "inspect_videos",
    "names",
    "resolve_target",
    "score_frames",
    "select_keyframes",
    "state_verdict",
    "weigh_evidence",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import what reads videos when it is asked for."""
    if name in ("Inspection", "inspect_video", "inspect_videos"):
        from temporal_attn.keyframes import inspect

        return getattr(inspect, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
