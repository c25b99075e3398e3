"""Attention inside one frame: modules that map (B, C, H, W) to the same shape.

`names` lists them, `build` makes one by name, `insert_attention` puts one into a backbone, `attention_maps` reads the
weights that were used, and `remove_attention` leaves the backbone as it was.
"""

from temporal_attn.attention.cbam import CBAM
from temporal_attn.attention.gates import Blend, Gate
from temporal_attn.attention.insertion import insert_attention, remove_attention
from temporal_attn.attention.reading import ShowsWeights, attention_maps, record_attention
from temporal_attn.attention.registry import build, names

__all__ = [
    "CBAM",
    "Blend",
    "Gate",
    "ShowsWeights",
    "attention_maps",
    "build",
    "insert_attention",
    "names",
    "record_attention",
    "remove_attention",
]
