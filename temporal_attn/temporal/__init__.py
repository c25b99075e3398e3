"""Attention over time: frame tokens (B, T, D) with mask and seconds become one clip feature and frame weights."""

from __future__ import annotations

from temporal_attn.temporal.encoder import TEMPORAL, TemporalEncoder, build, names
from temporal_attn.temporal.pooling import AttentionPool, MeanPool
from temporal_attn.temporal.positions import RotaryTime

__all__ = ["TEMPORAL", "AttentionPool", "MeanPool", "RotaryTime", "TemporalEncoder", "build", "names"]
