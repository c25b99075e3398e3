"""Frames that are no video file: folders of images, and arrays."""

from __future__ import annotations

import numpy as np
import pytest
import videos
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules.readers import ArrayReader, FrameFolderReader, Reader, choose_engine, open_reader
from datamodules.readers.frame_folder import natural_order
from temporal_attn.types import UnavailableVideo, UserError, VideoError

FRAMES = 12


@pytest.fixture
def pixels() -> np.ndarray:
    return videos.numbered_frames(FRAMES, 60, 80)


@pytest.fixture
def folder(tmp_path, pixels):
    path = tmp_path / "a video"
    path.mkdir()
    for number, frame in enumerate(pixels, 1):  # no leading zeros: 10 comes before 2 in the order of letters
        Image.fromarray(frame).save(path / f"img_{number}.png")
    (path / "notes.txt").write_text("not a frame")
    return path


@pytest.fixture
def array(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels)
    return tmp_path / "a.npy"


def test_images_come_in_the_order_in_which_people_count(folder, pixels):
    with open_reader(folder) as reader:
        assert isinstance(reader, Reader)
        assert (len(reader), reader.engine, reader.size) == (FRAMES, "frames", (60, 80))
        for indices in ([3, 0, 11, 3], list(range(FRAMES)), [], np.array([5, 2])):
            np.testing.assert_array_equal(reader.get_batch(indices), pixels[np.asarray(indices, int)])
        for wrong in (-1, FRAMES):
            with pytest.raises(IndexError, match=f"frame {wrong} of {FRAMES}"):
                reader.get_batch([wrong])


def test_hidden_files_are_no_frames(folder, pixels):
    for number in range(1, FRAMES + 1):
        (folder / f"._img_{number}.png").write_bytes(b"\0\5\x16\7")
    with open_reader(folder) as reader:
        np.testing.assert_array_equal(reader.get_batch(range(FRAMES)), pixels)


def test_one_kind_of_images_is_the_video(folder, pixels):
    for kind in ("flow_x", "flow_y"):
        for number in range(1, FRAMES + 1):
            Image.fromarray(pixels[0, :, :, 0]).save(folder / f"{kind}_{number}.png")
    with open_reader(folder) as reader:
        np.testing.assert_array_equal(reader.get_batch(range(len(reader))), pixels)
    for image in folder.glob("img_*"):
        image.rename(folder / image.name.replace("img", "rgb"))
    with pytest.raises(VideoError, match=r"several kinds: flow_x_# \(12\), flow_y_# \(12\), rgb_# \(12\); give each"):
        open_reader(folder)


def test_numbers_may_stand_anywhere_in_a_name(tmp_path, pixels):
    for number, frame in enumerate(pixels):
        Image.fromarray(frame).save(tmp_path / f"v2_2024-{number}-{30 - number} take{number % 3}.png")
    with open_reader(tmp_path) as reader:
        assert len(reader) == FRAMES


def test_arrays_are_read_as_they_are(array, pixels):
    for reader in (open_reader(array), ArrayReader(pixels), ArrayReader(str(array))):
        with reader:
            assert (len(reader), reader.engine, reader.size) == (FRAMES, "array", (60, 80))
            np.testing.assert_array_equal(reader.get_batch([7, 1, 7]), pixels[[7, 1, 7]])
            with pytest.raises(IndexError, match=f"frame {FRAMES} of {FRAMES}"):
                reader.get_batch([FRAMES])
            with pytest.raises(TypeError, match="cannot be pickled"):
                reader.__reduce__()


def test_a_closed_array_is_not_read(pixels):
    reader = ArrayReader(pixels)
    reader.close()
    with pytest.raises(VideoError, match="closed"):
        reader.get_batch([0])


@pytest.mark.parametrize("fps", [None, 10.0, 29.97])
def test_the_frame_rate_is_told(folder, array, fps):
    for path in (folder, array):
        with open_reader(path, fps=fps) as reader:
            assert reader.fps == pytest.approx(fps or 25)
            np.testing.assert_allclose(reader.pts, np.arange(FRAMES) / (fps or 25))
    for wrong in (0.0, -5.0):
        for path in (folder, array):
            with pytest.raises(UserError, match="fps"):
                open_reader(path, fps=wrong)


def test_frames_are_scaled_as_those_of_a_video(folder, array, tmp_path, pixels):
    path = videos.write_video(tmp_path / "a.avi", pixels, codec="rawvideo", pix_fmt="bgr24")
    for short_side, size in ((30, (30, 40)), (60, (60, 80)), (90, (90, 120))):
        with open_reader(path, short_side=short_side) as video:
            expected = video.get_batch([2, 9]).astype(int)
        for other in (folder, array):
            with open_reader(other, short_side=short_side) as reader:
                assert reader.size == size
                frames = reader.get_batch([2, 9])
                assert videos.read_numbers(frames) == [2, 9]
                assert np.abs(frames - expected).max() <= 1  # by way of bgr24


def test_jpegs_of_other_colours_and_turned_ones(tmp_path):
    frame = videos.numbered_frames(1, 64, 96, first=300)[0]
    Image.fromarray(frame).convert("L").save(tmp_path / "1.JPG", quality=95)
    Image.fromarray(frame).convert("RGBA").save(tmp_path / "2.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show upright
    Image.fromarray(np.rot90(frame)).save(tmp_path / "3.jpeg", quality=95, exif=exif)
    with FrameFolderReader(tmp_path) as reader:
        assert reader.size == (64, 96)
        assert videos.read_numbers(reader.get_batch([0, 1, 2])) == [300] * 3


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1))
def test_natural_order_is_that_of_numbers(numbers):
    names = [f"frame_{number}.jpg" for number in numbers]
    assert natural_order(names) == [f"frame_{number}.jpg" for number in sorted(numbers)]
    padded = [f"frame_{number:08d}.jpg" for number in numbers]
    assert natural_order(padded) == sorted(padded)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), unique=True))
def test_natural_order_takes_any_names(names):
    ordered = natural_order(names)
    assert sorted(ordered) == sorted(names)
    assert natural_order(ordered[::-1]) == ordered


def test_bad_folders(tmp_path, folder):
    with pytest.raises(UnavailableVideo, match="does not exist"):
        FrameFolderReader(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="without frames"):
        open_reader(tmp_path / "empty")
    (folder / "img_3.png").write_bytes((folder / "img_3.png").read_bytes()[:60])
    Image.new("RGB", (81, 60)).save(folder / "img_5.png")
    with open_reader(folder) as reader:
        assert len(reader.get_batch([0, 1])) == 2
        with pytest.raises(VideoError, match=r"img_3\.png is no readable image"):
            reader.get_batch([2])
        with pytest.raises(VideoError, match=r"img_5\.png has 81 × 60 pixels, the first frame 80 × 60"):
            reader.get_batch([4])
    videos.write_text(folder / "img_1.png")
    with pytest.raises(VideoError, match=r"img_1\.png"):
        open_reader(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.zeros((4, 8, 8), np.uint8), "shape"),
        (np.zeros((4, 3, 8, 8), np.uint8), "shape"),
        (np.zeros((0, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((4, 8, 8, 3), np.float32), "float32"),
        (np.array([{}], dtype=object), "not an array"),
    ],
)
def test_bad_arrays(tmp_path, content, reason):
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(VideoError, match=reason):
        open_reader(tmp_path / "a.npy")
    with pytest.raises(UserError, match="video: an array of"):
        ArrayReader(content)


def test_bad_array_files(tmp_path, array):
    with pytest.raises(UnavailableVideo, match="does not exist"):
        open_reader(tmp_path / "missing.npy")
    for path in (videos.write_text(tmp_path / "text.npy"), videos.write_empty(tmp_path / "empty.npy")):
        with pytest.raises(VideoError, match="not an array"):
            open_reader(path)
    array.write_bytes(array.read_bytes()[:1000])
    with pytest.raises(VideoError, match="cut off"):
        open_reader(array)


def test_the_choice_of_an_engine_speaks_of_them(folder, array):
    assert choose_engine(folder) == ("frames", "no video file")
    assert choose_engine(array) == ("array", "no video file")


def test_a_video_file_knows_its_frame_rate(tmp_path, pixels):
    path = videos.write_video(tmp_path / "a.mp4", pixels)
    with pytest.raises(UserError, match="leave fps out"):
        open_reader(path, fps=30)
