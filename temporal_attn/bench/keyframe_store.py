"""Answers that are kept between runs: of the same code about the same thing, each in a file of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datamodules.synthetic
import temporal_attn.bench
import temporal_attn.keyframes
from datamodules.atomic import write_atomically

__all__ = ["recall"]

_OWN = ("keyframe_baselines", "keyframe_clips", "keyframe_faith", "keyframe_models", "keyframe_regimes")
"""Modules of the benchmark that answers depend on; the others sum answers up."""


def recall(folder: Path, name: str, about: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was computed before, or what is computed now and kept.

    Args:
        folder: Where answers are kept.
        name: Begins the name of the file.
        about: All that the answer depends on, but for the code; what JSON can hold.
        compute: Makes the answer; what JSON can hold.
    """
    settings = json.dumps({**about, "code": _code()}, sort_keys=True)
    file = folder / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:10]}.json"
    if not file.is_file():
        write_atomically(file, json.dumps(compute()).encode())
    answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return answer


@cache
def _code() -> str:
    """Digest of the sources that answers depend on."""
    sources = [
        source
        for package in (temporal_attn.keyframes, temporal_attn.bench, datamodules.synthetic)
        for folder in package.__path__
        for source in sorted(Path(folder).glob("*.py"))
        if package is not temporal_attn.bench or source.stem in _OWN
    ]
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
