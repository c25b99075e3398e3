"""Video frames by index, exactly: decord, an indexed PyAV reader and others behind one interface."""

from datamodules.readers.array_reader import ArrayReader
from datamodules.readers.base import VIDEO_SUFFIXES, Reader
from datamodules.readers.frame_folder import FrameFolderReader
from datamodules.readers.index import VideoIndex
from datamodules.readers.opening import open_reader
from datamodules.readers.scan import count_frames, scan_video
from datamodules.readers.select import READERS, EngineChoice, choose_engine, describe_engines, summarise_engines

__all__ = [
    "READERS",
    "VIDEO_SUFFIXES",
    "ArrayReader",
    "EngineChoice",
    "FrameFolderReader",
    "Reader",
    "VideoIndex",
    "choose_engine",
    "count_frames",
    "describe_engines",
    "open_reader",
    "scan_video",
    "summarise_engines",
]
