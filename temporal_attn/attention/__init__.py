"""Attention inside one frame: modules that map (B, C, H, W) to the same shape.

`names` lists them, `build` makes one by name, `insert_attention` puts one into a backbone, `attention_maps` reads the
weights that were used, and `remove_attention` leaves the backbone as it was.
"""

from temporal_attn.attention.branch import SelectiveKernel, SplitAttention
from temporal_attn.attention.cbam import CBAM
from temporal_attn.attention.channel import ECA, SE, ChannelGate
from temporal_attn.attention.context import GlobalContext
from temporal_attn.attention.coordinate import CoordAttention
from temporal_attn.attention.dual import DualAttention, DualChannelAttention, DualPositionAttention
from temporal_attn.attention.gates import Blend, Gate
from temporal_attn.attention.insertion import insert_attention, remove_attention
from temporal_attn.attention.mixed import BAM, SCSE
from temporal_attn.attention.multiscale import MultiScaleFusion, PyramidFeatureAttention
from temporal_attn.attention.non_local import NonLocal
from temporal_attn.attention.pyramid import ASPP, PFA
from temporal_attn.attention.query import QueryKeyValue
from temporal_attn.attention.reading import ShowsWeights, attention_maps, record_attention
from temporal_attn.attention.registry import build, names
from temporal_attn.attention.second_order import SOCA
from temporal_attn.attention.space_time import FactorisedSpaceTime, JointSpaceTime, SpaceAttention, TimeAttention
from temporal_attn.attention.spatial import CBAMSpatialGate, Conv1x1Gate
from temporal_attn.attention.stn import SpatialTransformer

__all__ = [
    "ASPP",
    "BAM",
    "CBAM",
    "ECA",
    "PFA",
    "SCSE",
    "SE",
    "SOCA",
    "Blend",
    "CBAMSpatialGate",
    "ChannelGate",
    "Conv1x1Gate",
    "CoordAttention",
    "DualAttention",
    "DualChannelAttention",
    "DualPositionAttention",
    "FactorisedSpaceTime",
    "Gate",
    "GlobalContext",
    "JointSpaceTime",
    "MultiScaleFusion",
    "NonLocal",
    "PyramidFeatureAttention",
    "QueryKeyValue",
    "SelectiveKernel",
    "ShowsWeights",
    "SpaceAttention",
    "SpatialTransformer",
    "SplitAttention",
    "TimeAttention",
    "attention_maps",
    "build",
    "insert_attention",
    "names",
    "record_attention",
    "remove_attention",
]
