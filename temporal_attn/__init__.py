"""Train video classifiers with per-frame and temporal attention, and see which frames decided.

Names are loaded on first use, so that ``import temporal_attn`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "VideoClassificationModule": "temporal_attn.module",
    "VideoClassifier": "temporal_attn.model",
    "FeatureCache": "temporal_attn.features",
    "MetricsWriter": "temporal_attn.callbacks",
    "PredictionWriter": "temporal_attn.callbacks",
    "build_attention": "temporal_attn.attention",
    "insert_attention": "temporal_attn.attention",
    "inspect_video": "temporal_attn.keyframes",
    "load_classifier": "temporal_attn.inference",
    "predict_video": "temporal_attn.inference",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the module that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module 'temporal_attn' has no attribute {name!r}")
    attribute = "build" if name == "build_attention" else name
    return getattr(import_module(_HOME[name]), attribute)


def __dir__() -> list[str]:
    """Show the lazy names too."""
    return sorted(__all__)
