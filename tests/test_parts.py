from __future__ import annotations

import pytest

from datamodules.records.parts import part_called, part_in_name


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("Train", "train"),
        ("TRAINING", "train"),
        ("dev", "val"),
        ("validate", "val"),
        ("Testing", "test"),
        ("cat", None),
    ],
)
def test_words(word, part):
    assert part_called(word) == part


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"),
        ("k400_latest_train", "train"),
        ("v2-Validation", "val"),
        ("kinetics400_val_list_videos", "val"),
        ("trainlist01", "train"),
        ("test2", "test"),
        ("latest", None),
        ("values", None),
        ("strain", None),
        ("contested", None),
    ],
)
def test_names_of_files(name, part):
    assert part_in_name(name) == part
