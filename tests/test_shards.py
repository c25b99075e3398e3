"""WebDataset shards: what is streamed is what the frame store holds."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
import torch
import videos

from datamodules.dataset import VideoDataset, collate_clips
from datamodules.frame_store import FrameSettings, FrameStore, fill_frame_store
from datamodules.options import ClipOptions
from datamodules.readers import open_reader
from datamodules.shards import ShardStream, export_shards
from temporal_attn.types import UserError, VideoError, VideoRecord

pytest.importorskip("webdataset", reason="webdataset is not installed")
CLIP = ClipOptions(num_frames=4, resize=32, crop=24).spec()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = [videos.write_video(folder / f"{n}.mp4", videos.numbered_frames(12, first=20 * n)) for n in range(4)]
    return [VideoRecord(f"class/{n}", str(path), (0, n) if n == 3 else n, f"g{n}") for n, path in enumerate(paths)]


@pytest.fixture(scope="module", params=["jpeg", "uint8"])
def store(records, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("store")
    fill_frame_store([record.path for record in records], folder, FrameSettings(32, request.param), lambda: open_reader)
    return FrameStore.open(folder)


@pytest.mark.parametrize("train", [False, True])
def test_the_stream_gives_the_clips_of_the_store(records, store, tmp_path, train):
    shards = export_shards(records, store, tmp_path, "train")
    assert [shard.name for shard in shards] == ["train-000000.tar"]
    stream = ShardStream([str(shard) for shard in shards], CLIP, train, seed=5, shuffle=2)
    stream.set_epoch(1)
    items = {item["video_id"]: item for item in stream}
    assert items.keys() == {record.id for record in records}
    from_store = VideoDataset(records, CLIP, train, seed=5, open_video=store, multi_label=None)
    for place, record in enumerate(records):
        item, expected = items[record.id], from_store[(place, 1)]
        assert (item["group"], item["index"], item["seed"]) == (record.group, place, expected["seed"])
        assert torch.equal(item["frame_index"], expected["frame_index"])
        assert torch.equal(item["mask"], expected["mask"])
        error = (item["video"].float() - expected["video"].float()).abs().mean()
        assert error == 0 if store.settings.encoding == "jpeg" else error < 8
    assert collate_clips(list(items.values()))["video"].shape[:2] == (4, 4)


def test_shards_are_cut_and_whole(records, store, tmp_path):
    shards = export_shards(records, store, tmp_path, "val", shard_mb=0.001)
    assert len(shards) > 1
    assert sorted(tmp_path.iterdir()) == shards
    names = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            names += tar.getnames()
    assert sum(name.endswith(".json") for name in names) == 4
    assert sum(name.endswith(".jpg") for name in names) == 48
    assert {item["video_id"] for item in ShardStream(list(map(str, shards)), CLIP)} == {r.id for r in records}
    with pytest.raises(UserError, match="already"):
        export_shards(records, store, tmp_path, "val")


def test_an_interrupted_export_leaves_no_shard(records, store, tmp_path):
    with pytest.raises(VideoError, match="not in the frame store"):
        export_shards([*records, VideoRecord("x", "nowhere.mp4", 0, "g")], store, tmp_path, "train")
    assert not list(tmp_path.iterdir())


def test_a_lost_frame_is_a_failed_video(records, store, tmp_path):
    (shard,) = export_shards(records[:2], store, tmp_path, "train")
    with tarfile.open(shard) as whole, tarfile.open(tmp_path / "cut.tar", "w") as cut:
        for member in whole.getmembers():
            if member.name != "000000001.0004.jpg":
                cut.addfile(member, whole.extractfile(member))
    clip = {**CLIP, "num_frames": 12}
    first, second = ShardStream(str(tmp_path / "cut.tar"), clip)
    assert np.array_equal(first["frame_index"], range(12))
    assert second["id"] == records[1].id
    assert "frame 4" in second["reason"]


def test_larger_frames_than_stored_are_refused(records, store, tmp_path):
    (shard,) = export_shards(records[:1], store, tmp_path, "train")
    with pytest.raises(UserError, match=r"clip\.resize"):
        list(ShardStream(str(shard), ClipOptions(resize=64, crop=32).spec()))
