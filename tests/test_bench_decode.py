"""The decoding benchmark: its rows, its verdict on frames, and its ratios. No timing is judged here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import videos

from datamodules.readers import scan_video, select
from temporal_attn.bench import decode
from temporal_attn.bench.decode import bench_decode, shows_right_frames
from temporal_attn.bench.video_files import encode_files, kind_of
from temporal_attn.bench.video_readers import Clip, Reference, contestants, mean_cells, sequential_reference
from temporal_attn.types import UserError

AVI = {
    "gop12": {"gop": 12},
    "single_gop": {"gop": 600},
    "b_frames": {"gop": 12, "b_frames": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = videos.numbered_frames(50, 96, 128)
    for kind, options in AVI.items():
        videos.write_video(folder / f"{kind}.avi", frames, codec="mpeg4", **options)
    videos.write_video(folder / "gop12.mp4", frames)
    videos.write_text(folder / "broken.avi")
    return folder


def clip_of(path) -> Clip:
    index = scan_video(path)
    return Clip(str(path), index, [int((i + 0.5) * len(index) / 8) for i in range(8)], None)


def test_the_table_of_a_folder(folder, tmp_path, capsys):
    assert bench_decode(str(folder), str(tmp_path / "f.json"), rounds=2) == 0
    shown = capsys.readouterr()
    result = json.loads((tmp_path / "f.json").read_text())
    assert result["schema"] == "temporal-attn/bench-decode/1"
    assert result["machine"]["versions"]["av"]
    rows = {(row["kind"], row["reader"]): row for row in result["rows"]}
    assert {kind for kind, _ in rows} == {*AVI, "h264_gop12", "all", "two workers against one", "store"}
    for (kind, reader), row in rows.items():
        assert {"kind", "reader", "files", "cpu_ms", "ratio_to_decord", "ratio_ci", "exact"} <= set(row)
        if reader == "auto (stored index)" and "workers" not in kind:
            assert row["exact"] is True
            assert row["files"] == (4 if kind == "all" else 1)
            assert row["cpu_ms"] > 0
            if select.has_decord():
                low, high = row["ratio_ci"]
                assert 0 < low <= row["ratio_to_decord"] <= high
    assert rows["two workers against one", "auto (stored index)"]["ratio_to_one_worker"] > 0
    assert "b_frames" in shown.out
    assert "left out" in shown.err
    assert "broken.avi" in shown.err


@pytest.mark.skipif(not select.has_decord(), reason="decord has no wheel for this platform")
def test_decord_is_found_out_on_b_frames(folder):
    readers = contestants()
    for kind, is_right in (("gop12", True), ("b_frames", False)):
        clip = clip_of(folder / f"{kind}.avi")
        frames = readers["decord at target size"](clip)
        assert shows_right_frames(frames, sequential_reference(clip), clip.wanted) == is_right


def test_wrong_frames_are_found_out(folder):
    clip = clip_of(folder / "gop12.avi")
    everything = videos.sequential_decode(clip.path)
    right = everything[clip.wanted]
    reference = Reference(right, mean_cells(everything))
    given = sequential_reference(clip)
    np.testing.assert_array_equal(given.frames, right)
    np.testing.assert_array_equal(given.cells, reference.cells)
    noisy = np.clip(right + np.random.default_rng(0).normal(0, 4, right.shape), 0, 255).astype(np.uint8)
    assert shows_right_frames(right, reference, clip.wanted)
    assert shows_right_frames(noisy, reference, clip.wanted)
    late = noisy.copy()
    late[3] = everything[clip.wanted[3] + 1]
    assert not shows_right_frames(late, reference, clip.wanted)
    assert not shows_right_frames(noisy[:-1], reference, clip.wanted)
    assert not shows_right_frames(noisy[:, 1:], reference, clip.wanted)


def test_a_wrong_reader_of_ours_fails_the_run(folder, tmp_path, monkeypatch):
    def first_frames(clip):
        frames = videos.sequential_decode(clip.path)[: len(clip.wanted)]
        return frames

    monkeypatch.setattr(decode, "contestants", lambda: {"auto (stored index)": first_frames})
    monkeypatch.setattr(decode, "compare_workers", lambda clips, rounds, seed: {**ROW, "kind": "two workers"})
    monkeypatch.setattr(decode, "store_rows", lambda clips, rounds, seed: [])
    assert bench_decode(str(folder), rounds=1) == 1


ROW = {"reader": "auto", "files": 1, "cpu_ms": None, "ratio_to_decord": None, "ratio_ci": None, "exact": None}


def test_a_failing_reader_costs_its_own_rows_only(folder, monkeypatch, capsys, tmp_path):
    honest = contestants()["auto (stored index)"]

    def failing(clip):
        raise RuntimeError("boom")

    monkeypatch.setattr(decode, "contestants", lambda: {"auto (stored index)": honest, "other": failing})
    monkeypatch.setattr(decode, "compare_workers", lambda clips, rounds, seed: {**ROW, "kind": "two workers"})
    monkeypatch.setattr(decode, "store_rows", lambda clips, rounds, seed: [])
    assert bench_decode(str(folder), str(tmp_path / "f.json"), rounds=1) == 0
    assert "other: " in capsys.readouterr().err
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert {row["reader"] for row in rows} == {"auto (stored index)", "auto"}


def test_files_of_every_kind_are_encoded(tmp_path):
    indices = {kind_of(index): index for index in map(scan_video, encode_files(tmp_path, frames=30))}
    kinds = set(indices)
    assert {*AVI, "h264_gop12"} <= kinds
    assert {"h264_gop12_edit_list", "h264_gop12_rotated", "h264_long_gop_1080p"} <= kinds
    assert indices["h264_gop12_rotated"].size == (320, 240)
    edited = indices["h264_gop12_edit_list"]
    assert edited.hidden == len(edited.sizes) - len(edited) > 0
    assert any(kind.endswith("long_gop") for kind in kinds)


def test_wrong_use(tmp_path, folder):
    with pytest.raises(UserError, match="rounds"):
        bench_decode(str(folder), rounds=0)
    with pytest.raises(UserError, match="no video in"):
        bench_decode(str(tmp_path))
    with pytest.raises(UserError, match="json"):
        bench_decode(str(folder), str(tmp_path / "no" / "f.json"))
