from __future__ import annotations

import logging
import os
import sys

import pytest

from datamodules import FolderDataModule
from datamodules.exclusion import read_exclusions, write_exclusions
from datamodules.options import LoaderOptions
from temporal_attn.types import UserError

ODD = ("plain", "two words", "ünï", "tab\tname", "new\nline", "sep\u2028x", "nel\x85x", "end ", "#x", '"y"', "back\\n")


@pytest.fixture
def root(tmp_path):
    for name in [f"{c}/{i}.mp4" for c in ("cat", "dog") for i in range(6)]:
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    return tmp_path / "videos"


def data_without(root, exclude, text=None, **options):
    if text is not None:
        exclude.write_bytes(text.encode() if isinstance(text, str) else text)
    return FolderDataModule(str(root), loader=LoaderOptions(exclude=str(exclude)), **options)


def left(data):
    return {id_ for records in data.catalogue.records.values() for id_ in records.ids}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_whatever_a_name_holds(tmp_path):
    names = [*ODD, os.fsdecode(b"caf\xe9")]
    paths = {str(tmp_path / "a" / f"{name}.mp4"): f"because of {number}" for number, name in enumerate(names)}
    paths[str(tmp_path / "a" / "ends with a blank ")] = "yes"
    write_exclusions(tmp_path / "exclude.txt", paths)
    assert read_exclusions(tmp_path / "exclude.txt") == paths


def test_files_as_people_save_them(root, tmp_path):
    text = b"\xef\xbb\xbfvideos/cat/0.mp4\r\nvideos/cat/1.mp4 \n\n  videos/dog/0.mp4\t why\r\n# videos/dog/1.mp4\n"
    data = data_without(root, tmp_path / "exclude.txt", text)
    assert {f"{c}/{i}" for c in ("cat", "dog") for i in range(6)} - left(data) == {"cat/0", "cat/1", "dog/0"}


def test_folders_that_are_reached_by_links(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    for written, read in ((root, "link"), (tmp_path / "link", "videos")):
        exclude = tmp_path / "exclude.txt"
        write_exclusions(exclude, {str(written / "cat" / f"{i}.mp4"): "bad" for i in range(5)})
        assert len(left(data_without(tmp_path / read, exclude))) == 7


def test_a_link_is_a_video_of_its_own(root, tmp_path):
    (root / "cat" / "again.mp4").symlink_to(root / "cat" / "0.mp4")
    again = data_without(root, tmp_path / "exclude.txt", "videos/cat/again.mp4\n")
    assert "cat/0" in left(again)
    assert "cat/again" not in left(again)
    both = data_without(root, tmp_path / "exclude.txt", "videos/cat/0.mp4\n")
    assert not {"cat/0", "cat/again"} & left(both)


def test_lines_in_vain_are_said(root, tmp_path, caplog):
    data = data_without(root, tmp_path / "exclude.txt", "videos/cat/0.mp4\nvideos/cat/9.mp4\nvideos/cat/1.mp4 # bad\n")
    assert len(left(data)) == 11
    assert "2 of 3 lines match no video of the data set, e.g. " in caplog.text
    assert "cat/1.mp4 # bad" in caplog.text
    with pytest.raises(UserError, match=r"exclude.txt: 1 of 1 lines match no video .*give the list of this data set"):
        left(data_without(root, tmp_path / "exclude.txt", "videos/cat/9.mp4\n"))
    (tmp_path / "elsewhere.mp4").touch()
    with pytest.raises(UserError, match="match no video"):
        left(data_without(root, tmp_path / "exclude.txt", "elsewhere.mp4\n"))


def test_a_list_for_other_classes_or_for_nothing_is_no_mistake(root, tmp_path, caplog):
    data = data_without(root, tmp_path / "exclude.txt", "videos/cat/0.mp4\nvideos/dog/0.mp4\n", classes=["dog"])
    assert len(left(data)) == 5
    (root / "stray.mp4").touch()
    assert len(left(data_without(root, tmp_path / "exclude.txt", "videos/stray.mp4\n"))) == 12
    assert "1 of 1 lines match no video" in caplog.text
    assert len(left(data_without(root, tmp_path / "exclude.txt", "# nothing\n"))) == 12


def test_emptied_classes_are_said_and_counted(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = data_without(root, tmp_path / "exclude.txt", "".join(f"videos/dog/{i}.mp4\n" for i in range(6)))
    data.setup("fit")
    assert data.class_names == ["cat", "dog"]
    assert "leaves no clip to train 1 classes: dog" in caplog.text
    assert (data.account.found, data.account.excluded, data.account.empty_classes) == (12, 6, ("dog",))
    assert str(data.account) == "12 of 12 listed files found, 6 of them left out, 1 of 2 classes"
    with pytest.raises(UserError, match=r"leaves out all 12 videos"):
        left(
            data_without(
                root,
                tmp_path / "exclude.txt",
                "".join(f"videos/{c}/{i}.mp4\n" for c in ("cat", "dog") for i in range(6)),
            )
        )
