from __future__ import annotations

import os
import pickle
import shutil
import struct
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patches import moving_patches
from videos import (
    numbered_frames,
    read_numbers,
    write_audio_only,
    write_empty,
    write_text,
    write_truncated,
    write_video,
)

from datamodules import manifest
from datamodules.decoding import SafeOpener, SandboxedReader
from datamodules.fingerprint import FINGERPRINT_BYTES, alike_pairs, fingerprint, frame_places
from datamodules.manifest import Manifest, load_examinations, scan
from datamodules.readers import VideoIndex
from datamodules.sandbox import Sandbox
from temporal_attn.types import UnavailableVideo, UserError, VideoError

GENEROUS = 60.0


def claim_more(path, frames):
    """Let the header of an .avi promise more frames than there are."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, frames)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, frames)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "good.mp4", numbered_frames(30), fps=10)
    write_video(folder / "good.avi", numbered_frames(20), fps=10, codec="mpeg4")
    write_video(folder / "één clip.mp4", numbered_frames(8), fps=10)
    whole = write_video(folder / "whole.avi", moving_patches(0, frames=40), fps=10, codec="mpeg4")
    write_truncated(folder / "cut.avi", whole, share=0.8)
    whole.unlink()
    claim_more(write_video(folder / "boastful.avi", numbered_frames(10), codec="mpeg4"), 200)
    write_truncated(folder / "no index.mp4", folder / "good.mp4")
    write_empty(folder / "empty.mp4")
    write_text(folder / "text.mp4")
    write_audio_only(folder / "tone.mp4")
    os.mkfifo(folder / "endless.mp4")
    return folder


@pytest.fixture(scope="module")
def cache(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    endless = folder / "endless.mp4"
    scan([path for path in folder.iterdir() if path != endless], cache, workers=2, timeout=GENEROUS)
    scan([endless], cache, timeout=0.5)
    return cache


@pytest.fixture(scope="module")
def found(cache):
    return {os.path.basename(row.path): row for row in load_examinations(cache)}


def test_what_is_wrong_is_named(found):
    problems = {name: row.problem for name, row in found.items()}
    assert problems == {
        "good.mp4": "",
        "good.avi": "",
        "één clip.mp4": "",
        "cut.avi": "truncated",
        "boastful.avi": "truncated",
        "no index.mp4": "unreadable",
        "empty.mp4": "unreadable",
        "text.mp4": "unreadable",
        "tone.mp4": "unreadable",
        "endless.mp4": "hanging",
    }
    assert found["boastful.avi"].reason == "10 of 200 frames decode"
    assert "not a video" in found["text.mp4"].reason
    assert all(row.reason for row in found.values() if row.problem)


def test_what_files_hold_is_measured(found, folder):
    good = found["good.mp4"]
    assert (good.frames, good.claimed, good.height, good.width) == (30, 30, 64, 96)
    assert good.seconds == pytest.approx(3.0)
    assert good.thumbnail.startswith(b"\xff\xd8")
    assert VideoIndex.from_bytes(good.index).fits(folder / "good.mp4")
    assert found["boastful.avi"].frames == 10
    assert not found["text.mp4"].is_readable
    assert len({row.digest for row in found.values()}) == len(found)


def test_a_known_file_is_not_examined_again(folder, cache, monkeypatch):
    monkeypatch.setattr(manifest, "examine_safely", lambda *_: pytest.fail("examined again"))
    again = scan([folder / "good.mp4", folder / "text.mp4", folder / "good.mp4"], cache)
    assert [os.path.basename(row.path) for row in again] == ["good.mp4", "text.mp4"]


def test_what_cannot_be_had_just_now_is_tried_again(folder, tmp_path, monkeypatch):
    path = str(folder / "good.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "call", mock.Mock(side_effect=UnavailableVideo(path, "Permission denied")))
        (row,) = scan([path], tmp_path)
        assert (row.problem, row.reason) == ("unreadable", "Permission denied")
    assert Manifest.load(tmp_path).get(path) is None
    assert scan([path], tmp_path)[0].problem == ""


def test_a_folder_that_is_reached_by_a_link_is_known(folder, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "examine_safely", lambda *_: pytest.fail("examined again"))
    (tmp_path / "link").symlink_to(folder)
    through = tmp_path / "link" / "good.mp4"
    assert Manifest.load(cache).get(through).index is not None
    both = scan([through, folder / "good.mp4"], cache)
    assert [row.frames for row in both] == [30, 30]


def test_a_changed_file_is_examined_again(tmp_path):
    clip, cache = write_video(tmp_path / "clip.mp4", numbered_frames(6)), tmp_path / "cache"
    assert scan([clip], cache)[0].frames == 6
    write_video(clip, numbered_frames(9))
    assert Manifest.load(cache).get(clip) is None
    assert scan([clip], cache)[0].frames == 9
    assert len(load_examinations(cache)) == 1
    assert Manifest.load(cache).get(clip).index is not None


def test_an_interrupted_scan_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    paths = [folder / name for name in ("good.mp4", "good.avi", "text.mp4", "één clip.mp4")]
    real, examined = manifest.examine_safely, []

    def interrupted(path, sandbox):
        if len(examined) == 2:
            raise KeyboardInterrupt
        examined.append(path)
        return real(path, sandbox)

    monkeypatch.setattr(manifest, "examine_safely", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan(paths, tmp_path, workers=1)
    assert {row.path for row in load_examinations(tmp_path)} == set(examined)
    monkeypatch.setattr(manifest, "examine_safely", lambda path, sandbox: examined.append(path) or real(path, sandbox))
    assert [row.path for row in scan(paths, tmp_path, workers=1)] == list(map(str, paths))
    assert sorted(examined) == sorted(map(str, paths))


def test_parts_are_merged_and_an_unfinished_one_is_ignored(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_PART_FILES", 1)
    paths = [folder / name for name in ("good.mp4", "text.mp4", "empty.mp4")]
    scan(paths, tmp_path)
    parts = list(tmp_path.glob("*/*"))
    assert [part.suffix for part in parts] == [".parquet"]
    (parts[0].parent / "torn.partial").write_bytes(b"PAR1")
    assert len(Manifest.load(tmp_path)) == 3


def test_a_damaged_manifest_is_named(folder, tmp_path):
    scan([folder / "empty.mp4"], tmp_path)
    part = next(tmp_path.glob("*/*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"{part.name}: cannot be read .*delete it, and scan again"):
        Manifest.load(tmp_path)


def test_a_folder_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache_dir .*file: cannot be written"):
        scan([folder / "empty.mp4"], tmp_path / "file")


# In training


def test_the_manifest_says_how_to_open(folder, cache):
    known = Manifest.load(cache)
    opener = SafeOpener(timeout=GENEROUS, manifest=known)
    for name, count in (("good.mp4", 30), ("good.avi", 20), ("boastful.avi", 10)):
        with opener(str(folder / name)) as reader:
            assert not isinstance(reader, SandboxedReader)
            assert len(reader) == count
            assert read_numbers(reader.get_batch([count - 1, 0])) == [count - 1, 0]
    with pytest.raises(VideoError, match=r"not a video.*as the manifest says"):
        opener(str(folder / "text.mp4"))
    with pytest.raises(VideoError, match=r"made no progress for 0\.5 s.*--timeout.*as the manifest says"):
        SafeOpener(sandbox=False, manifest=known)(str(folder / "endless.mp4"))  # at once: nobody would kill it
    with SafeOpener(sandbox=True, manifest=known, timeout=GENEROUS)(str(folder / "good.mp4")) as reader:
        assert isinstance(reader, SandboxedReader)
        assert read_numbers(reader.get_batch([29])) == [29]


@pytest.mark.parametrize("problem", ["hanging", "crashing"])
def test_what_a_busy_machine_may_have_done_is_tried_again(folder, problem):
    path = folder / "good.mp4"
    status = path.stat()
    row = (str(path), status.st_size, status.st_mtime_ns, problem, "made no progress", None)
    with SafeOpener(manifest=Manifest([row]), timeout=GENEROUS)(str(path)) as reader:
        assert isinstance(reader, SandboxedReader)
        assert read_numbers(reader.get_batch([29])) == [29]


def test_a_file_that_the_manifest_does_not_know_is_sandboxed(folder, cache, tmp_path):
    shutil.copy(folder / "good.mp4", tmp_path / "new.mp4")
    with SafeOpener(manifest=Manifest.load(cache), timeout=GENEROUS)(str(tmp_path / "new.mp4")) as reader:
        assert isinstance(reader, SandboxedReader)


def test_an_index_of_another_version_is_not_used(folder, tmp_path, monkeypatch):
    path = folder / "good.mp4"
    (row,) = scan([path], tmp_path)
    outdated = row.index[:4] + b"\xff\xff" + row.index[6:]
    state = (row.path, row.size, row.mtime_ns)
    with SafeOpener(manifest=Manifest([(*state, "", "", outdated)]), timeout=GENEROUS)(str(path)) as reader:
        assert isinstance(reader, SandboxedReader)
        assert read_numbers(reader.get_batch([29])) == [29]
    monkeypatch.setattr(manifest, "load_index", lambda data: None)
    monkeypatch.setattr(manifest, "examine_safely", lambda *_: replace(row, reason="examined again"))
    assert scan([path], tmp_path)[0].reason == "examined again"


def test_no_scan_no_manifest(tmp_path):
    assert Manifest.load(tmp_path) is None
    assert Manifest.load(tmp_path / "nowhere") is None


letters = st.characters(exclude_characters="\0/", exclude_categories=["Cs"])
names = st.text(letters, min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))  # those are folders


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(names, st.tuples(st.binary(max_size=30), st.sampled_from(["", "hanging"])), max_size=20))
def test_a_manifest_gives_back_what_it_was_given(rows):
    table = Manifest(
        (f"/videos/{name}", 5, 7, problem, "why" if problem else "", index or None)
        for name, (index, problem) in rows.items()
    )
    copy = pickle.loads(pickle.dumps(table))
    assert len(copy) == len(rows)
    status = SimpleNamespace(st_size=5, st_mtime_ns=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", lambda _: status)
        for name, (index, problem) in rows.items():
            entry = copy.get(f"/videos/{name}")
            assert (entry.problem, entry.reason, entry.index) == (problem, "why" if problem else "", index or None)
        assert copy.get("/videos/") is None


# Fingerprints


def print_of(path):
    from datamodules.readers import open_reader

    with open_reader(path) as reader:
        return fingerprint(reader.get_batch(frame_places(len(reader))))


def test_a_fingerprint_survives_encoding_and_tells_videos_apart(tmp_path):
    first, second = moving_patches(1), moving_patches(2)
    paths = [
        write_video(tmp_path / "one.mp4", first, fps=12),
        write_video(tmp_path / "one.avi", first[:, ::2, ::2], fps=12, codec="mpeg4"),
        write_video(tmp_path / "half.mkv", first[::2], fps=6),
        write_video(tmp_path / "dim.mp4", (first * 0.7).astype(np.uint8), fps=12),
        write_video(tmp_path / "two.mp4", second, fps=12),
    ]
    prints = np.frombuffer(b"".join(map(print_of, paths)), np.uint8).reshape(-1, FINGERPRINT_BYTES)
    pairs, distances = alike_pairs(prints, [2.0] * 5, range(0, 100, 20))
    assert sorted(map(tuple, pairs.tolist())) == [(a, b) for a in range(4) for b in range(a + 1, 4)]
    assert (distances >= 0).all()
    assert len(alike_pairs(prints, [2.0, 2.5, 3.0, 3.5, 4.0], range(0, 100, 20))[0]) == 0
    retimed, _ = alike_pairs(prints, [2.0, 2.5, 3.0, 3.5, 4.0], [24, 25, 50, 75, 25])
    assert retimed.tolist() == [[0, 1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_pairs_are_those_of_a_loop(seed, count):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (4, FINGERPRINT_BYTES))
    prints = np.clip(base[rng.integers(0, 4, count)] + rng.integers(-20, 20, (count, FINGERPRINT_BYTES)), 0, 255)
    prints = prints.astype(np.uint8).reshape(count, FINGERPRINT_BYTES)
    seconds = rng.choice([1.0, 1.1, 1.3, 4.0, 4.2, 4.3], count).tolist()
    frames = rng.choice([10, 12, 13, 200, 206, 207], count).tolist()

    def distance(one, other):
        a, b = (x.reshape(8, 64).astype(float) for x in (one, other))
        a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
        return 1 - (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())

    alike = {
        (i, j): distance(prints[i], prints[j])
        for i in range(count)
        for j in range(i + 1, count)
        if any(
            max(length[i], length[j]) <= min(length[i], length[j]) * 1.02 + slack
            for length, slack in ((seconds, 0.2), (frames, 2))
        )
    }
    # the pictures are compared in single precision
    certain, possible = ({pair for pair, d in alike.items() if d <= 0.02 + e} for e in (-1e-6, 1e-6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datamodules.fingerprint._BLOCK", 7)
        pairs, _ = alike_pairs(prints, seconds, frames, 0.02)
    found = set(map(tuple, pairs.tolist()))
    assert certain <= found <= possible
    assert len(found) == len(pairs)


def test_black_videos_are_like_no_other():
    prints = np.full((3, FINGERPRINT_BYTES), 16, np.uint8)
    prints[1, :3] += 1
    assert len(alike_pairs(prints, [1.0] * 3, [9] * 3)[0]) == 0


def test_a_fingerprint_is_the_mean_of_cells():
    frames = np.random.default_rng(0).integers(0, 255, (8, 40, 56, 3)).astype(np.uint8)
    grey = frames.astype(np.float64) @ [0.299, 0.587, 0.114]
    cells = grey.reshape(8, 8, 5, 8, 7).mean((2, 4))
    assert np.abs(np.frombuffer(fingerprint(frames), np.uint8).reshape(8, 8, 8) - cells).max() <= 0.5001
    assert len(fingerprint(frames[:, :5, :3])) == FINGERPRINT_BYTES  # fewer pixels than cells
