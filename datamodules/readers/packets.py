"""Coded packets for a decoder: where they come from, and how frames come out.

A packet carries its number (its position in decoding order) as its time stamp through the decoder, and the frame that
comes out carries it on. So frames are known by what they are, not by when they come.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from io import BufferedReader, FileIO
from typing import TYPE_CHECKING, Protocol, cast

from datamodules.heartbeat import beat
from datamodules.readers.index import VideoIndex
from temporal_attn.types import UnavailableVideo, VideoError

if TYPE_CHECKING:
    import av

__all__ = ["Packets", "StoredPackets", "decode", "decode_packets"]

_BUFFER_BYTES = 1 << 16


class Packets(Protocol):
    """A decoder and what it is to be given: a `PacketSource`, or `StoredPackets`."""

    @property
    def context(self) -> av.VideoCodecContext:
        """The decoder."""
        ...

    def packets_from(self, number: int) -> Iterator[av.Packet[av.VideoStream]]:
        """Packets from one on to the end in decoding order, each with its number as time stamp; no dropped frames."""
        ...

    def close(self) -> None:
        """Give memory and file back."""
        ...


class StoredPackets:
    """Packets read from where the index says that they lie, and a decoder set up by it: no container is opened.

    Args:
        path: The file.
        index: Of this file as it is now, with `positions`.

    Raises:
        VideoError: The file cannot be opened.
    """

    def __init__(self, path: str, index: VideoIndex) -> None:
        import av

        self._path = path
        self._index = index
        self._positions, self._sizes = index.positions.tolist(), index.sizes.tolist()
        try:
            self.context = cast("av.VideoCodecContext", av.CodecContext.create(index.codec, "r"))
        except ValueError as error:
            raise VideoError(path, f"this FFmpeg has no decoder {index.codec}: scan the file again") from error
        try:
            self._file = BufferedReader(FileIO(path), _BUFFER_BYTES)
        except OSError as error:
            raise UnavailableVideo(path, error.strerror or str(error)) from error
        self.context.thread_count = 1
        self.context.codec_tag = index.codec_tag
        self.context.extradata = index.extradata or None
        self.context.height, self.context.width = index.coded
        self.context.bits_per_coded_sample = index.sample_bits
        self.context.color_range, self.context.colorspace = index.colours
        self.context.reorder_depth = index.reorder

    def packets_from(self, number: int) -> Iterator[av.Packet[av.VideoStream]]:
        """See `Packets`."""
        import av

        for following in range(number, len(self._sizes)):
            size = self._sizes[following]
            if not size:
                continue
            packet = cast("av.Packet[av.VideoStream]", av.Packet(size))  # with the padding that decoders read into
            self._file.seek(self._positions[following])
            if self._file.readinto(packet) < size:
                raise VideoError(self._path, "the file has become shorter since it was scanned")
            packet.pts = following
            yield packet

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def decode_packets(
    packets: Packets, first: int = 0, last: int | None = None, wanted: Container[int | None] | None = None
) -> Iterator[av.VideoFrame]:
    """Frames of a stretch of packets; the time stamp of each is its packet's number.

    Args:
        packets: From which the decoder is fed.
        first: Number of the first packet.
        last: Number of the last one; None for the end of the stream.
        wanted: Numbers of the frames that are needed; the decoder passes over others where no frame refers to them.
            None for all.
    """
    context = packets.context
    context.flush_buffers()
    for packet in packets.packets_from(first):
        if last is not None and (packet.pts or 0) > last:
            break
        beat()
        context.skip_frame = "DEFAULT" if wanted is None or packet.pts in wanted else "NONREF"
        yield from decode(context, packet)
    context.skip_frame = "DEFAULT"
    yield from decode(context, None)
    context.flush_buffers()


def decode(context: av.VideoCodecContext, packet: av.Packet[av.VideoStream] | None) -> list[av.VideoFrame]:
    """Frames that come out of the decoder when a packet goes in, or, with None, those that it still holds.

    A damaged packet gives none, and decoding goes on with the next one: FFmpeg's own programs do the same.
    """
    import av.error

    try:
        return context.decode(packet)
    except av.error.FFmpegError:
        return []
