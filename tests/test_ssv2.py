from __future__ import annotations

import json

import pytest
from layouts import write_ssv2

from datamodules import SSv2DataModule
from datamodules.records import read_ssv2
from temporal_attn.types import UserError


def change(path, content):
    path.write_text(json.dumps(content))


def test_templates_lose_their_brackets(tmp_path):
    write_ssv2(tmp_path)
    names, parts = read_ssv2(tmp_path / "labels")
    assert names[2] == "Putting something next to something else"
    assert [len(parts[part]) for part in ("train", "val", "test")] == [12, 3, 3]
    assert {entry.classes for entry in parts["train"]} == set(names)
    assert parts["train"][0].name == "0"


def test_the_test_has_labels_only_where_they_are_given(tmp_path):
    write_ssv2(tmp_path)
    labels = tmp_path / "labels"
    names, parts = read_ssv2(labels)
    assert [entry.classes for entry in parts["test"]] == list(names)
    (labels / "test-answers.csv").unlink()
    assert [entry.classes for entry in read_ssv2(labels)[1]["test"]] == [None] * 3
    (labels / "test-answers.csv").write_text("5;Juggling\n")
    with pytest.raises(UserError, match=r"test-answers.csv, line 1: expected '<id>;<class>'"):
        read_ssv2(labels)


def test_unlabelled_videos_can_be_predicted(tmp_path):
    options = write_ssv2(tmp_path)
    (tmp_path / "labels" / "test-answers.csv").unlink()
    data = SSv2DataModule(**options, test_part="test")
    data.setup("predict")
    assert data.predict_dataset.records[0].label is None
    assert len(data.predict_dataset) == 3


def test_files_may_carry_the_long_name(tmp_path):
    options = write_ssv2(tmp_path)
    for path in (tmp_path / "labels").glob("*.json"):
        path.rename(path.with_name(f"something-something-v2-{path.name}"))
    assert len(SSv2DataModule(**options).class_names) == 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels.json", {"a": "0", "b": "2"}, "labels.json: expected"),
        ("labels.json", ["a"], "labels.json: expected"),
        ("train.json", {}, "train.json: expected"),
        ("train.json", [{"template": "Moving [something] up"}], "train.json, entry 1: no 'id'"),
        ("train.json", [{"id": "1"}], "train.json, entry 1: no 'template'"),
        ("train.json", [{"id": "1", "template": "Juggling [something]"}], "'Juggling something' is no class"),
        ("train.json", [{"id": "1", "template": "Moving [something] up"}] * 2, "entry 2: 1 is listed twice"),
    ],
)
def test_malformed_files(tmp_path, name, content, said):
    write_ssv2(tmp_path)
    change(tmp_path / "labels" / name, content)
    with pytest.raises(UserError) as error:
        read_ssv2(tmp_path / "labels")
    assert said in str(error.value)
