"""What a test says: accuracies with an interval, failures and missing files counted, as one JSON document."""

from __future__ import annotations

from temporal_attn.evaluation.intervals import bootstrap_over_groups
from temporal_attn.evaluation.summary import VideoRow, summarise

__all__ = ["VideoRow", "bootstrap_over_groups", "summarise"]
