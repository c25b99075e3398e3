from __future__ import annotations

import json

import pytest
from layouts import write_diving48

from datamodules import Diving48DataModule
from datamodules.records import read_diving48
from temporal_attn.types import UserError


def test_classes_and_recordings(tmp_path):
    write_diving48(tmp_path)
    names, parts = read_diving48(tmp_path / "annotations")
    assert names[0] == "Back 15som 05Twis FREE"
    assert (len(parts["train"]), len(parts["test"])) == (15, 3)
    assert parts["train"][1]._asdict() == {
        "name": "-dive_1_00000",
        "classes": names[0],
        "group": "-dive_1",
        "start": None,
        "end": None,
        "frames": None,
    }


def test_validation_takes_whole_recordings(tmp_path):
    records = Diving48DataModule(**write_diving48(tmp_path)).catalogue.records
    assert (len(set(records["val"].groups)), len(records["val"])) == (1, 3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("Diving48_vocab.json", {"a": 1}, "Diving48_vocab.json: expected"),
        ("Diving48_V2_train.json", [], "Diving48_V2_train.json: expected"),
        ("Diving48_V2_test.json", [{"vid_name": "a_1"}], "Diving48_V2_test.json, entry 1: expected"),
        ("Diving48_V2_test.json", [{"vid_name": "a_1", "label": 3}], "entry 1: label 3 is outside 0 … 2"),
        ("Diving48_V2_test.json", [{"vid_name": "a_1", "label": 0}] * 2, "entry 2: a_1 is listed twice"),
    ],
)
def test_malformed_files(tmp_path, name, content, said):
    write_diving48(tmp_path)
    (tmp_path / "annotations" / name).write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_diving48(tmp_path / "annotations")
    assert said in str(error.value)


def test_one_version_at_a_time(tmp_path):
    options = write_diving48(tmp_path)
    (tmp_path / "annotations" / "Diving48_train.json").write_text("[]")
    with pytest.raises(UserError, match=r"found Diving48_V2_train.json, Diving48_train.json"):
        Diving48DataModule(**options).setup("fit")
