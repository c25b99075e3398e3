"""Rows of the stores in the decoding benchmark. No timing is judged here."""

from __future__ import annotations

import numpy as np
import pytest
import videos

from datamodules.readers import scan_video, select
from temporal_attn.bench import stores
from temporal_attn.bench.stores import store_rows
from temporal_attn.bench.video_readers import Clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = [
        videos.write_video(folder / f"{n}.avi", videos.numbered_frames(20 + n, 96, 128), codec="mpeg4")
        for n in range(2)
    ]
    return [Clip(str(path), scan_video(path), [0], None) for path in paths]


def test_every_store_has_a_row(clips):
    rows = {row["reader"]: row for row in store_rows(clips, rounds=2, seed=0, short_side=48)}
    assert {"jpeg", "uint8", "features"} <= set(rows)
    for name in ("jpeg", "uint8", "features"):
        row = rows[name]
        assert (row["kind"], row["files"], row["exact"]) == ("store", 2, True)
        assert row["cpu_ms"] > 0
        assert row["open_ms"] > 0
        if select.has_decord():
            low, high = row["ratio_ci"]
            assert low <= row["ratio_to_decord"] <= high
    frame_bytes = 48 * 64 * 3
    assert rows["uint8"]["kilobytes"] * 1e3 > 20 * frame_bytes > rows["jpeg"]["kilobytes"] * 1e3


@pytest.mark.parametrize("encoding", ["jpeg", "uint8"])
def test_wrong_frames_are_found_out(clips, tmp_path, monkeypatch, encoding):
    honest = stores.open_reader

    class Late:
        def __init__(self, reader):
            self.reader = reader

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.reader.close()

        def get_batch(self, indices):
            return np.roll(self.reader.get_batch(indices), 1, axis=0)

    monkeypatch.setattr(stores, "open_reader", lambda *args: Late(honest(*args)))
    assert stores._frames([clip.path for clip in clips], tmp_path / "store", encoding, 48).exact is False


def test_files_that_decord_cannot_read_are_named_and_left_out(clips, monkeypatch, capsys):
    def read(clip):
        if clip.path == clips[0].path:
            raise RuntimeError("no decoder")
        return np.zeros((8, 48, 64, 3), np.uint8)

    monkeypatch.setattr(stores, "contestants", lambda: {stores._DECORD: read})
    assert {row["files"] for row in store_rows(clips, rounds=2, seed=0, short_side=48)} == {1}
    assert clips[0].path in capsys.readouterr().err
    assert store_rows(clips[:1], rounds=2, seed=0, short_side=48) == []
