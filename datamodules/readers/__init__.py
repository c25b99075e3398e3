"""Video frames by index, exactly: two engines, decord and an indexed PyAV reader, behind one interface."""

from datamodules.readers.base import VIDEO_SUFFIXES, Reader
from datamodules.readers.opening import open_reader
from datamodules.readers.select import READERS, EngineChoice, choose_engine, describe_engines, summarise_engines

__all__ = [
    "READERS",
    "VIDEO_SUFFIXES",
    "EngineChoice",
    "Reader",
    "choose_engine",
    "describe_engines",
    "open_reader",
    "summarise_engines",
]
