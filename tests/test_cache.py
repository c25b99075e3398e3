"""The feature store: what is read is what was written, whatever happened to the file in between."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import atomic
from datamodules.cache import CachedFeatures, FeatureStore
from temporal_attn.types import UserError, VideoError, VideoRecord


def tensors(seed: int = 0, views: int = 3, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "features": torch.randn(views, 4, 16, generator=draw).to(dtype),
        "mask": torch.rand(views, 4, generator=draw) < 0.8,
        "pts": torch.rand(views, 4, generator=draw),
        "frame_index": torch.randint(100, (views, 4), generator=draw),
    }


@pytest.fixture
def record(tmp_path: Path) -> VideoRecord:
    (tmp_path / "a.mp4").write_bytes(b"a video")
    return VideoRecord("a", str(tmp_path / "a.mp4"), 0, "g")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(str(tmp_path / "cache"), {"x": 1})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_views_come_back_as_they_were(record, store, dtype):
    written = tensors(dtype=dtype)
    store.write(record, written)
    stored = store.open(record)
    assert len(stored) == 3
    for number in range(3):
        view = stored.view(number)
        assert view.keys() == written.keys()
        assert all(torch.equal(view[name], tensor[number]) for name, tensor in written.items())


def test_one_view_is_drawn(record, store):
    written = tensors()
    store.write(record, written)
    source = CachedFeatures(store, {"bad": "a reason"})
    for read in (source, pickle.loads(pickle.dumps(source)), store.read):
        drawn = {float(read(record, np.random.default_rng(seed))["pts"][0]) for seed in range(30)}
        assert drawn == set(written["pts"][:, 0].tolist())
    with pytest.raises(VideoError, match="a reason"):
        source(VideoRecord("bad", record.path, 0, "g"), np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(50))
def test_a_flipped_bit_is_found_and_named(record, store, caplog, seed):
    store.write(record, tensors())
    path = store.path(record)
    data = bytearray(path.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(data)))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    assert record not in store
    assert "computed anew" in caplog.text
    with pytest.raises(VideoError, match="damaged"):
        store.open(record)
    store.write(record, tensors())
    assert record in store


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_off_is_found(record, store, share):
    store.write(record, tensors())
    path = store.path(record)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert record not in store
    with pytest.raises(VideoError, match="damaged"):
        CachedFeatures(store, {})(record, np.random.default_rng(0))


def test_a_missing_file_is_named(record, store):
    with pytest.raises(VideoError, match="not in the cache"):
        store.open(record)
    os.unlink(record.path)
    with pytest.raises(VideoError, match="No such file"):
        store.open(record)


def test_a_full_disk_is_said_and_leaves_nothing(record, store, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(UserError, match=r"the disk is full.*goes on"):
        store.write(record, tensors())
    monkeypatch.undo()
    assert [path.name for path in store.folder.iterdir()] == ["settings.json"]
    assert record not in store


def write_often(root: str, path: str, seed: int) -> None:
    store, record = FeatureStore(root, {"x": 1}), VideoRecord("a", path, 0, "g")
    for _ in range(40):
        store.write(record, tensors(seed))


def test_two_processes_write_the_same_file(record, store):
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    root = str(store.folder.parent)
    writers = [context.Process(target=write_often, args=(root, record.path, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    known = [tensors(seed)["features"] for seed in (1, 2)]
    try:
        while any(writer.is_alive() for writer in writers):
            if store.path(record).exists():
                features = store.open(record)
                assert any(torch.equal(features.view(0)["features"], one[0]) for one in known)
    finally:
        for writer in writers:
            writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert not list(store.folder.glob("*.partial"))


def test_what_killed_processes_left_is_removed(store):
    old, new = store.folder / "a.safetensors.1.partial", store.folder / "b.safetensors.2.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    yesterday = time.time() - 86_400
    os.utime(old, (yesterday, yesterday))
    FeatureStore(str(store.folder.parent), {"x": 1})
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cache_dir"):
        FeatureStore(str(tmp_path / "file"), {})
