"""The frame store: what comes out is what a decoder gives, whatever happened to the files in between."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import videos
from frame_stores import EXACT, opener, three_videos
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules import UCF101DataModule
from datamodules.dataset import DecodedClips
from datamodules.frame_store import FrameSettings, FrameStore, fill_frame_store
from datamodules.frame_store.encoding import _decode_by_pillow, _decode_by_torchvision, decode_jpeg, frame_encoder
from datamodules.options import ClipOptions, LoaderOptions
from datamodules.readers import open_reader
from datamodules.records import RecordTable
from temporal_attn.types import UserError, VideoRecord


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return three_videos(tmp_path)


@pytest.fixture
def store(files: list[str], tmp_path: Path) -> FrameStore:
    fill_frame_store(files, tmp_path / "store", EXACT, opener, workers=2)
    return FrameStore.open(tmp_path / "store")


def shard_of(store: FrameStore) -> Path:
    (shard,) = [shard.path for shard in store.shards if len(shard) == max(map(len, store.shards))][:1]
    return shard


def test_pixels_are_those_of_the_decoder(files, store):
    assert store.settings == EXACT
    for path in files:
        with store(path, "auto", 32) as stored, open_reader(path, "auto", 32) as decoded:
            assert len(stored) == len(decoded)
            assert stored.fps == pytest.approx(decoded.fps)
            np.testing.assert_allclose(stored.pts, decoded.pts)
            wanted = [len(decoded) - 1, 0, 3, 3]
            np.testing.assert_array_equal(stored.get_batch(wanted), decoded.get_batch(wanted))
            with pytest.raises(IndexError, match="valid are"):
                stored.get_batch([len(decoded)])


def test_jpeg_is_close_and_much_smaller(files, store, tmp_path):
    fill_frame_store(files, tmp_path / "jpeg", FrameSettings(32), opener)
    packed = FrameStore.open(tmp_path / "jpeg")
    assert packed.num_bytes < store.num_bytes / 2
    for path in files:
        frames, exact = packed(path).get_batch([1, 5]), store(path).get_batch([1, 5])
        error = np.mean((frames.astype(float) - exact) ** 2)
        assert 10 * np.log10(255**2 / error) > 30
        assert videos.read_numbers(frames) == [1, 5]


@pytest.mark.parametrize("train", [True, False])
def test_clips_are_those_cut_from_the_files(files, store, train):
    clip = ClipOptions(num_frames=4, resize=32, crop=24).spec()
    for path in files:
        record = VideoRecord("v", path, 0, "g", start=0.04, end=0.24)
        stored = DecodedClips(clip, train, "auto", store)(record, np.random.default_rng(3))
        decoded = DecodedClips(clip, train, "auto")(record, np.random.default_rng(3))
        assert stored.keys() == decoded.keys()
        for name, tensor in decoded.items():
            assert torch.equal(stored[name], tensor), name


def test_smaller_frames_are_scaled_and_larger_ones_refused(files, store):
    assert store(files[0], "auto", 16).get_batch([9]).shape == (1, 16, 24, 3)
    assert videos.read_number(store(files[0], "auto", 16).get_batch([9])[0]) == 9
    with pytest.raises(UserError, match=r"short side 32.*clip\.resize is 64"):
        store(files[0], "auto", 64)
    with pytest.raises(UserError, match=r"clip\.resize is 64"):
        store.check_clip(ClipOptions(resize=64, crop=32).spec())
    store.check_clip(ClipOptions(resize=32, crop=32, sampling="dense").spec())


def test_some_frames_know_which_they_are(files, tmp_path):
    fill_frame_store(files, tmp_path / "store", FrameSettings(32, max_frames=10), opener)
    store = FrameStore.open(tmp_path / "store")
    for path, length in zip(files, (40, 7, 25), strict=True):
        reader = store.get(VideoRecord("v", path, 0, "g"))
        assert len(reader) == min(10, length)
        assert videos.read_numbers(reader.get_batch(range(len(reader)))) == reader.frame_index.tolist()
        np.testing.assert_allclose(reader.pts, reader.frame_index / 25, atol=1e-6)


def test_a_folder_of_images_is_stored_too(files, tmp_path):
    folder = tmp_path / "film"
    folder.mkdir()
    for number, frame in enumerate(videos.numbered_frames(6)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    result = fill_frame_store([*files[:1] * 20, folder], tmp_path / "store", EXACT, opener)
    assert result.failed == {}
    reader = FrameStore.open(tmp_path / "store").get(VideoRecord("v", str(folder), 0, "g"))
    assert videos.read_numbers(reader.get_batch(range(6))) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("clip", "num_clips", "message"),
    [
        ({"sampling": "dense"}, 1, r"no neighbours for clip\.sampling dense"),
        ({"sampling": "seconds", "fps": 8.0}, 1, r"no neighbours for clip\.sampling seconds"),
        ({"lag": 0.06}, 1, r"none 0\.06 s later.*clip\.lag"),
        ({"num_frames": 16}, 1, r"clip\.num_frames 16; store 16 or more"),
        ({"num_frames": 4}, 3, r"clip\.num_frames 4 in each of clip\.num_clips 3; store 12 or more"),
    ],
)
def test_clips_that_need_more_than_some_frames_are_refused(files, store, tmp_path, clip, num_clips, message):
    fill_frame_store(files[:1], tmp_path / "some", FrameSettings(32, max_frames=8), opener)
    some, spec = FrameStore.open(tmp_path / "some"), ClipOptions(**{"num_frames": 8, "resize": 32, "crop": 32} | clip)
    with pytest.raises(UserError, match=rf"some: a store of at most 8 frames a video.*{message}"):
        some.check_clip(spec.spec(), num_clips)
    store.check_clip(spec.spec(), num_clips)
    for sampling in ("uniform", "symmetric"):
        some.check_clip(ClipOptions(num_frames=4, resize=32, crop=32, sampling=sampling).spec(), num_clips=2)


def test_segments_are_refused_by_a_store_of_some_frames(files, store, tmp_path):
    fill_frame_store(files[:1], tmp_path / "some", FrameSettings(32, max_frames=8), opener)
    some = FrameStore.open(tmp_path / "some")
    for seconds in ({"start": 0.5}, {"end": 0.5}):
        segments = RecordTable([VideoRecord("v", files[0], 0, "g"), VideoRecord("s", files[0], 0, "g", **seconds)])
        with pytest.raises(UserError, match=r"does not hold the frames of segments"):
            some.check_records(segments)
        store.check_records(segments)
    some.check_records(RecordTable([VideoRecord("v", files[0], 0, "g")]))


@settings(deadline=None)
@given(length=st.integers(0, 500), count=st.integers(1, 100))
def test_chosen_frames_are_the_middles_of_equal_segments(length, count):
    chosen = FrameSettings(max_frames=count).choose(length)
    assert len(chosen) == min(length, count)
    for place, frame in enumerate(chosen):
        assert abs(frame + 0.5 - (place + 0.5) * length / len(chosen)) <= 0.5
    assert (np.diff(chosen) > 0).all()


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
def test_all_decoders_give_the_same_pixels(seed, height, width):
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    data = np.frombuffer(frame_encoder("jpeg", 90)(frame), np.uint8)
    reference = np.asarray(Image.open(io.BytesIO(data.tobytes())))
    for decode in (decode_jpeg, _decode_by_torchvision, _decode_by_pillow):
        np.testing.assert_array_equal(decode(data), reference)
    for decode in (decode_jpeg, _decode_by_torchvision, _decode_by_pillow):
        with pytest.raises(ValueError, match=r"\w"):
            decode(data[:20])


def test_other_settings_are_refused(files, store, tmp_path):
    with pytest.raises(UserError, match="short_side 32"):
        fill_frame_store(files, tmp_path / "store", FrameSettings(48, "uint8"), opener)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="cache frames"):
        FrameStore.open(tmp_path / "other")
    (tmp_path / "other" / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="format"):
        FrameStore.open(tmp_path / "other")


@pytest.mark.parametrize("wrong", [{"short_side": 0}, {"encoding": "png"}, {"quality": 0}, {"max_frames": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FrameSettings(**wrong)


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_found_and_the_video_decoded(files, store, tmp_path, caplog, seed):
    path = shard_of(store)
    data = bytearray(path.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(data)))
    data[bit // 8] ^= 1 << bit % 8
    path.unlink()  # the map of the open store stays as it was
    path.write_bytes(data)
    damaged = FrameStore.open(tmp_path / "store", otherwise=open_reader)
    for video in files:
        np.testing.assert_array_equal(damaged(video, "auto", 32).get_batch([2, 6]), store(video).get_batch([2, 6]))
    assert caplog.text
    renewed = fill_frame_store(files, tmp_path / "store", EXACT, opener, verify=True)
    assert renewed.stored > 0
    whole = FrameStore.open(tmp_path / "store")
    assert whole.damaged == []
    assert all(whole(video).engine == "store" for video in files)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_shard_cut_off_is_never_taken_for_whole(files, store, tmp_path, share):
    path = shard_of(store)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: int(len(data) * share)])
    cut = FrameStore.open(tmp_path / "store")
    assert cut.damaged == [path]
    assert fill_frame_store(files, tmp_path / "store", EXACT, opener).stored > 0
    whole = FrameStore.open(tmp_path / "store")
    assert whole.damaged == []
    assert not path.exists()


def test_it_travels_to_workers(files, store):
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy(files[1]).get_batch([4]), store(files[1]).get_batch([4]))
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(store(files[1]))


def test_many_openings_keep_no_file_open(files, store):
    held = Path("/proc/self/fd")
    if not held.is_dir():
        pytest.skip("this system does not list open files in /proc")
    before = len(list(held.iterdir()))
    readers = [FrameStore.open(store.folder)(files[0]) for _ in range(20)]
    assert len(list(held.iterdir())) <= before
    assert len(readers) == 20


def test_a_datamodule_reads_from_it(tiny_ucf, tmp_path, caplog):
    def data(num_clips=1, **loader):
        return UCF101DataModule(
            str(tiny_ucf / "root"),
            str(tiny_ucf / "splits"),
            clip=ClipOptions(num_frames=4, resize=32, crop=32, num_clips=num_clips),
            loader=LoaderOptions(sandbox=False, **loader),
        )

    decoding = data()
    paths = decoding.train_dataset.records.paths
    fill_frame_store(paths[1:], tmp_path / "all", EXACT, opener)
    fill_frame_store(paths, tmp_path / "some", FrameSettings(32, max_frames=4), opener)
    for split in ("train", "val"):
        for store in ("all", "some"):
            stored, decoded = data(frames=str(tmp_path / store)).dataset(split)[0], decoding.dataset(split)[0]
            if store == "all":  # the first training video and those of the other splits are decoded
                assert torch.equal(stored["video"], decoded["video"])
                assert torch.equal(stored["frame_index"], decoded["frame_index"])
            elif split == "train":
                assert stored["frame_index"].tolist() == [1, 3, 5, 7]
    assert "is decoded" in caplog.text
    several = data(num_clips=2, frames=str(tmp_path / "some"))
    assert several.dataset("train")[0]["mask"].shape == (4,)  # the views are those of a test
    with pytest.raises(UserError, match=r"clip\.num_clips 2"):
        several.dataset("test")
    with pytest.raises(UserError, match="cache frames"):
        data(frames=str(tmp_path / "none")).dataset("train")
