from __future__ import annotations

import pytest
from layouts import write_kinetics

from datamodules import KineticsDataModule
from datamodules.records import Entry, read_kinetics
from temporal_attn.types import UserError

HEADER = "label,youtube_id,time_start,time_end,split,is_cc"


def write(path, *lines, end="\n"):
    path.write_text("".join(line + end for line in lines), encoding="utf-8-sig", newline="")
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_file_for_all_parts(tmp_path, end):
    path = write(
        tmp_path / "kinetics.csv",
        HEADER,
        '"testifying",---QUuC4vJs,84,94,validate,0',
        "air drumming,-0bt_,9,19,train,1",
        '"massaging person\'s head",A-,100,110,train,0',
        "testifying,x,0,10,test,0",
        end=end,
    )
    names, parts = read_kinetics(path)
    assert names == ("air drumming", "massaging person's head", "testifying")
    assert parts == {
        "val": [Entry("---QUuC4vJs_000084_000094", "testifying", "---QUuC4vJs")],
        "train": [
            Entry("-0bt__000009_000019", "air drumming", "-0bt_"),
            Entry("A-_000100_000110", "massaging person's head", "A-"),
        ],
        "test": [Entry("x_000000_000010", "testifying", "x")],
    }


def test_a_file_a_part_and_a_test_without_labels(tmp_path):
    write(tmp_path / "kinetics700_train.csv", "label,youtube_id,time_start,time_end", "a,one,1.0,11.0")
    write(tmp_path / "val.csv", "label,youtube_id,time_start,time_end", "b,two,2,12")
    write(tmp_path / "test.csv", "youtube_id,time_start,time_end", "three,3,13")
    names, parts = read_kinetics(tmp_path)
    assert names == ("a", "b")
    assert parts["train"] == [Entry("one_000001_000011", "a", "one")]
    assert parts["test"] == [Entry("three_000003_000013", None, "three")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,one,x,11,train,0", "'x' is no time; expected whole seconds"),
        ("a,one,1.5,11,train,0", "'1.5' is no time"),
        ("a,one,1,11,holdout,0", "the split is none of train, validate and test"),
        ("a,one,1,11,train", "expected 6 values, found 5"),
        ("b,zero,0,10,train,0", "zero_000000_000010 is listed twice"),
    ],
)
def test_malformed_rows(tmp_path, line, said):
    path = write(tmp_path / "kinetics.csv", HEADER, "a,zero,0,10,train,0", line)
    with pytest.raises(UserError) as error:
        read_kinetics(path)
    assert f"{path}, line 3: " in str(error.value)
    assert said in str(error.value)


def test_other_files(tmp_path):
    with pytest.raises(UserError, match=r"holds no .csv file; expected train.csv"):
        read_kinetics(tmp_path)
    write(tmp_path / "train.csv", "id,class", "a,b")
    with pytest.raises(UserError, match=r"no column youtube_id, time_start, time_end; .* found id, class"):
        read_kinetics(tmp_path)


def test_which_part_tests(tmp_path):
    options = write_kinetics(tmp_path)
    groups = {
        split: set(r.groups) for split, r in KineticsDataModule(**options, val_fraction=0.3).catalogue.records.items()
    }
    assert groups["test"] == {"-Ab_4xyz0", "-Ab_4xyz1", "-Ab_4xyz2"}  # the official validation part
    assert len(groups["val"]) == 3
    official = KineticsDataModule(**options, test_part="test").catalogue.records
    assert set(official["val"].groups) == groups["test"]
    assert set(official["test"].groups) == {"-Ab_5xyz0", "-Ab_5xyz1", "-Ab_5xyz2"}
    assert set(official["train"].groups) == groups["train"] | groups["val"]
    with pytest.raises(UserError, match="test_part is 'holdout'"):
        KineticsDataModule(**options, test_part="holdout")


def test_clips_are_found_in_any_folder(tmp_path):
    options = write_kinetics(tmp_path)
    expected = set(KineticsDataModule(**options).catalogue.records["train"].ids)
    root = tmp_path / "videos"
    for clip in list(root.glob("*/*.mp4")):
        clip.rename(root / clip.name)
    (root / "replacement").mkdir()
    next(root.glob("*xyz0_000000*.mp4")).rename(root / "replacement" / "-Ab_0xyz0_000000_000010.mkv")
    assert set(KineticsDataModule(**options).catalogue.records["train"].ids) == expected
