"""The order of display of MPEG-4, from packets alone."""

from __future__ import annotations

import pytest
import videos

from datamodules.readers import open_reader
from datamodules.readers.order import CodedPacket, display_order, mpeg4_display_order
from datamodules.readers.source import PacketSource


@pytest.mark.parametrize("b_frames", [0, 1, 2, 3])
def test_mpeg4_order_is_what_the_decoder_does(tmp_path, b_frames):
    frames = videos.numbered_frames(40, 240, 320)
    path = videos.write_video(tmp_path / "a.avi", frames, codec="mpeg4", b_frames=b_frames)
    packets = PacketSource(str(path))
    packets.scan()
    order = display_order(packets.packets, packets.stream)
    with open_reader(path, "pyav") as reader:
        assert order == reader.index.order.tolist()
    packets.close()


def _packets(*pictures: str) -> list[CodedPacket]:
    return [
        CodedPacket(None, i, 6 if p == "n" else 500, i, i == 0, False, False, p.upper().replace("N", "P"))
        for i, p in enumerate(pictures)
    ]


@pytest.mark.parametrize(
    ("pictures", "order"),
    [
        (["I", "P", "P"], [0, 1, 2]),
        (["I", "P", "B", "P", "B"], [0, 2, 1, 4, 3]),
        (["I", "PB", "n", "PB", "n"], [0, 2, 1, 4, 3]),
        (["I", "PB", "B", "n", "P"], [0, 2, 3, 1, 4]),
        (["I", "PB", "n", "PB"], [0, 2, 1, 3]),
        (["I", "", "P"], [0, 2]),
        (["I", "n", "P"], None),
        (["I", "B", "P"], None),
        (["I", "PBB", "P"], None),
    ],
)
def test_mpeg4_order_of_packed_streams(pictures, order):
    assert mpeg4_display_order(_packets(*pictures)) == order
