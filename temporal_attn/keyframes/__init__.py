"""Which frames decided: frame scores, key frames and a tested verdict.

`scores` and `select` need nothing but a model's head. `inspect` reads videos and writes reports; its names are loaded
on first use, so that training code that scores frames pulls in no decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from temporal_attn.keyframes.scores import METHODS, FrameGame, Method, names, resolve_target, score_frames
from temporal_attn.keyframes.select import Evidence, Finding, select_keyframes, state_verdict, weigh_evidence

if TYPE_CHECKING:
    from temporal_attn.keyframes.batch import inspect_videos
    from temporal_attn.keyframes.callback import KeyframeCallback
    from temporal_attn.keyframes.inspect import inspect_video
    from temporal_attn.keyframes.inspection import Inspection
    from temporal_attn.keyframes.writer import KeyframeWriter

__all__ = [
    "METHODS",
    "Evidence",
    "Finding",
    "FrameGame",
    "Inspection",
    "KeyframeCallback",
    "KeyframeWriter",
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


_ON_DEMAND = {
    "Inspection": "inspection",
    "KeyframeCallback": "callback",
    "KeyframeWriter": "writer",
    "inspect_video": "inspect",
    "inspect_videos": "batch",
}
"""Name -> the module that reads videos, draws, or needs Lightning."""


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import on first use, so that training code that scores frames pulls in no decoder."""
    if name in _ON_DEMAND:
        return getattr(import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
