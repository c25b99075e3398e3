from __future__ import annotations

import os

import pytest
from layouts import write_jester

from datamodules import JesterDataModule
from datamodules.records import read_jester
from temporal_attn.types import UserError


def test_lists(tmp_path):
    write_jester(tmp_path)
    names, parts = read_jester(tmp_path)
    assert names == ("Swiping Left", "Swiping Right", "No gesture")
    assert [len(parts[part]) for part in ("train", "val", "test")] == [12, 3, 3]
    assert {entry.classes for entry in parts["train"]} == set(names)
    assert {entry.classes for entry in parts["test"]} == {None}


def test_quotes_carriage_returns_and_spaces(tmp_path):
    write_jester(tmp_path)
    text = '\ufeff"7" ; "Swiping Left" \r\n8;No gesture\r\n\r\n'
    (tmp_path / "jester-v1-train.csv").write_bytes(text.encode())
    entries = read_jester(tmp_path)[1]["train"]
    assert [(entry.name, entry.classes) for entry in entries] == [("7", "Swiping Left"), ("8", "No gesture")]


def test_folders_of_images_are_videos(tmp_path):
    data = JesterDataModule(**write_jester(tmp_path), val_fraction=0.3)
    paths = data.catalogue.records["train"].paths
    assert all(os.path.isdir(path) for path in paths)
    assert os.path.basename(paths[0]) in {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("9", "expected '<id>;<class>'"),
        (";No gesture", "expected '<id>;<class>'"),
        ("9;Juggling", "'Juggling' is no class in labels.csv"),
        ("0;No gesture", "0 is listed twice, first in "),
    ],
)
def test_malformed_lines(tmp_path, line, said):
    write_jester(tmp_path)
    path = tmp_path / "jester-v1-train.csv"
    path.write_text(f"0;Swiping Left\n{line}\n")
    with pytest.raises(UserError) as error:
        read_jester(tmp_path)
    assert f"{path}, line 2: " in str(error.value)
    assert said in str(error.value)
