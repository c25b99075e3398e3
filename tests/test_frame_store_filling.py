"""Filling a frame store: runs that are repeated, interrupted, killed or two at once, and disks that are full."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import videos
from frame_stores import EXACT, opener, three_videos

from datamodules.frame_store import FrameStore, fill_frame_store, filling
from datamodules.frame_store.shard import ShardWriter
from datamodules.readers import open_reader
from temporal_attn.types import UnavailableVideo, UserError, VideoError


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return three_videos(tmp_path)


@pytest.fixture
def store(files: list[str], tmp_path: Path) -> FrameStore:
    fill_frame_store(files, tmp_path / "store", EXACT, opener, workers=2)
    return FrameStore.open(tmp_path / "store")


@pytest.mark.parametrize(("error", "is_kept"), [(UnavailableVideo, False), (VideoError, True)])
def test_passing_faults_are_not_stored(files, tmp_path, error, is_kept):
    def fail(path, engine="auto", short_side=None):
        raise error(path, "is wrong")

    assert fill_frame_store(files[:1], tmp_path / "store", EXACT, lambda: fail).failed == {files[0]: "is wrong"}
    again = fill_frame_store(files[:1], tmp_path / "store", EXACT, opener)
    assert again.failed == ({files[0]: "is wrong"} if is_kept else {})
    assert again.stored == (not is_kept)


def test_a_second_run_stores_nothing(files, store, tmp_path):
    before = sorted((tmp_path / "store").iterdir())

    def none():
        raise AssertionError("nothing is left to open")

    done = fill_frame_store(files, tmp_path / "store", EXACT, none)
    assert (done.stored, done.known, done.failed) == (0, 3, {})
    assert sorted((tmp_path / "store").iterdir()) == before


def test_an_interrupted_run_goes_on(files, tmp_path):
    opened = []

    def interrupted(path, *options):
        opened.append(path)
        if len(opened) == 3:
            raise KeyboardInterrupt
        return open_reader(path, *options)

    with pytest.raises(KeyboardInterrupt):
        fill_frame_store(files, tmp_path / "store", EXACT, lambda: interrupted)
    assert not list((tmp_path / "store").glob("*.partial"))
    done = fill_frame_store(files, tmp_path / "store", EXACT, opener)
    assert (done.stored, done.known) == (1, 2)
    store = FrameStore.open(tmp_path / "store")
    assert all(videos.read_number(store(path).get_batch([5])[0]) == 5 for path in files)


def test_what_a_killed_run_left_is_removed(files, tmp_path):
    fill_frame_store(files[:1], tmp_path / "store", EXACT, opener)
    abandoned = tmp_path / "store" / "1-1-1.frames.partial"
    abandoned.write_bytes(b"half a shard")
    at_work = ShardWriter(tmp_path / "store")
    fill_frame_store(files, tmp_path / "store", EXACT, opener)
    assert not abandoned.exists()
    assert len(list((tmp_path / "store").glob("*.partial"))) == (1 if os.name == "posix" else 0)
    at_work.discard()


def test_two_at_the_same_time(files, tmp_path):
    runs = [
        threading.Thread(target=fill_frame_store, args=(files, tmp_path / "store", EXACT, opener)) for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    store = FrameStore.open(tmp_path / "store")
    assert len(store) == 3
    assert store.damaged == store.damaged_videos() == []
    assert all(videos.read_number(store(path).get_batch([5])[0]) == 5 for path in files)


def test_a_changed_video_is_stored_anew(files, store, tmp_path):
    videos.write_video(files[0], videos.numbered_frames(12, first=100))
    assert store.find(files[0]) is None
    with pytest.raises(VideoError, match="not in the frame store"):
        store(files[0])
    fill_frame_store(files, tmp_path / "store", EXACT, opener)
    renewed = FrameStore.open(tmp_path / "store")
    assert videos.read_number(renewed(files[0]).get_batch([3])[0]) == 103
    for path in files:
        videos.write_video(path, videos.numbered_frames(8), codec="mpeg4" if path.endswith("avi") else "libx264")
    fill_frame_store(files, tmp_path / "store", EXACT, opener)
    latest = FrameStore.open(tmp_path / "store")
    assert sum(map(len, latest.shards)) == 3, "shards of which nothing is of use are deleted"


def test_a_bad_video_is_recorded_with_the_reason(files, tmp_path):
    bad = str(videos.write_text(tmp_path / "bad.mp4"))
    gone = str(tmp_path / "gone.mp4")
    done = fill_frame_store([*files, bad, gone], tmp_path / "store", EXACT, opener)
    assert done.stored == 3
    assert set(done.failed) == {bad, gone}
    store = FrameStore.open(tmp_path / "store", otherwise=open_reader)
    with pytest.raises(VideoError, match=r"as the frame store says"):
        store(bad)
    again = fill_frame_store([*files, bad], tmp_path / "store", EXACT, opener)
    assert (again.stored, again.known, set(again.failed)) == (0, 3, {bad})


def test_too_little_room_is_estimated_before_the_work(files, tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "_SAMPLE", 1)
    every = 32 * 48 * 3 * 72
    with pytest.raises(UserError, match=r"2 more videos need about .* GB.*max_gb"):
        fill_frame_store(files, tmp_path / "store", EXACT, opener, max_bytes=int(every * 0.6))
    held = FrameStore.open(tmp_path / "store")
    assert len(held) == 1
    assert fill_frame_store(files, tmp_path / "store", EXACT, opener, max_bytes=2 * every).stored == 2


def test_the_limit_holds_where_the_estimate_was_wrong(files, tmp_path):
    limit = 32 * 48 * 3 * 60
    with pytest.raises(UserError, match="full before all videos"):
        fill_frame_store(files, tmp_path / "store", EXACT, opener, max_bytes=limit)
    assert FrameStore.open(tmp_path / "store").num_bytes < limit + 20_000  # tables and settings


def test_a_disk_that_fills_up(files, tmp_path, monkeypatch):
    write, written = ShardWriter.write, []

    def full(self, data):
        written.append(data)
        if len(written) > 45:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    monkeypatch.setattr(ShardWriter, "write", full)
    with pytest.raises(UserError, match=r"No space left.*goes on"):
        fill_frame_store(files, tmp_path / "store", EXACT, opener)
    monkeypatch.undo()
    assert not list((tmp_path / "store").glob("*.partial"))
    done = fill_frame_store(files, tmp_path / "store", EXACT, opener)
    assert (done.stored, done.known) == (2, 1)
    store = FrameStore.open(tmp_path / "store")
    assert all(videos.read_number(store(path).get_batch([5])[0]) == 5 for path in files)
