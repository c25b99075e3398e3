"""Which engine reads which file, and why."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from datamodules.readers.decord_reader import can_be_exact
from datamodules.readers.source import is_avi, open_video
from temporal_attn.types import UserError, VideoError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.index import IndexEntry

__all__ = [
    "READERS",
    "EngineChoice",
    "check_engine",
    "choose_engine",
    "choose_for",
    "describe_engines",
    "summarise_engines",
]

READERS = ("auto", "decord", "pyav")

_LONG_GOP_SECONDS = 4.0
"""Seconds between key frames from which on decord costs no more than seeking: for 8 of 300 frames of 340 × 256 pixels
in H.264, decord / indexed PyAV is 1.7 at 0.5 s, 1.4 at 2 s and 0.9 to 1.0 at 5 s."""
_SUMMARY_FILES = 500


class EngineChoice(NamedTuple):
    """An engine and the reason for it, in words that are alike for files that are alike.

    Args:
        engine: ``decord`` or ``pyav``; ``none`` for a file that cannot be read (in summaries only).
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
    container, stream = open_video(str(path))
    with container:
        return choose_for(stream)


def choose_for(stream: av.VideoStream) -> EngineChoice:
    """Engine for a video stream that is open, see `choose_engine`."""
    if is_avi(stream):
        return EngineChoice("pyav", "AVI")
    if not can_be_exact(stream):
        return EngineChoice("pyav", f"{stream.codec_context.name} in {stream.container.format.name}")
    if not has_decord():
        return EngineChoice("pyav", "decord is not installed")
    pixels = stream.codec_context.format
    if pixels is not None and any(component.bits > 8 for component in pixels.components):
        return EngineChoice("pyav", "more than 8 bits a colour")
    entries = _index_entries(stream)
    if any(entry.is_discard for entry in entries):
        return EngineChoice("pyav", "edit list")
    keys = sum(entry.is_keyframe for entry in entries)
    if keys > 1 and _seconds(stream) < keys * _LONG_GOP_SECONDS:
        return EngineChoice("pyav", f"key frames less than {_LONG_GOP_SECONDS:g} s apart")
    return EngineChoice("decord", f"key frames {_LONG_GOP_SECONDS:g} s apart or more")


def has_decord() -> bool:
    """Whether decord can be imported here; it has no wheels for some platforms."""
    return importlib.util.find_spec("decord") is not None


def check_engine(engine: str) -> None:
    """Refuse what no reader can be.

    Raises:
        UserError: Unknown engine, or decord wanted where it is not installed.
    """
    if engine not in READERS:
        raise UserError(f"reader: unknown engine {engine!r}; choose one of {', '.join(READERS)}")
    if engine == "decord" and not has_decord():
        raise UserError("reader: decord is not installed and has no wheel for some platforms; set `reader: pyav`")


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
