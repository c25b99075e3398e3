from __future__ import annotations

import os

import pytest

from datamodules.files import VideoFiles, expand_paths, scan_videos
from temporal_attn.types import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_scan_finds_videos_only(tmp_path):
    touch(tmp_path, "b/2.MP4", "b/1.avi", "a.webm", "b/notes.txt", "b/._1.avi", ".trash/x.mp4", "b/deep/3.mkv")
    assert scan_videos(tmp_path) == ["a.webm", "b/1.avi", "b/2.MP4", "b/deep/3.mkv"]
    with pytest.raises(UserError, match="no such folder"):
        scan_videos(tmp_path / "gone")


def test_scan_follows_links_but_not_in_circles(tmp_path):
    touch(tmp_path / "disk", "Archery/1.avi")
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "disk" / "Archery", tmp_path / "root" / "Archery")
    os.symlink(tmp_path / "disk", tmp_path / "disk" / "Archery" / "up")
    assert "Archery/1.avi" in scan_videos(tmp_path / "root")


def test_listed_names_find_other_containers_and_other_case(tmp_path):
    touch(tmp_path, "A/v1.2.mp4", "A/both.mkv", "A/both.avi", "HandstandPushups/v_HandStandPushups_g01_c01.webm")
    files = VideoFiles(tmp_path)
    assert files.find("A/v1.2.avi") == str(tmp_path / "A/v1.2.mp4")
    assert files.find("A/v1.2") == str(tmp_path / "A/v1.2.mp4")
    assert files.find("A/v1") is None
    assert files.find("A/both.mkv") == str(tmp_path / "A/both.mkv")
    assert files.find("A/both.mp4") == str(tmp_path / "A/both.avi")
    found = files.find("HandStandPushups/v_HandstandPushups_g01_c01.avi")
    assert found == str(tmp_path / "HandstandPushups/v_HandStandPushups_g01_c01.webm")


def test_words_stand_for_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(
        tmp_path, "videos/b.mp4", "videos/x/a.AVI", "videos/notes.txt", "odd[1]+!!!.mp4", "raw.h264", "empty/notes.txt"
    )
    assert expand_paths(["videos"]) == ["videos/b.mp4", "videos/x/a.AVI"]
    assert expand_paths(["odd[1]+!!!.mp4", "raw.h264"]) == ["odd[1]+!!!.mp4", "raw.h264"]
    assert expand_paths(["videos/**/*.AVI", "videos"]) == ["videos/x/a.AVI", "videos/b.mp4"]
    assert expand_paths(["gone.mp4"]) == ["gone.mp4"]
    for nothing, said in (([], "no video is given"), (["empty"], "holds no video"), (["*.mkv"], "fits no file")):
        with pytest.raises(UserError, match=said):
            expand_paths(nothing)
