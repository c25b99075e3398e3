"""Attention over time: frame tokens (B, T, D) with mask and seconds become one clip feature and frame weights."""

from __future__ import annotations

from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.temporal.encoder import POOLS, TEMPORAL, TemporalEncoder, build, names, options
from temporal_attn.temporal.gating import FrameGate, SqueezeExcitation
from temporal_attn.temporal.pooling import AttentionPool, ClassTokenPool, GatedPool, MaxPool, MeanPool, PowerMeanPool
from temporal_attn.temporal.positions import LearnedPosition, RelativeTime, RotaryTime, SinusoidalTime

__all__ = [
    "POOLS",
    "TEMPORAL",
    "AttentionPool",
    "ClassTokenPool",
    "FrameGate",
    "GatedPool",
    "LearnedPosition",
    "MaxPool",
    "MeanPool",
    "PowerMeanPool",
    "RelativeTime",
    "RotaryTime",
    "SelfAttentionBlock",
    "SinusoidalTime",
    "SqueezeExcitation",
    "TemporalEncoder",
    "build",
    "names",
    "options",
]
