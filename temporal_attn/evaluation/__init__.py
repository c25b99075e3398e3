"""What a test says: accuracies with an interval, calibration, failures and missing files counted, as one document."""

from __future__ import annotations

from temporal_attn.evaluation.intervals import bootstrap_over_groups
from temporal_attn.evaluation.summary import summarise
from temporal_attn.evaluation.table import VideoRow, VideoTable

__all__ = ["VideoRow", "VideoTable", "bootstrap_over_groups", "summarise"]
