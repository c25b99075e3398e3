"""Readers against a sequential decode: every engine must give these frames, in any order, or say why it cannot."""

from __future__ import annotations

import os
import pickle
import random
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import videos
from hypothesis import given
from hypothesis import strategies as st

from datamodules.readers import choose_engine, describe_engines, open_reader, select, source, summarise_engines
from datamodules.readers.base import scaled_size
from datamodules.readers.scaling import FrameConverter
from datamodules.readers.source import PacketSource
from temporal_attn.types import UserError, VideoError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no real video in shared/data beside the checkout")
needs_decord = pytest.mark.skipif(not select.has_decord(), reason="decord has no wheel for this platform")
ENGINES = ["auto", "pyav", pytest.param("decord", marks=needs_decord)]

FRAMES = 50
UNEVEN = [0.04 * i + 0.011 * (i % 3) for i in range(FRAMES)]
FILES = {
    "gop12.mp4": {},
    "gop250.mp4": {"gop": 250},
    "b_frames.mp4": {"b_frames": 2, "audio": True},
    "uneven.mp4": {"times": UNEVEN, "b_frames": 2},
    "turned90.mp4": {"rotation": 90},
    "turned180.mp4": {"rotation": 180},
    "turned270.mov": {"rotation": 270},
    "ten_bits.mp4": {"pix_fmt": "yuv420p10le"},
    "h265.mp4": {"codec": "libx265", "b_frames": 2},
    "gop12.avi": {"codec": "mpeg4"},
    "sound.avi": {"codec": "mpeg4", "audio": True},  # the muxer leaves the second slot empty
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "b_frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "h264.avi": {"b_frames": 2},
    "motion.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9", "audio": True},
    "vp8.webm": {"codec": "libvpx"},
    "av1.mkv": {"codec": "libsvtav1"},
    "b_frames.mkv": {"b_frames": 2},
    "transport.ts": {"b_frames": 2, "audio": True},
}


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


NAMES = [*FILES, "edited.mp4", "one.mp4", "odd_size.mp4"]
TURNS = {"turned90.mp4": 3, "turned180.mp4": 2, "turned270.mov": 1}  # counter-clockwise quarters


def reference(path: Path) -> np.ndarray:
    return np.rot90(videos.sequential_decode(path), TURNS.get(path.name, 0), axes=(1, 2))


def queries(n: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    some = [draw.randrange(n) for _ in range(8)]
    return [some, sorted(some), [n - 1], [0], [n - 1, 0, n - 1, n // 2, n // 2], list(range(n))]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_frames_are_those_of_a_sequential_decode(folder, name, engine):
    expected = reference(folder / name)
    with open_reader(folder / name, engine) as reader:
        assert len(reader) == len(expected)
        assert reader.size == expected.shape[1:3]
        for indices in queries(len(expected)):
            np.testing.assert_array_equal(reader.get_batch(indices), expected[indices])
        assert reader.engine == (engine if engine == "pyav" else reader.engine)
        assert (reader.engine == engine) or engine == "auto" or reader.note


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_show_the_number_asked_for(folder, engine):
    for name in set(FILES) - set(TURNS):
        with open_reader(folder / name, engine, short_side=72) as reader:
            for indices in queries(FRAMES, seed=1):
                assert videos.read_numbers(reader.get_batch(indices)) == indices, name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_times(folder, name, engine):
    with open_reader(folder / name, engine) as reader:
        pts, fps = reader.pts, reader.fps
    assert pts.dtype == np.float64
    assert (np.diff(pts) > 0).all()
    if name == "uneven.mp4":
        np.testing.assert_allclose(pts, UNEVEN, atol=1e-4)
        assert fps == pytest.approx((FRAMES - 1) / UNEVEN[-1], rel=1e-3)
    elif name == "sound.avi":
        np.testing.assert_allclose(pts, np.delete(np.arange(FRAMES + 1), 1) / 25)
    else:
        np.testing.assert_allclose(pts - pts[0], np.arange(len(pts)) / 25, atol=1e-3)
        assert fps == pytest.approx(25, rel=1e-3)
    if name != "transport.ts":  # which starts its clock later
        assert pts[0] == pytest.approx(0, abs=1e-6)


@needs_decord
@pytest.mark.parametrize("short_side", [None, 81, 128, 200])
@pytest.mark.parametrize("name", ["gop12.mp4", "vp9.webm", "turned90.mp4", "turned180.mp4", "odd_size.mp4"])
def test_engines_agree_on_size_and_nearly_on_pixels(folder, name, short_side):
    with open_reader(folder / name, "decord", short_side) as one, open_reader(folder / name, "pyav", short_side) as two:
        assert (one.engine, two.engine) == ("decord", "pyav")
        assert one.size == two.size
        assert min(one.size) == (short_side or min(one.size))
        frames, others = one.get_batch([5, 30]), two.get_batch([5, 30])
    assert frames.shape == others.shape == (2, *one.size, 3)
    assert np.abs(frames.astype(int) - others).mean() < 2


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 600))
def test_scaled_size_keeps_aspect(height, width, short_side):
    scaled = scaled_size(height, width, short_side)
    assert min(scaled) == short_side
    assert scaled[0] / height == pytest.approx(scaled[1] / width, abs=0.51 / min(height, width) + 1e-9)
    assert scaled_size(height, width, None) == (height, width)


def test_no_index_gives_no_frame_and_wrong_ones_are_refused(folder):
    with open_reader(folder / "gop12.mp4", "pyav", 72) as reader:
        assert reader.get_batch([]).shape == (0, 72, 96, 3)
        for wrong in (-1, FRAMES):
            with pytest.raises(IndexError, match=f"frame {wrong} of {FRAMES}"):
                reader.get_batch([0, wrong])


def test_large_files_are_read_by_seeking(folder, monkeypatch):
    monkeypatch.setattr(source, "_KEEP_BYTES", 0)
    for name in NAMES:
        expected = reference(folder / name)
        with open_reader(folder / name, "pyav") as reader:
            for indices in queries(len(expected), seed=2):
                np.testing.assert_array_equal(reader.get_batch(indices), expected[indices], err_msg=name)


# --- broken files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "does not exist"),
        ("empty.mp4", "empty"),
        ("text.mp4", "not a video"),
        ("text.avi", "not a video"),
        ("sound.mp4", "no video stream: the file holds audio only"),
        ("sound.avi", "no video stream: the file holds audio only"),
        ("cut.mp4", "truncated"),
        ("header.avi", ""),
        ("folder.mp4", ""),
        ("garbage.avi", ""),
    ],
)
def test_unreadable_files_say_why(folder, tmp_path, name, reason, engine):
    path = tmp_path / name
    if name.startswith("empty"):
        videos.write_empty(path)
    elif name.startswith("text"):
        videos.write_text(path)
    elif name.startswith("sound"):
        videos.write_audio_only(path)
    elif name == "cut.mp4":
        videos.write_truncated(path, folder / "gop12.mp4")
    elif name == "header.avi":
        videos.write_truncated(path, folder / "gop12.avi", share=0.001)
    elif name == "folder.mp4":
        path.mkdir()
    elif name == "garbage.avi":
        data = bytearray((folder / "b_frames.avi").read_bytes())
        start = data.index(b"movi")
        while (start := data.find(b"00dc", start + 4)) >= 0 and b"idx1" not in data[start - 64 : start]:
            size = int.from_bytes(data[start + 4 : start + 8], "little")
            data[start + 8 : start + 8 + size] = bytes(size)
        path.write_bytes(data)
    with pytest.raises(VideoError) as caught:
        open_reader(path, engine)
    assert caught.value.path == str(path)
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["gop12.avi", "b_frames.avi", "vp9.webm", "b_frames.mkv"])
def test_truncated_files_have_the_frames_that_decode(folder, tmp_path, name, engine):
    path = videos.write_truncated(tmp_path / name, folder / name, share=0.6)
    expected = videos.sequential_decode(path)
    assert 5 < len(expected) < FRAMES
    with open_reader(path, engine) as reader:
        assert len(reader) == len(expected)
        np.testing.assert_array_equal(reader.get_batch(range(len(expected))), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_damage_shrinks_the_reader_or_says_so(tmp_path, engine, caplog):
    path = videos.write_video(tmp_path / "a.mp4", videos.numbered_frames(30, 96, 128), gop=250)
    packets = PacketSource(str(path))
    packets.scan()
    data = bytearray(path.read_bytes())
    for packet in packets.packets[20:23]:
        data[packet.position : packet.position + packet.size] = b"\xff" * packet.size
    packets.close()
    path.write_bytes(data)
    expected = videos.sequential_decode(path)
    assert len(expected) < 30
    with open_reader(path, engine) as reader:
        with pytest.raises(VideoError, match=f"{len(expected)} of 30 frames decode"):
            reader.get_batch([0, 29])
        assert len(reader) == len(reader.pts) == len(expected)
        np.testing.assert_array_equal(reader.get_batch(range(len(expected))), expected)
        assert reader.engine == "pyav"
    assert "damaged" in caplog.text


# --- choice of the engine ---------------------------------------------------------------------------------------------


@needs_decord
def test_auto_takes_decord_where_it_is_as_good(folder):
    chosen = {name: choose_engine(folder / name) for name in NAMES}
    assert {name for name, choice in chosen.items() if choice.engine == "decord"} == {
        "gop250.mp4",
        "one.mp4",
    }
    assert chosen["edited.mp4"].reason == "edit list" or "key frames" in chosen["edited.mp4"].reason
    assert "AVI" in chosen["gop12.avi"].reason
    assert "libdav1d in matroska" in chosen["av1.mkv"].reason
    assert "key frames" in chosen["b_frames.mkv"].reason
    with open_reader(folder / "gop250.mp4") as reader:
        assert reader.engine == "decord"


@needs_decord
def test_edit_lists_are_not_for_decord(folder, tmp_path):
    path = videos.write_video(tmp_path / "a.mp4", videos.numbered_frames(FRAMES, 90, 120), gop=250, b_frames=2)
    assert choose_engine(path).engine == "decord"
    assert choose_engine(videos.set_edit_start(path, 0.7)) == ("pyav", "edit list")
    with open_reader(path, "decord") as reader:
        assert reader.engine == "pyav"
        assert "edit list" in reader.note


def test_without_decord(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: None)
    assert choose_engine(folder / "gop250.mp4").engine == "pyav"
    with open_reader(folder / "gop250.mp4") as reader:
        assert reader.engine == "pyav"
    with pytest.raises(UserError, match="reader: pyav"):
        open_reader(folder / "gop250.mp4", "decord")


def test_wrong_arguments(folder):
    with pytest.raises(UserError, match="auto, decord, pyav"):
        open_reader(folder / "gop12.mp4", "opencv")
    with pytest.raises(UserError, match="short_side"):
        open_reader(folder / "gop12.mp4", short_side=0)


def test_summary_counts_every_file_once(folder, tmp_path):
    paths = [folder / name for name in NAMES] + [videos.write_empty(tmp_path / "empty.mp4")]
    counts = summarise_engines(paths)
    assert sum(counts.values()) == len(paths)
    assert counts["pyav", "AVI"] == 5
    assert counts["none", "cannot be opened"] == 1
    for path in paths[:-1]:
        assert counts[choose_engine(path)] > 0
    assert "looked at" not in describe_engines(counts, len(paths))
    few = summarise_engines(paths, max_files=5)
    assert sum(few.values()) <= 5
    assert f"readers of {len(paths)} files, from {sum(few.values())} files looked at" in describe_engines(
        few, len(paths)
    )
    assert summarise_engines(paths, "pyav") == {("pyav", "asked for"): len(NAMES), ("none", "cannot be opened"): 1}


# --- how readers live -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_readers_do_not_pickle(folder, engine):
    with open_reader(folder / "gop250.mp4", engine) as reader, pytest.raises(TypeError, match="pass the path"):
        pickle.dumps(reader)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not list open files")
@pytest.mark.parametrize("engine", ENGINES)
def test_no_file_stays_open(folder, tmp_path, engine):
    names = [folder / "gop250.mp4", folder / "b_frames.avi", folder / "vp9.webm", videos.write_text(tmp_path / "t.mp4")]

    def open_all() -> int:
        for path in names:
            try:
                with open_reader(path, engine) as reader:
                    reader.get_batch([3])
            except VideoError:
                pass
        return len(os.listdir("/proc/self/fd"))

    before = open_all()
    for _ in range(20):
        after = open_all()
    assert after <= before


# --- real video -------------------------------------------------------------------------------------------------------


def _real_files() -> list[Path]:
    draw = random.Random(0)
    avi = sorted((DATA / "ucf101_avi").glob("*/*.avi"))
    b_frames = [p for p in avi if any(part in p.name for part in ("Surfing_g22", "Archery_g19", "SkyDiving_g19"))]
    return [*sorted((DATA / "odd").glob("*.*")), *b_frames, *draw.sample(avi, min(4, len(avi)))]


@needs_data
@pytest.mark.shared_data
@pytest.mark.parametrize("engine", ENGINES)
def test_real_videos_are_read_exactly(engine):
    for path in _real_files():
        if path.name == "decord_corrupted.mp4":
            continue
        expected = videos.sequential_decode(path)
        if path.name == "decord_video_90.mov":
            expected = np.rot90(expected, 3, axes=(1, 2))
        with open_reader(path, engine) as reader:
            assert len(reader) == len(expected), path.name
            for indices in queries(len(expected))[:5]:
                difference = np.abs(reader.get_batch(indices).astype(int) - expected[indices])
                # decord's FFmpeg is of 2020: it rounds a few MPEG-4 pixels the other way
                assert difference.mean(axis=(1, 2, 3)).max() <= (0.01 if reader.engine == "decord" else 0), path.name


@needs_data
@pytest.mark.shared_data
@pytest.mark.parametrize("engine", ENGINES)
def test_real_damage_is_found(engine):
    path = DATA / "odd" / "decord_corrupted.mp4"
    expected = videos.sequential_decode(path)
    with open_reader(path, engine) as reader:
        with pytest.raises(VideoError, match="49 of 50 frames decode"):
            reader.get_batch([49])
        np.testing.assert_array_equal(reader.get_batch([0, 20, 48]), expected[[0, 20, 48]])


# --- scaling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [56, 57])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_scaled_frames_keep_their_colours(width, turns):
    """Against 16-bit arithmetic: chroma is scaled to every pixel, at even widths too."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (9, 12, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(coarse.repeat(10, 0).repeat(10, 1), format="rgb24").reformat(format="yuv420p")
    planes = frame.reformat(width, 42, "yuv444p16le", interpolation="BILINEAR").planes
    luma, blue, red = (
        np.frombuffer(memoryview(plane), np.uint16).reshape(42, -1)[:, :width] / 256 - offset
        for plane, offset in zip(planes, (16, 128, 128), strict=True)
    )
    luma, blue, red = luma * 255 / 219, blue * 255 / 224, red * 255 / 224  # ITU-R BT.601
    expected = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1)
    upright = np.rot90(expected.clip(0, 255), turns)
    converter = FrameConverter((90, 120), upright.shape[:2], turns)
    pictures = converter.empty(2)
    converter.write(frame, pictures[1])
    assert pictures.shape == (2, *upright.shape)
    assert np.abs(pictures[1] - upright).max() < 4
