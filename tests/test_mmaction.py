from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import write_clip, write_mmaction

from datamodules import MMActionDataModule
from datamodules.records import Entry, read_label_map, read_mmaction_list
from temporal_attn.types import UserError


def write(path, *lines):
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode("utf-8-sig"))
    return path


def test_videos_and_their_class(tmp_path):
    path = write(tmp_path / "train.txt", "some/path/a.mp4 1", "day 2/clip 7.mp4 0 ", "", "Übung/ß.mp4\t12")
    assert read_mmaction_list(path) == [
        Entry("some/path/a.mp4", "1"),
        Entry("day 2/clip 7.mp4", "0"),
        Entry("Übung/ß.mp4", "12"),
    ]


def test_folders_of_images_and_their_number(tmp_path):
    path = write(tmp_path / "train.txt", "some/path/a 120 1", "my clip 3 80 0")
    assert read_mmaction_list(path, frame_folders=True) == [
        Entry("some/path/a", "1", frames=120),
        Entry("my clip 3", "0", frames=80),
    ]
    several = read_mmaction_list(write(tmp_path / "several.txt", "a 120 1 3", "b 80"), None, True, True)
    assert several == [Entry("a", ("1", "3"), frames=120), Entry("b", (), frames=80)]


def test_several_classes(tmp_path):
    path = write(tmp_path / "train.txt", "a.mp4 0 2", "b.mp4 1", "c d.mp4")
    names = ("wave", "clap", "nod")
    assert read_mmaction_list(path, names, multi_label=True) == [
        Entry("a.mp4", ("wave", "nod")),
        Entry("b.mp4", ("clap",)),
        Entry("c d.mp4", ()),
    ]


paths = st.lists(st.text("aé 0.+!", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=3)
rows = st.lists(
    st.tuples(paths.map(lambda parts: "/".join([*parts, "v.mp4"])), st.lists(st.integers(0, 9), max_size=3)),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row[0].casefold(),
)


@settings(deadline=None, max_examples=60)
@given(rows)
def test_what_is_written_is_read(tmp_path_factory, rows):
    rows = [(path, labels) for path, labels in rows if ".." not in path.split("/")]
    if not rows:
        return
    path = tmp_path_factory.mktemp("list") / "list.txt"
    lines = [" ".join([name, *map(str, labels)]) for name, labels in rows]
    entries = read_mmaction_list(write(path, *lines), multi_label=True)
    assert [(entry.name, entry.classes) for entry in entries] == [
        (name.removeprefix("./"), tuple(map(str, labels))) for name, labels in rows
    ]


@pytest.mark.parametrize(
    ("line", "frame_folders", "said"),
    [
        ("b.mp4", False, "expected '<path> <label>'"),
        ("b.mp4 wave", False, "expected '<path> <label>'"),
        ("b.mp4 -1", False, "expected '<path> <label>'"),
        ("b 1", True, "expected '<path> <number of frames> <label>'"),
        ("b 0 1", True, "expected '<path> <number of frames> <label>'"),
        ("b.mp4 10 2", False, "label 2 has no name; the label map ends at 1"),
        ("../b.mp4 10 1", False, "points outside"),
        ("a.mp4 10 1", True, "listed twice"),
    ],
)
def test_malformed_lines(tmp_path, line, frame_folders, said):
    path = write(tmp_path / "train.txt", "a.mp4 10 1", line)
    with pytest.raises(UserError) as error:
        read_mmaction_list(path, ("wave", "clap"), frame_folders)
    assert f"{path}, line 2: " in str(error.value)
    assert said in str(error.value)


def test_label_map(tmp_path):
    assert read_label_map(write(tmp_path / "map.txt", "shaking hands", "wave")) == ("shaking hands", "wave")
    with pytest.raises(UserError, match="a class appears twice"):
        read_label_map(write(tmp_path / "map.txt", "wave", "wave"))


def test_classes_keep_their_numbers_without_a_label_map(tmp_path):
    options = write_mmaction(tmp_path)
    del options["label_map"]
    assert MMActionDataModule(**options).class_names == ["0", "1", "2"]


def test_parts_that_have_no_list(tmp_path):
    options = write_mmaction(tmp_path)
    without = {key: value for key, value in options.items() if key not in ("val_list", "test_list")}
    data = MMActionDataModule(**without, val_fraction=0.3)
    data.setup("fit")
    assert (len(data.train_dataset), len(data.val_dataset)) == (9, 3)
    with pytest.raises(UserError, match="no videos for test; give a test_list"):
        data.setup("test")


def test_folders_of_images_are_read(tmp_path):
    for label in (0, 1):
        for number in range(3):
            write_clip(tmp_path / "frames" / f"{label}" / f"clip {number}", label)
    lines = [f"{label}/clip {number} 8 {label}" for label in (0, 1) for number in range(3)]
    path = write(tmp_path / "train.txt", *lines)
    data = MMActionDataModule(str(tmp_path / "frames"), str(path), frame_folders=True, val_fraction=0.3)
    assert [len(part) for part in data.catalogue.records.values()] == [4, 2, 0]
    folders = {path for part in data.catalogue.records.values() for path in part.paths}
    assert folders == {str(path) for path in (tmp_path / "frames").glob("*/*")}


def test_another_number_of_frames_than_listed_is_said(tmp_path, caplog):
    for name, prefixes, count in (("whole", ("img_", "flow_x_", "flow_y_"), 5), ("cut", ("",), 3)):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for place in range(1, count + 1):
            for prefix in prefixes:
                (tmp_path / "videos" / name / f"{prefix}{place:05d}.jpg").touch()
    train = write(tmp_path / "train.txt", "whole 5 0", "cut 4 1")
    data = MMActionDataModule(str(tmp_path / "videos"), str(train), frame_folders=True, val_fraction=0.0)
    assert data.catalogue.accounts["train"].found == 2
    assert "1 folders hold another number of frames than their list says, e.g. " in caplog.text
    assert "cut: 3 instead of 4" in caplog.text
