"""Stored indices: opened without any search, a file gives the frames of a sequential decode, bit for bit."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import videos

from datamodules.readers import VideoIndex, count_frames, open_reader, scan_video
from datamodules.readers import pyav_reader as pyav_module
from datamodules.readers import source as source_module
from datamodules.readers.packets import StoredPackets
from datamodules.readers.scan import index_packets
from datamodules.readers.source import PacketSource
from temporal_attn.types import UnavailableVideo, UserError, VideoError

FRAMES = 50
UNEVEN = [0.04 * i + 0.011 * (i % 3) for i in range(FRAMES)]
FILES = {
    "gop12.mp4": {},
    "gop250.mp4": {"gop": 250, "b_frames": 3, "audio": True},
    "uneven.mp4": {"times": UNEVEN, "b_frames": 2},
    "turned90.mp4": {"rotation": 90},
    "ten_bits.mp4": {"pix_fmt": "yuv420p10le"},
    "h265.mp4": {"codec": "libx265", "b_frames": 2},
    "gop12.avi": {"codec": "mpeg4", "audio": True},
    "single_gop.avi": {"codec": "mpeg4", "gop": 600},
    "b_frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "h264.avi": {"b_frames": 2},
    "motion.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "audio": True},
    "vp8.webm": {"codec": "libvpx"},
    "av1.mkv": {"codec": "libsvtav1"},
    "b_frames.mkv": {"b_frames": 2, "audio": True},
    "mpeg2.mkv": {"codec": "mpeg2video", "b_frames": 2},
    "transport.ts": {"b_frames": 2, "audio": True},
}
NAMES = [*FILES, "edited.mp4", "one.mp4", "odd_size.mp4"]
TURNS = {"turned90.mp4": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = videos.numbered_frames(FRAMES, 90, 120)
    for name, options in FILES.items():
        videos.write_video(folder / name, frames, **options)
    videos.write_video(folder / "edited.mp4", frames, b_frames=2)
    videos.set_edit_start(folder / "edited.mp4", 0.7)
    videos.write_video(folder / "one.mp4", frames[:1])
    videos.write_video(folder / "odd_size.mp4", videos.numbered_frames(FRAMES, 91, 121), pix_fmt="yuv444p")
    return folder


def reference(path: Path) -> np.ndarray:
    return np.rot90(videos.sequential_decode(path), TURNS.get(path.name, 0), axes=(1, 2))


def assert_reads(path: Path, index: VideoIndex, expected: np.ndarray) -> None:
    n = len(expected)
    draw = random.Random(0)
    some = [draw.randrange(n) for _ in range(8)]
    queries = [some, [n * (2 * i + 1) // 16 for i in range(8)], [n - 1], [n - 1, 0, n // 2, 0], list(range(n))]
    queries += [[i] for i in range(min(n, 20))] + [list(range(i, min(i + 7, n))) for i in range(0, n, 7)]
    with open_reader(path, "auto", index=index) as reader:
        assert len(reader) == n
        assert reader.size == expected.shape[1:3]
        for indices in queries:
            np.testing.assert_array_equal(reader.get_batch(indices), expected[indices], err_msg=f"{path} {indices}")


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_those_of_a_sequential_decode(folder, name):
    path = folder / name
    index = scan_video(path)
    expected = reference(path)
    assert_reads(path, VideoIndex.from_bytes(index.to_bytes()), expected)
    assert len(index) == count_frames(path) == len(expected)
    assert not index.claims_too_much
    with open_reader(path, "pyav") as searched:
        np.testing.assert_array_equal(index.pts, searched.pts)
        assert searched.fps == pytest.approx(open_reader(path, index=index).fps)


def test_packets_are_read_without_the_container_and_gops_are_known(folder, monkeypatch):
    indices = {name: scan_video(folder / name) for name in NAMES}
    assert {name for name in NAMES if not indices[name].is_direct} <= {"transport.ts", "vp8.webm"}
    monkeypatch.setattr(pyav_module, "PacketSource", None)  # whoever opened a container would use it
    for name in ("gop12.avi", "b_frames.mkv", "vp9.webm", "edited.mp4", "h265.mp4"):
        with open_reader(folder / name, index=indices[name]) as reader:
            assert reader.get_batch([3]).shape == (1, *reader.size, 3)
    assert indices["gop12.avi"].starts.tolist() == [0, 12, 24, 36, 48]
    assert indices["gop12.avi"].gop_frames == 10
    assert indices["single_gop.avi"].starts.tolist() == [0]
    assert indices["edited.mp4"].hidden > 0


def test_frames_that_no_other_needs_are_passed_over_only_where_that_is_proven(folder):
    for name, can_skip in {"b_frames.avi": True, "gop250.mp4": True, "gop12.avi": False, "h265.mp4": False}.items():
        assert scan_video(folder / name).can_skip == can_skip, name


@pytest.mark.parametrize("name", ["gop12.mp4", "b_frames.avi", "b_frames.mkv", "transport.ts", "edited.mp4"])
def test_large_files_have_the_same_index(folder, monkeypatch, name):
    expected = scan_video(folder / name)
    monkeypatch.setattr(source_module, "_KEEP_BYTES", 0)  # nothing is kept in memory
    assert scan_video(folder / name) == expected


def test_a_key_frame_that_is_none_is_no_start(folder, monkeypatch):
    path = folder / "single_gop.avi"
    honest = PacketSource.scan

    def lying(self: PacketSource) -> None:
        honest(self)
        self.packets = [packet._replace(is_key=number % 10 == 0) for number, packet in enumerate(self.packets)]

    monkeypatch.setattr(PacketSource, "scan", lying)
    source = PacketSource(str(path))
    source.scan()
    assert index_packets(source).starts.tolist() == [0, 10, 20, 30, 40]
    source.close()
    index = scan_video(path)
    assert index.starts.tolist() == [0]
    assert_reads(path, index, reference(path))


# --- the stored form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gop12.avi", "h265.mp4", "edited.mp4", "one.mp4"])
def test_an_index_survives_storage(folder, name):
    index = scan_video(folder / name)
    data = index.to_bytes()
    again = VideoIndex.from_bytes(data)
    assert again == index
    assert again.tick == index.tick
    assert again.extradata == index.extradata
    np.testing.assert_array_equal(again.positions, index.positions)
    assert index != replace(index, claimed=index.claimed + 1)
    assert len(data) < 3000 + len(index.extradata) * 2


def test_a_damaged_index_is_refused(folder):
    data = scan_video(folder / "gop12.avi").to_bytes()
    draw = random.Random(0)
    for _ in range(50):
        place = draw.randrange(len(data))
        broken = data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]
        with pytest.raises(ValueError, match="index"):
            VideoIndex.from_bytes(broken)
    for wrong in (b"", data[:10], data[:-1], data + b"x"):
        with pytest.raises(ValueError, match="index"):
            VideoIndex.from_bytes(wrong)


def test_an_index_of_another_state_of_the_file_is_not_used(tmp_path, caplog):
    path = videos.write_video(tmp_path / "a.avi", videos.numbered_frames(30, 90, 120), codec="mpeg4")
    index = scan_video(path)
    videos.write_video(path, videos.numbered_frames(20, 90, 120, first=100), codec="mpeg4")
    assert not index.fits(path)
    with open_reader(path, index=index) as reader:
        assert videos.read_numbers(reader.get_batch([0, 19])) == [100, 119]
    assert "has changed since it was indexed" in caplog.text
    os.utime(path, ns=(1, 1))
    assert not scan_video(path).fits(videos.write_text(tmp_path / "other.txt"))
    path.unlink()
    with pytest.raises(UnavailableVideo, match="does not exist"):
        open_reader(path, index=index)


def test_a_file_that_shrinks_under_its_reader_is_an_error(tmp_path):
    path = videos.write_video(tmp_path / "a.avi", videos.numbered_frames(30, 90, 120), codec="mpeg4")
    with open_reader(path, index=scan_video(path)) as reader:
        os.truncate(path, 3000)
        with pytest.raises(VideoError, match="shorter"):
            reader.get_batch([29])


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gop12.avi", "b_frames.avi", "vp9.webm", "b_frames.mkv"])
def test_truncated_files_claim_too_much(folder, tmp_path, name):
    path = videos.write_truncated(tmp_path / name, folder / name, share=0.6)
    index, expected = scan_video(path), videos.sequential_decode(path)
    assert index.claims_too_much
    assert not scan_video(folder / name).claims_too_much
    assert len(index) == len(expected) < FRAMES
    assert_reads(path, index, expected)


@pytest.mark.parametrize("name", ["gop12.avi", "b_frames.avi", "gop250.mp4", "vp9.webm"])
def test_flipped_bits_change_no_frame_between_the_two_ways(folder, tmp_path, name):
    original = (folder / name).read_bytes()
    source = PacketSource(str(folder / name))
    source.scan()
    coded = [packet for packet in source.packets if packet.size > 40]
    source.close()
    for seed in range(6):
        draw = random.Random(seed)
        data = bytearray(original)
        for packet in draw.sample(coded, 3):
            data[draw.randrange(packet.position + 20, packet.position + packet.size)] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{seed}_{name}"
        path.write_bytes(data)
        assert_reads(path, scan_video(path), videos.sequential_decode(path))


def test_what_cannot_be_read_says_why(tmp_path):
    for path, reason in (
        (tmp_path / "missing.mp4", "does not exist"),
        (videos.write_empty(tmp_path / "empty.mp4"), "empty"),
        (videos.write_audio_only(tmp_path / "sound.mp4"), "no video stream"),
    ):
        for function in (scan_video, count_frames):
            with pytest.raises(VideoError, match=reason):
                function(path)


# --- pixels and streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")])
@pytest.mark.parametrize("engine", ["auto", "pyav"])
def test_pixels_become_square(tmp_path, name, codec, engine):
    frames = videos.numbered_frames(20, 96, 120)
    path = videos.write_video(tmp_path / name, frames, codec=codec, pixel_aspect=Fraction(4, 3))
    index = scan_video(path)
    assert index.pixel_aspect == Fraction(4, 3)
    for known in (None, index):
        with open_reader(path, engine, index=known) as reader:
            assert reader.size == (96, 160)
            assert videos.read_numbers(reader.get_batch([3, 19])) == [3, 19]
        with open_reader(path, engine, short_side=72, index=known) as reader:
            assert reader.size == (72, 120)


def test_a_turned_frame_has_its_aspect_turned(tmp_path):
    frames = videos.numbered_frames(5, 96, 120)
    path = videos.write_video(tmp_path / "a.mp4", frames, rotation=90, pixel_aspect=Fraction(4, 3))
    with open_reader(path, "pyav") as reader:
        assert reader.size == (160, 96)


def test_nonsense_is_no_aspect(tmp_path):
    path = videos.write_video(tmp_path / "a.mp4", videos.numbered_frames(5), pixel_aspect=Fraction(200, 1))
    assert scan_video(path).size == (64, 96)


def test_a_stream_can_be_chosen(tmp_path):
    both = [videos.numbered_frames(20, 90, 120), videos.numbered_frames(10, 120, 160, first=500)]
    path = videos.write_streams(tmp_path / "a.mkv", both)
    for stream, first, size in ((0, 0, (90, 120)), (1, 500, (120, 160))):
        index = scan_video(path, stream)
        assert (index.stream, index.video_streams) == (stream, 2)
        for options in ({"stream": stream}, {"index": index}, {"stream": stream, "engine": "decord"}):
            with open_reader(path, **options) as reader:
                assert reader.size == size
                assert videos.read_numbers(reader.get_batch([4])) == [first + 4]
    with pytest.raises(UserError, match="choose one of 0, 1"):
        open_reader(path, stream=7)
    with pytest.raises(UserError, match="indexed for stream 1, not 0"):
        open_reader(path, stream=0, index=scan_video(path, 1))


def test_cover_art_is_no_video(tmp_path):
    cover = np.full((300, 300, 3), 200, np.uint8)
    path = videos.write_streams(tmp_path / "a.mp4", [videos.numbered_frames(20, 90, 120)], cover)
    assert scan_video(path).video_streams == 1
    with open_reader(path) as reader:
        assert reader.size == (90, 120)
        assert videos.read_numbers(reader.get_batch([7])) == [7]


# --- cost -------------------------------------------------------------------------------------------------------------


def test_no_packet_behind_the_last_wanted_frame_is_decoded(folder, monkeypatch):
    fed: list[int] = []
    honest = StoredPackets.packets_from

    def watched(self, number):
        for packet in honest(self, number):
            yield packet
            fed.append(packet.pts)  # asked for the next one: this one was fed

    monkeypatch.setattr(StoredPackets, "packets_from", watched)
    with open_reader(folder / "gop12.avi", index=scan_video(folder / "gop12.avi")) as reader:
        fed.clear()
        reader.get_batch([14, 38])
    assert fed == [12, 13, 14, 36, 37, 38]


def test_reading_in_sequence_decodes_each_packet_about_once(folder, monkeypatch):
    opened: list[int] = []
    honest = StoredPackets.packets_from

    def watched(self, number):
        opened.append(number)
        return honest(self, number)

    index = scan_video(folder / "single_gop.avi")
    monkeypatch.setattr(StoredPackets, "packets_from", watched)
    with open_reader(folder / "single_gop.avi", index=index) as reader:
        for frame in range(FRAMES):
            assert videos.read_numbers(reader.get_batch([frame])) == [frame]
    assert len(opened) <= 3


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not tell the size of a process")
def test_memory_does_not_grow(folder):
    index = scan_video(folder / "gop12.avi")

    def open_often(times: int) -> int:
        for _ in range(times):
            with open_reader(folder / "gop12.avi", index=index, short_side=64) as reader:
                reader.get_batch([3, 30])
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = open_often(100)
    assert open_often(500) - before < 8 << 20


# --- real video -------------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
def test_real_videos_are_read_exactly(shared_data):
    draw = random.Random(1)
    avi = sorted((shared_data / "ucf101_avi").glob("*/*.avi"))
    b_frames = [path for path in avi if "Surfing_g22_c02" in path.name]
    odd = sorted((shared_data / "odd").glob("*.*"))
    for path in [*odd, *b_frames, *draw.sample(avi, min(2, len(avi)))]:
        index = scan_video(path)
        expected = np.rot90(videos.sequential_decode(path), index.quarter_turns, axes=(1, 2))
        assert index.claims_too_much == ("corrupted" in path.name)
        assert_reads(path, index, expected)
