"""Which engine reads which file, and why."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from datamodules.readers.exactness import why_not_decord, why_not_decord_here
from datamodules.readers.index import VideoIndex
from datamodules.readers.order import is_avi
from datamodules.readers.source import open_video
from temporal_attn.types import UserError, VideoError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.index import IndexEntry

__all__ = [
    "FRAMES_PER_SECOND",
    "READERS",
    "EngineChoice",
    "check_engine",
    "choose_by_index",
    "choose_engine",
    "choose_for",
    "describe_engines",
    "summarise_engines",
    "what_is_no_video",
]

READERS = ("auto", "decord", "pyav", "torchcodec")

FRAMES_PER_SECOND = 25.0
"""Of folders of images and of arrays, which do not know."""

_LONG_GOP_SECONDS = 4.0
"""Seconds between key frames from which on decord costs no more than seeking: for 8 of 300 frames of 340 × 256 pixels
in H.264, decord / indexed PyAV is 1.7 at 0.5 s, 1.4 at 2 s and 0.9 to 1.0 at 5 s."""
_SUMMARY_FILES = 500


class EngineChoice(NamedTuple):
    """An engine and the reason for it, in words that are alike for files that are alike.

    Args:
        engine: ``decord`` or ``pyav``, ``frames`` or ``array`` for what is no video file, ``none`` for a file that
            cannot be read (in summaries only).
        reason: Why.
    """

    engine: str
    reason: str


def choose_engine(path: str | Path) -> EngineChoice:
    """Engine that ``reader="auto"`` takes for a file, from its header alone.

    decord reads MP4, MOV, WebM and Matroska without edit list and with key frames seconds apart; the indexed reader all
    else: what decord reads wrongly or not at all, and frequent key frames, where seeking beats decoding through.

    Args:
        path: The file.

    Returns:
        The engine and the reason. The same file always gives the same answer on the same platform.

    Raises:
        VideoError: The file cannot be opened.
    """
    kind = what_is_no_video(str(path))
    if kind:
        return EngineChoice(kind, "no video file")
    container, stream = open_video(str(path))
    with container:
        return choose_for(stream)


def choose_for(stream: av.VideoStream) -> EngineChoice:
    """Engine for a video stream that is open, see `choose_engine`."""
    container, pixels = stream.container.format.name, stream.codec_context.format
    if is_avi(container):
        return EngineChoice("pyav", "AVI")
    bits = 8 if pixels is None else max(component.bits for component in pixels.components)
    reason = why_not_decord(container, stream.codec_context.name, bits)
    if reason:
        return EngineChoice("pyav", reason)
    if not has_decord():
        return EngineChoice("pyav", "decord is not installed")
    entries = _index_entries(stream)
    if any(entry.is_discard for entry in entries):
        return EngineChoice("pyav", "edit list")
    return _choose_by_gop(sum(entry.is_keyframe for entry in entries), _seconds(stream))


def choose_by_index(index: VideoIndex) -> EngineChoice:
    """Engine that ``reader="auto"`` takes for a file that has been indexed, wherever decord is installed.

    Packets read from their places beat decord on every kind of file, since nothing is searched at opening and nothing
    behind the last wanted frame is decoded; decord is left with what has no such places, or was not scanned.
    """
    if is_avi(index.container):
        return EngineChoice("pyav", "AVI")
    reason = why_not_decord_here(index, max(index.size))
    if reason:
        return EngineChoice("pyav", reason)
    if index.is_direct:
        return EngineChoice("pyav", "indexed: its packets are read without opening the container")
    return _choose_by_gop(len(index.starts), float(index.times[-1] - index.times[0]) * float(index.tick))


def what_is_no_video(path: str) -> str:
    """``frames`` for a folder, ``array`` for an ``.npy`` file, empty for what may be a video file."""
    if path.lower().endswith(".npy"):
        return "array"
    return "frames" if os.path.isdir(path) else ""


def has_decord() -> bool:
    """Whether decord can be imported here; it has no wheels for some platforms."""
    return importlib.util.find_spec("decord") is not None


def check_engine(engine: str) -> None:
    """Refuse what no reader can be.

    Raises:
        UserError: Unknown engine, or one that is not installed.
    """
    if engine not in READERS:
        raise UserError(f"reader: unknown engine {engine!r}; choose one of {', '.join(READERS)}")
    if engine == "decord" and not has_decord():
        raise UserError("reader: decord is not installed and has no wheel for some platforms; set `reader: pyav`")
    if engine == "torchcodec" and importlib.util.find_spec("torchcodec") is None:
        raise UserError("reader: torchcodec is not installed: `pip install torchcodec`, or set `reader: auto`")


def summarise_engines(
    paths: Iterable[str | Path], engine: str = "auto", max_files: int = _SUMMARY_FILES
) -> Counter[EngineChoice]:
    """How many files each engine reads, and why.

    The choice is a function of the file alone, so that the main process can say what its loader workers do.

    Args:
        paths: Video files.
        engine: One of `READERS`.
        max_files: Of more files than this, evenly spaced ones are looked at; `describe_engines` then says so.

    Returns:
        Number of the files looked at by choice.

    Raises:
        UserError: See `check_engine`.
    """
    check_engine(engine)
    files = list(paths)
    step = max(1, -(-len(files) // max_files))
    counts: Counter[EngineChoice] = Counter()
    for path in files[::step]:
        try:
            choice = choose_engine(path)
        except VideoError:
            choice = EngineChoice("none", "cannot be opened")
        counts[choice if engine == "auto" or choice.engine == "none" else EngineChoice(engine, "asked for")] += 1
    return counts


def describe_engines(counts: Counter[EngineChoice], total: int) -> str:
    """One line for the log.

    Args:
        counts: Of `summarise_engines`.
        total: Files that the line speaks of, looked at or not.
    """
    parts = [f"{choice.engine} {count} ({choice.reason})" for choice, count in counts.most_common()]
    looked_at = sum(counts.values())
    sample = "" if looked_at == total else f", from {looked_at} files looked at"
    return f"readers of {total} files{sample}: {', '.join(parts) or 'none'}"


def _choose_by_gop(keys: int, seconds: float) -> EngineChoice:
    if keys > 1 and seconds < keys * _LONG_GOP_SECONDS:
        return EngineChoice("pyav", f"key frames less than {_LONG_GOP_SECONDS:g} s apart")
    return EngineChoice("decord", f"key frames {_LONG_GOP_SECONDS:g} s apart or more")


def _index_entries(stream: av.VideoStream) -> list[IndexEntry]:
    """What the header says of packets: all of MP4, the key frames of Matroska."""
    if "matroska" not in stream.container.format.name:
        return list(stream.index_entries)
    probe, again = open_video(stream.container.name)
    with probe:
        probe.seek(0)  # Matroska reads its table of key frames when it first seeks
        return list(again.index_entries)


def _seconds(stream: av.VideoStream) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (cast("InputContainer", stream.container).duration or 0) / 1e6
