"""In which order the frames of a video are shown, from its packets alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import av

__all__ = ["CodedPacket", "display_order", "is_avi", "mpeg4_display_order"]

_LONGEST_PLACEHOLDER = 19
"""Bytes up to which FFmpeg takes an MPEG-4 picture for the placeholder of a packed B-frame (MAX_NVOP_SIZE)."""


class CodedPacket(NamedTuple):
    """What the index remembers of a packet.

    Args:
        pts: Time stamp of presentation in ticks of the stream, None where the container has none.
        dts: Time stamp of decoding; in AVI the number of the frame's slot.
        size: Bytes; 0 stands for a dropped frame.
        position: Byte offset in the file, None where unknown.
        is_key: Whether decoding can start here.
        is_hidden: Whether an edit list says that the frame is decoded but not shown.
        is_cut: Whether the file ends or breaks inside it.
        pictures: Types (I, P, B, S) of the pictures inside, for MPEG-4 in AVI only.
    """

    pts: int | None
    dts: int | None
    size: int
    position: int | None
    is_key: bool
    is_hidden: bool
    is_cut: bool
    pictures: str = ""


def is_avi(container: str) -> bool:
    """Whether a container is AVI, which numbers frames in decoding order and knows no time of presentation."""
    return container == "avi"


def display_order(packets: Sequence[CodedPacket], stream: av.VideoStream) -> list[int] | None:
    """Numbers of the packets whose frames are shown, in the order in which they are shown.

    Args:
        packets: All packets of the stream.
        stream: Tells container and codec.

    Returns:
        The order, or None where only decoding can tell.
    """
    shown = [number for number, packet in enumerate(packets) if packet.size and not packet.is_hidden]
    if is_avi(stream.container.format.name):
        if stream.codec_context.name == "mpeg4":
            return mpeg4_display_order(packets)
        return None if stream.codec_context.codec.reorder else shown
    times = {number: packets[number].pts for number in shown}
    if stream.codec_context.name == "vp8" or None in times.values() or len(set(times.values())) < len(shown):
        return None  # VP8 hides frames without saying so outside the coded data
    return sorted(shown, key=lambda number: times[number] or 0)


def mpeg4_display_order(packets: Sequence[CodedPacket]) -> list[int] | None:
    """Order of display of MPEG-4 Part 2 pictures in AVI, from their types alone.

    A B-picture is shown at once, an I-, P- or S-picture (a reference) when the next reference comes. "Packed" streams
    of DivX and XviD put a reference and the B-picture behind it into one packet and a placeholder into the next; FFmpeg
    (`mpeg4_unpack_bframes_bsf.c`) moves the B-picture there, and so does this function.

    Args:
        packets: All packets of the stream, with their `pictures`.

    Returns:
        Numbers of packets, or None where types do not suffice: a picture so small that it may be a placeholder of its
        own, or B-pictures without the two references that they need.
    """
    order: list[int] = []
    reference: int | None = None
    references, waiting = 0, ""
    for number, packet in enumerate(packets):
        pictures = packet.pictures
        if not pictures:
            continue
        if len(pictures) > 2 or (len(pictures) == 2 and (waiting or pictures[1] != "B")):
            return None
        kind = pictures[0]
        if len(pictures) == 2:
            waiting = pictures[1]
        elif waiting:
            kind, waiting = waiting, "" if packet.size <= _LONGEST_PLACEHOLDER else kind
        elif packet.size <= _LONGEST_PLACEHOLDER:
            return None
        if kind == "B":
            if references < 2:
                return None
            order.append(number)
            continue
        if reference is not None:
            order.append(reference)
        reference, references = number, references + 1
    return order if reference is None else [*order, reference]
