"""On which files the foreign engines were found to give the frames of a sequential decode, and on which not."""

from __future__ import annotations

from datamodules.readers.index import VideoIndex
from datamodules.readers.order import is_avi

__all__ = ["why_not_decord", "why_not_decord_here", "why_not_torchcodec"]

_DECORD_CONTAINERS = frozenset({"avi", "mp4", "webm"})  # in FFmpeg's lists of names; on MPEG-TS decord is frames off
_DECORD_CODECS = frozenset({"h264", "mjpeg", "mpeg4", "vp9", "libvpx-vp9"})  # on HEVC with open GOPs frames are damaged
_DECORD_NARROWEST = 80
"""Pixels of width from which on decord 0.6 never takes a padded RGB line for one with a fourth channel."""

_TORCHCODEC_CONTAINERS = frozenset({"mp4", "webm"})  # on AVI with B-frames it is frames off


def why_not_decord(container: str, codec: str, bits: int) -> str:
    """Reason for which decord 0.6 does not read such files exactly, empty where there is none.

    Args:
        container: FFmpeg's list of names.
        codec: FFmpeg's name of the decoder.
        bits: Bits a colour.
    """
    if not set(container.split(",")) & _DECORD_CONTAINERS or codec not in _DECORD_CODECS:
        return f"decord is not exact on {codec} in {container}"
    return "decord converts more than 8 bits a colour inexactly" if bits > 8 else ""


def why_not_decord_here(index: VideoIndex, width: int) -> str:
    """Reason for which decord 0.6 does not read this file exactly, empty where there is none.

    Args:
        index: Of the file.
        width: Pixels of the frames wanted.
    """
    reason = why_not_decord(index.container, index.codec, index.bits)
    if reason:
        return reason
    if index.is_counted:
        return "decord cannot count its frames: order or number of them show in decoding only"
    if index.video_streams > 1:
        return "decord chooses among several video streams by itself"
    if index.hidden:
        return "decord ignores its edit list"
    if index.has_open_gops:
        return "decord shows damaged frames where a key frame follows frames that are shown before it"
    if is_avi(index.container) and index.has_dropped:
        return "decord miscounts AVI with B-frames or dropped frames"
    if index.claims_too_much:
        return "decord goes by the header, and fewer frames decode"
    if width < _DECORD_NARROWEST:
        return f"decord cannot return frames narrower than {_DECORD_NARROWEST} pixels"
    return ""


def why_not_torchcodec(index: VideoIndex) -> str:
    """Reason for which torchcodec's exact mode does not give the frames of a sequential decode; empty for none."""
    if not set(index.container.split(",")) & _TORCHCODEC_CONTAINERS:
        return f"torchcodec is not exact on {index.container}"
    if index.is_counted:
        return "torchcodec cannot count its frames: order or number of them show in decoding only"
    if index.claims_too_much:
        return "torchcodec goes by the container, and fewer frames decode"
    if index.quarter_turns or index.pixel_aspect != 1:
        return "torchcodec is not tried on turned frames and pixels that are not square"
    return ""
