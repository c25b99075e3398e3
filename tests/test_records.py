from __future__ import annotations

import os
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.files import VideoFiles
from datamodules.records import (
    Entry,
    choose_classes,
    label_records,
    locate,
    parse_ucf101_name,
    read_class_index,
    read_path_list,
    read_ucf101_list,
    split_by_groups,
    take_account,
)
from temporal_attn.types import UserError, VideoRecord

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
    expected = [Entry(archery, "Archery"), Entry(pushups, "HandstandPushups")]
    assert read_ucf101_list(write(tmp_path / "train.txt", f"{archery} 1", f"{pushups} 2"), CLASSES) == expected
    assert read_ucf101_list(write(tmp_path / "test.txt", archery, pushups), CLASSES) == expected
    other_case = pushups.replace("HandstandPushups/", "HandStandPushups/")
    assert read_ucf101_list(write(tmp_path / "case.txt", other_case), CLASSES)[0].class_name == "HandstandPushups"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Archery/v_Archery_g08_c02.avi 0", "label 0 is outside 1 … 3"),
        ("Archery/v_Archery_g08_c02.avi 4", "label 4 is outside 1 … 3"),
        ("Archery/v_Archery_g08_c02.avi 3", "label 3 is Swing"),
        ("Archery/v_Archery_g08_c02.avi one", "expected '<class>/v_<class>_gNN_cNN.avi'"),
        ("Archery/holiday.avi 1", "expected '<class>/v_<class>_gNN_cNN.avi'"),
        ("v_Archery_g08_c02.avi 1", "expected '<class>/<video>'"),
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
    with pytest.raises(UserError, match=r"a/one\.mp4 is listed twice"):
        read_path_list(twice)


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
    assert {entry.class_name for entry in train} == {entry.class_name for entry in test} == set(classes)


def test_lists_are_resolved_without_asking_for_each_file(tmp_path, monkeypatch):
    touch(tmp_path, *(f"A/{i}.mp4" for i in range(50)))
    files = VideoFiles(tmp_path)
    monkeypatch.setattr(os, "stat", None)  # no more questions to the disk
    located = locate([Entry(f"A/{i}.avi", "A") for i in range(60)], files)
    assert sum(path is not None for path in located.values()) == 50


def test_account_and_labels(tmp_path):
    touch(tmp_path, "Swing/a.mp4", "Swing/b.mp4", "Archery/c.mp4")
    names = ["Swing/a.avi", "Swing/gone.avi", "Archery/c.avi", "Diving/d.avi"]
    located = locate([Entry(name, name.split("/")[0]) for name in names], VideoFiles(tmp_path))
    account = take_account(located, ["Archery", "Diving", "Swing"])
    assert (account.listed, account.found, account.num_classes) == (4, 2, 3)
    assert account.missing == ("Swing/gone", "Diving/d")
    assert account.empty_classes == ("Diving",)
    assert str(account) == "2 of 4 listed files found, 2 of 3 classes"
    records = label_records(located, ["Swing", "Archery"], group_of=lambda video_id: video_id.upper())
    assert [(record.id, record.label, record.group) for record in records] == [
        ("Swing/a", 0, "SWING/A"),
        ("Archery/c", 1, "ARCHERY/C"),
    ]
    assert label_records(located, ["Archery"], str)[0].label == 0
    assert len(label_records(located, ["Archery"], str)) == 1


def test_choosing_classes():
    assert choose_classes(None, ["a", "b", "c"], {"c", "a"}) == ("a", "c")
    assert choose_classes(["c", "b"], ["a", "b", "c"], {"c"}) == ("c", "b")
    with pytest.raises(UserError, match=r"d unknown; choose from a, b, c"):
        choose_classes(["a", "d"], ["a", "b", "c"], ())
    with pytest.raises(UserError, match="twice"):
        choose_classes(["a", "a"], ["a"], ())


# Splits

classes_of_groups = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def make_records(groups_per_class, clips=3):
    return [
        VideoRecord(f"{label}/g{group}_c{clip}", "", label, f"{label}_g{group}")
        for label, groups in enumerate(groups_per_class)
        for group in range(groups)
        for clip in range(clips)
    ]


def by_class(records):
    groups = defaultdict(set)
    for record in records:
        groups[record.label].add(record.group)
    return groups


@given(classes_of_groups, st.floats(0, 0.49), st.floats(0, 0.49), st.integers(0, 99))
def test_splits_keep_groups_whole_and_classes_everywhere(groups_per_class, val, test, seed):
    records = make_records(groups_per_class)
    split = split_by_groups(records, val, test, seed)
    assert sorted(r.id for part in split.values() for r in part) == sorted(r.id for r in records)
    groups = {name: by_class(part) for name, part in split.items()}
    for label, count in enumerate(groups_per_class):
        train_groups, val_groups, test_groups = (groups[name][label] for name in ("train", "val", "test"))
        assert len(train_groups) + len(val_groups) + len(test_groups) == count  # no group twice
        assert train_groups
        assert bool(val_groups) == (val > 0 and count > 1)
        assert bool(test_groups) == (test > 0 and count > 1 + len(val_groups))
        if count > 3:
            assert abs(len(val_groups) - val * count) <= 1


@given(st.lists(st.integers(2, 12), min_size=2, max_size=4), st.integers(0, 99))
def test_a_class_is_split_alike_whatever_else_is_there(groups_per_class, seed):
    records = make_records(groups_per_class)
    alone = [record for record in records if record.label == 1]
    whole, part = split_by_groups(records, 0.25, 0.25, seed), split_by_groups(alone, 0.25, 0.25, seed)
    for name in whole:
        assert [record for record in whole[name] if record.label == 1] == list(part[name])


def test_another_seed_is_another_split():
    records = make_records([10, 10])
    assert split_by_groups(records, 0.3, seed=0) == split_by_groups(records, 0.3, seed=0)
    assert split_by_groups(records, 0.3, seed=0)["val"] != split_by_groups(records, 0.3, seed=1)["val"]


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0), (1, 0), (0, 1.5), (0.5, 0.5)])
def test_impossible_fractions(val, test):
    with pytest.raises(UserError, match="fraction"):
        split_by_groups(make_records([3]), val, test)
