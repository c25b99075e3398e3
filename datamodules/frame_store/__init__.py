"""Videos decoded once: small frames in a few large files, read from memory maps instead of decoders."""

from datamodules.frame_store.filling import Filling, fill_frame_store
from datamodules.frame_store.settings import FrameSettings
from datamodules.frame_store.shard import StoredVideo
from datamodules.frame_store.store import FrameStore, StoredFrames

__all__ = ["Filling", "FrameSettings", "FrameStore", "StoredFrames", "StoredVideo", "fill_frame_store"]
