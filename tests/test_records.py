from __future__ import annotations

import os

import pytest

from datamodules.files import VideoFiles
from datamodules.records import (
    Entry,
    SplitPlan,
    build_catalogue,
    choose_classes,
    in_order,
    label_records,
    locate,
    parse_ucf101_name,
    read_class_index,
    read_path_list,
    read_ucf101_list,
    take_account,
)
from temporal_attn.types import UserError

CLASSES = ("Archery", "HandstandPushups", "Swing")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, *lines, end="\r\n"):
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


# Names and lists


def test_ucf101_names():
    assert parse_ucf101_name("v_HandStandPushups_g01_c04") == ("HandStandPushups", 1)
    with pytest.raises(ValueError, match="v_Archery_g08_c01"):
        parse_ucf101_name("holiday")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_class_index(tmp_path, end):
    path = write(tmp_path / "classInd.txt", "1 Archery", "2 Swing", "", end=end)
    assert read_class_index(path) == ("Archery", "Swing")


@pytest.mark.parametrize("lines", [["0 Archery"], ["1 Archery", "3 Swing"], ["1 Archery", "Swing"], ["1 Two words"]])
def test_malformed_class_index(tmp_path, lines):
    path = write(tmp_path / "classInd.txt", *lines)
    with pytest.raises(UserError, match=rf"classInd.txt, line {len(lines)}: expected '{len(lines)} <class>'"):
        read_class_index(path)


def test_lists_with_and_without_labels(tmp_path):
    archery, pushups = "Archery/v_Archery_g08_c01.avi", "HandstandPushups/v_HandStandPushups_g02_c01.avi"
    expected = [Entry(archery, "Archery", "Archery_g08"), Entry(pushups, "HandstandPushups", "HandstandPushups_g02")]
    assert read_ucf101_list(write(tmp_path / "train.txt", f"{archery} 1", f"{pushups} 2"), CLASSES) == expected
    assert read_ucf101_list(write(tmp_path / "test.txt", archery, pushups), CLASSES) == expected
    other_case = pushups.replace("HandstandPushups/", "HandStandPushups/")
    assert read_ucf101_list(write(tmp_path / "case.txt", other_case), CLASSES)[0].classes == "HandstandPushups"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Archery/v_Archery_g08_c02.avi 0", "label 0 is outside 1 … 3"),
        ("Archery/v_Archery_g08_c02.avi 4", "label 4 is outside 1 … 3"),
        ("Archery/v_Archery_g08_c02.avi 3", "label 3 is Swing"),
        ("Archery/v_Archery_g08_c02.avi one", "expected '<class>/v_<class>_gNN_cNN.avi'"),
        ("Archery/holiday.avi 1", "expected '<class>/v_<class>_gNN_cNN.avi'"),
        ("v_Archery_g08_c02.avi 1", "expected '<class>/v_<class>_gNN_cNN.avi'"),
        ("Boxing/v_Boxing_g08_c02.avi 1", "class 'Boxing' is not in the class index"),
        ("../Archery/v_Archery_g08_c02.avi 1", "points outside"),
        ("Archery/../../v_Archery_g08_c02.avi 1", "points outside"),
        ("/Archery/v_Archery_g08_c02.avi 1", "points outside"),
        ("..\\Archery\\v_Archery_g08_c02.avi 1", "points outside"),
        ("C:\\Archery\\v_Archery_g08_c02.avi 1", "points outside"),
    ],
)
def test_malformed_list_lines_are_located(tmp_path, line, message):
    path = write(tmp_path / "trainlist01.txt", "Archery/v_Archery_g08_c01.avi 1", "", line)
    with pytest.raises(UserError) as error:
        read_ucf101_list(path, CLASSES)
    assert f"{path}, line 3: " in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"gone.txt: No such file"):
        read_path_list(tmp_path / "gone.txt")
    (tmp_path / "video.mp4").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="not a text file"):
        read_path_list(tmp_path / "video.mp4")
    twice = write(tmp_path / "twice.txt", "a/one.mp4", "a/two.mp4", "a/one.mp4")
    with pytest.raises(UserError, match=r"twice.txt, line 3: a/one\.mp4 is listed twice, first in .*twice.txt, line 1"):
        read_path_list(twice)
    alike = write(tmp_path / "alike.txt", "a/one.mp4", "a/one.avi")
    with pytest.raises(UserError, match=r"line 2: a/one\.avi differs from a/one\.mp4 \(.*line 1\) in its suffix only"):
        read_path_list(alike)
    for nothing in ("", "\ufeff", "\r\n  \n"):
        (tmp_path / "nothing.txt").write_text(nothing, encoding="utf-8")
        with pytest.raises(UserError, match=r"nothing.txt: empty; expected lines '<class>/<video>'"):
            read_path_list(tmp_path / "nothing.txt")


def test_path_lists_allow_spaces_and_byte_order_marks(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeffday out/at the sea.mp4\nday out\\v1.2\n", encoding="utf-8")
    assert read_path_list(path) == [Entry("day out/at the sea.mp4", "day out"), Entry("day out/v1.2", "day out")]
    assert [entry.id for entry in read_path_list(path)] == ["day out/at the sea", "day out/v1.2"]


@pytest.mark.shared_data
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_official_lists(shared_data, fold):
    lists = shared_data / "splits" / "ucf101"
    classes = read_class_index(lists / "classInd.txt")
    train = read_ucf101_list(lists / f"trainlist{fold:02d}.txt", classes)
    test = read_ucf101_list(lists / f"testlist{fold:02d}.txt", classes)
    assert len(classes) == 101
    assert len(train) + len(test) == 13_320 == len({entry.id for entry in train + test})
    assert {entry.classes for entry in train} == {entry.classes for entry in test} == set(classes)


def test_lists_are_resolved_without_asking_for_each_file(tmp_path, monkeypatch):
    touch(tmp_path, *(f"A/{i}.mp4" for i in range(50)))
    files = VideoFiles(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", None)  # no more questions to the disk
        located = locate([Entry(f"A/{i}.avi", "A") for i in range(60)], lambda entry: files.find(entry.name))
    assert sum(path is not None for path in located.values()) == 50


def test_account_and_labels(tmp_path):
    touch(tmp_path, "Swing/a.mp4", "Swing/b.mp4", "Archery/c.mp4")
    names = ["Swing/a.avi", "Swing/gone.avi", "Archery/c.avi", "Diving/d.avi"]
    files = VideoFiles(tmp_path)
    entries = [Entry(name, name.split("/")[0], name.upper()) for name in names]
    located = locate(entries, lambda entry: files.find(entry.name))
    account = take_account(located, ["Archery", "Diving", "Swing"])
    assert (account.listed, account.found, account.num_classes) == (4, 2, 3)
    assert account.missing == ("Swing/gone", "Diving/d")
    assert account.empty_classes == ("Diving",)
    assert str(account) == "2 of 4 listed files found, 2 of 3 classes"
    records = label_records(located, ["Swing", "Archery"])
    assert [(record.id, record.label, record.group) for record in records] == [
        ("Swing/a", 0, "SWING/A.AVI"),
        ("Archery/c", 1, "ARCHERY/C.AVI"),
    ]
    assert label_records(located, ["Archery"])[0].label == 0
    assert len(label_records(located, ["Archery"])) == 1


def test_choosing_classes():
    assert choose_classes(None, ["a", "b", "c"], {"c", "a"}) == ("a", "c")
    assert choose_classes(["c", "b"], ["a", "b", "c"], {"c"}) == ("c", "b")
    with pytest.raises(UserError, match=r"d unknown; choose from a, b, c"):
        choose_classes(["a", "d"], ["a", "b", "c"], ())
    with pytest.raises(UserError, match="twice"):
        choose_classes(["a", "a"], ["a"], ())


def test_entries_with_several_classes_or_none():
    several = Entry("a.mp4", ("Swing", "Archery")), Entry("b.mp4", ()), Entry("c.mp4", None), Entry("d.mp4", "Boxing")
    located = {entry: entry.name for entry in several}
    assert label_records(located, ["Archery", "Boxing", "Swing"]).labels == [(0, 2), (), None, 1]
    assert label_records(located, ["Swing"]).labels == [(0,), (), None]


def test_segments_are_named_by_their_seconds():
    first, second = Entry("a.mp4", "x", None, 0.0, 2.5), Entry("a.mp4", "y", None, 2.5)
    assert (first.id, second.id) == ("a@0.0-2.5", "a@2.5-")
    table = label_records({first: "a.mp4", second: "a.mp4"}, ["x", "y"])
    assert table.groups == ["a", "a"]  # two moments of one recording
    assert [(r.start, r.end) for r in table] == [(0.0, 2.5), (2.5, None)]


def test_two_entries_that_lead_to_one_file(tmp_path):
    touch(tmp_path, "A/1.mp4")
    files = VideoFiles(tmp_path)
    with pytest.raises(UserError, match=r"1.mp4: listed twice, as A/1.avi and as a/1.mp4"):
        locate([Entry("A/1.avi", "A"), Entry("a/1.mp4", "A")], lambda entry: files.find(entry.name))


def test_a_catalogue_of_parts():
    parts = {
        "train": [Entry(f"{c}/{i}", c, f"{c}{i // 2}") for c in ("b", "a", "c") for i in range(8)],
        "test": [Entry("b/9", "b"), Entry("c/9", "c"), Entry("d/9", "d")],
    }
    on_disk = {entry.name for entries in parts.values() for entry in entries if entry.classes in ("a", "b")}
    catalogue = build_catalogue(
        parts, lambda entry: entry.name if entry.name in on_disk else None, ["d", "b", "a", "c"], None, SplitPlan(0.25)
    )
    assert catalogue.class_names == ("b", "a")
    assert {split: len(records) for split, records in catalogue.records.items()} == {"train": 12, "val": 4, "test": 1}
    assert catalogue.accounts["val"] == catalogue.accounts["train"]
    assert str(catalogue.accounts["train"]) == "16 of 24 listed files found, 2 of 4 classes"
    assert catalogue.accounts["test"].missing == ("c/9", "d/9")


def test_the_order_of_classes():
    numbers = {"train": [Entry("a", "10"), Entry("b", "9")], "test": [Entry("c", ("1", "2"))]}
    assert in_order(numbers) == ("1", "2", "9", "10")
    assert in_order({"all": [Entry("a", "10"), Entry("b", "9"), Entry("c", "x")]}) == ("10", "9", "x")
