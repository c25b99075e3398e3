from __future__ import annotations

import os
import unicodedata

import pytest

from datamodules.files import VideoFiles, expand_paths, leaves_root, scan_videos
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


def test_links_that_lead_outside_are_refused_unless_allowed(tmp_path):
    touch(tmp_path / "disk", "Archery/1.avi", "2.avi", "notes.txt")
    touch(tmp_path / "root", "Swing/1.avi")
    for link, target in (("Archery", "disk/Archery"), ("Swing/2.avi", "disk/2.avi"), ("up", "root/..")):
        path = tmp_path / "root" / link
        os.symlink(tmp_path / target, path)
        with pytest.raises(UserError) as error:
            scan_videos(tmp_path / "root")
        for said in (str(path), os.path.realpath(tmp_path / target), "allow_outside: true"):
            assert said in str(error.value)
        assert len(scan_videos(tmp_path / "root", allow_outside=True)) > 1
        path.unlink()
    os.symlink(tmp_path / "disk" / "notes.txt", tmp_path / "root" / "notes.txt")  # never taken for a video
    assert scan_videos(tmp_path / "root") == ["Swing/1.avi"]


def test_links_within_the_root_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / "root"
    touch(root, "a/1.avi", "b/2.avi")
    os.symlink(root / "b", root / "a" / "again")
    os.symlink(root / "a", root / "b" / "back")
    os.symlink(root, root / "a" / "up")
    os.symlink(root / "a" / "1.avi", root / "b" / "same.avi")
    found = scan_videos(root)
    assert {"a/1.avi", "a/again/2.avi", "b/2.avi", "b/same.avi"} <= set(found)
    assert len(found) < 20
    os.symlink(root, tmp_path / "link")
    assert scan_videos(tmp_path / "link") == found  # the root itself may be a link


def test_ten_thousand_files_are_found_without_asking_for_each(tmp_path, monkeypatch):
    (tmp_path / "class").mkdir()
    for number in range(10_000):
        os.close(os.open(tmp_path / "class" / f"{number}.mp4", os.O_CREAT))
    asked = []
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "readlink"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda *a, real=real, **k: asked.append(a[0]) or real(*a, **k))
        files = VideoFiles(tmp_path)
        assert all(files.find(f"class/{number}.avi") for number in range(10_000))
    assert len(files.names) == 10_000
    assert len(asked) < 50


def test_folders_that_cannot_be_listed_are_named(tmp_path, monkeypatch):
    touch(tmp_path, "open/1.mp4", "closed/2.mp4")
    real = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        with pytest.raises(UserError, match="closed: Permission denied"):
            scan_videos(tmp_path)


def test_names_are_equal_however_accents_are_encoded(tmp_path):
    decomposed, composed = (unicodedata.normalize(form, "Übung/Zoë 1.mp4") for form in ("NFD", "NFC"))
    touch(tmp_path, decomposed)
    assert VideoFiles(tmp_path).find(composed) == str(tmp_path / decomposed)


def test_videos_by_id(tmp_path):
    touch(tmp_path, "train/a b/aBc_1.mp4", "val/c/aBc_1.mp4", "abc_1.webm", "x/7/1.png", "x/7/2.png")
    files = VideoFiles(tmp_path)
    assert files.find_by_id("aBc_1", "a b") == str(tmp_path / "train/a b/aBc_1.mp4")
    assert files.find_by_id("aBc_1", "c") == str(tmp_path / "val/c/aBc_1.mp4")
    assert files.find_by_id("aBc_1", "elsewhere") == str(tmp_path / "train/a b/aBc_1.mp4")
    assert files.find_by_id("abc_1") == str(tmp_path / "abc_1.webm")
    assert files.find_by_id("7") == str(tmp_path / "x/7")
    assert files.find_by_id("ABC_1") is None
    assert str(files) == "found videos such as abc_1.webm (4 in all)"


def test_folders_of_images_are_videos_for_those_who_name_them(tmp_path):
    touch(tmp_path, "a/clip/00001.JPG", "a/clip/00002.JPG", "a/thumbnail.jpg", "a/1.mp4")
    files = VideoFiles(tmp_path)
    assert files.names == ["a/1.mp4"]
    assert files.find("a/clip") == str(tmp_path / "a/clip")
    assert files.find("a/clip.avi") == str(tmp_path / "a/clip")
    assert files.image_folders == ["a/clip"]
    assert files.find("a") == str(tmp_path / "a")  # by its name, though a video lies beside the thumbnail


def test_names_outside_the_root(tmp_path):
    touch(tmp_path, "root/1.mp4", "other/2.mp4")
    absolute = str(tmp_path / "other" / "2.mp4")
    for name in ("../other/2.mp4", absolute):
        assert leaves_root(name)
        assert VideoFiles(tmp_path / "root").find(name) is None
        found = VideoFiles(tmp_path / "root", allow_outside=True).find(name)
        assert os.path.samefile(found, absolute)
    assert VideoFiles(tmp_path / "root", allow_outside=True).find("../other/3.mp4") is None
    assert not leaves_root("a..b/..c.mp4")


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
    touch(tmp_path, "films/a/1.mp4", "films/a/poster.jpg", "films/b/1.jpg", "films/b/2.PNG", "films/c.txt")
    assert expand_paths(["films"]) == ["films/a/1.mp4", "films/b"]
    assert expand_paths(["films/b"]) == ["films/b"]
    assert expand_paths(["films/*"]) == ["films/b", "films/c.txt"]
    assert expand_paths(["films/**"]) == ["films/a/1.mp4", "films/a/poster.jpg", "films/b", "films/c.txt"]
    for nothing, said in (([], "no video is given"), (["empty"], "holds no video"), (["*.mkv"], "fits no file")):
        with pytest.raises(UserError, match=said):
            expand_paths(nothing)
