from __future__ import annotations

import shutil

import pytest

from datamodules import UCF101DataModule
from temporal_attn.types import UserError

CLASSES = ("Archery", "Diving", "HandstandPushups", "Swing")
STEMS = {"HandstandPushups": "HandStandPushups"}  # as the official lists spell it
TRAIN_GROUPS, TEST_GROUPS = range(8, 14), range(1, 3)


def listed(class_name, group, clip=1):
    return f"{class_name}/v_{STEMS.get(class_name, class_name)}_g{group:02d}_c{clip:02d}.avi"


@pytest.fixture
def disk(tmp_path):
    """Lists of four classes; on disk are Archery, HandstandPushups and half of Swing, as empty .mp4 files."""
    splits, root = tmp_path / "splits", tmp_path / "videos"
    splits.mkdir()
    (splits / "classInd.txt").write_bytes("".join(f"{i} {c}\r\n" for i, c in enumerate(CLASSES, 1)).encode())
    train = [f"{listed(c, g, k)} {i}\r\n" for i, c in enumerate(CLASSES, 1) for g in TRAIN_GROUPS for k in (1, 2)]
    test = [f"{listed(c, g)}\r\n" for c in CLASSES for g in TEST_GROUPS]
    (splits / "trainlist01.txt").write_bytes("".join(train).encode())
    (splits / "testlist01.txt").write_bytes("".join(test).encode())
    for line in train + test:
        name = line.split()[0]
        class_name, group = name.split("/")[0], int(name.split("_g")[1][:2])
        if class_name == "Diving" or (class_name == "Swing" and group > 10):
            continue
        (root / class_name).mkdir(parents=True, exist_ok=True)
        (root / name).with_suffix(".mp4").touch()
    return tmp_path


def make(disk, **options):
    return UCF101DataModule(str(disk / "videos"), str(disk / "splits"), **options)


def groups(dataset):
    return {record.group for record in dataset.records}


def test_classes_are_those_on_disk_in_official_order(disk):
    data = make(disk)
    assert data.class_names == ["Archery", "HandstandPushups", "Swing"]
    assert data.num_classes == 3
    chosen = make(disk, classes=["Swing", "Diving", "Archery"])
    assert chosen.class_names == ["Swing", "Diving", "Archery"]
    chosen.setup("test")
    assert {r.label for r in chosen.test_dataset.records} == {0, 2}
    with pytest.raises(UserError, match="Boxing unknown; choose from Archery"):
        _ = make(disk, classes=["Boxing"]).num_classes


def test_records(disk):
    data = make(disk, val_groups=[12, 13])
    data.setup("fit")
    record = next(r for r in data.train_dataset.records if r.label == 1)
    assert record.id == "HandstandPushups/v_HandStandPushups_g08_c01"
    assert record.path == str(disk / "videos" / "HandstandPushups" / "v_HandStandPushups_g08_c01.mp4")
    assert record.group == "HandstandPushups_g08"


def test_validation_takes_the_groups_asked_for(disk):
    data = make(disk, val_groups=[12, 13])
    data.setup("fit")
    assert groups(data.val_dataset) == {f"{c}_g{g}" for c in ("Archery", "HandstandPushups") for g in (12, 13)}
    assert not groups(data.train_dataset) & groups(data.val_dataset)
    assert len(data.train_dataset) + len(data.val_dataset) == 2 * 6 * 2 + 3 * 2


def test_validation_groups_can_be_drawn(disk):
    data = make(disk, val_fraction=0.34)
    data.setup("fit")
    assert len(groups(data.val_dataset)) == 2 + 2 + 1
    assert not groups(data.train_dataset) & groups(data.val_dataset)
    assert {r.label for r in data.val_dataset.records} == {0, 1, 2}
    other = make(disk, val_fraction=0.34, seed=5)
    assert groups(other.val_dataset) != groups(data.val_dataset)


def test_account(disk, caplog):
    caplog.set_level("INFO", logger="datamodules")
    data = make(disk)
    data.setup("fit")
    assert "30 of 48 listed files found, 3 of 4 classes" in caplog.text
    assert "readers of 30 files" in caplog.text
    assert data.account.empty_classes == ("Diving",)
    assert len(data.account.missing) == 18
    assert "Swing/v_Swing_g11_c01" in data.account.missing
    data.setup("test")
    assert (data.account.found, data.account.listed) == (6, 8)


def test_test_needs_no_training_clips(disk):
    for path in (disk / "videos").glob("*/*"):
        if "_g01_" not in path.name:
            path.unlink()
    data = make(disk)
    data.setup("test")
    assert groups(data.test_dataset) == {"Archery_g01", "HandstandPushups_g01", "Swing_g01"}
    with pytest.raises(UserError, match=r"trainlist01.txt.*expected <root>/<class>/v_"):
        data.setup("fit")


def test_fit_needs_no_test_clips(disk):
    for path in (disk / "videos").glob("*/*_g0[12]_*"):
        path.unlink()
    data = make(disk)
    data.setup("fit")
    assert len(data.train_dataset) > 0
    with pytest.raises(UserError, match=r"none of the clips in .*testlist01.txt is here"):
        data.setup("test")


def test_what_is_missing_is_named(disk):
    with pytest.raises(UserError, match="gone: no such folder"):
        UCF101DataModule(str(disk / "gone"), str(disk / "splits")).setup("fit")
    with pytest.raises(UserError, match=r"gone.classInd.txt: No such file"):
        UCF101DataModule(str(disk / "videos"), str(disk / "gone")).setup("fit")
    with pytest.raises(UserError, match="trainlist02"):
        make(disk, fold=2).setup("fit")
    with pytest.raises(UserError, match="fold is 4"):
        make(disk, fold=4)
    with pytest.raises(UserError, match="val_groups"):
        make(disk, val_groups=[99]).setup("validate")
    shutil.rmtree(disk / "videos")
    (disk / "videos").mkdir()
    with pytest.raises(UserError, match=r"none of the clips in .* is here"):
        _ = make(disk).class_names


@pytest.mark.shared_data
def test_the_real_lists_on_real_files(shared_data):
    data = UCF101DataModule(
        str(shared_data / "ucf101_20"), str(shared_data / "splits" / "ucf101"), val_groups=[22, 23, 24, 25]
    )
    data.setup("fit")
    assert str(data.account) == "1,814 of 9,537 listed files found, 20 of 101 classes"
    assert data.num_classes == 20
    assert len(data.train_dataset) + len(data.val_dataset) == 1_814
    assert {group[-3:] for group in groups(data.val_dataset)} == {"g22", "g23", "g24", "g25"}
    with pytest.raises(UserError, match="testlist01"):
        data.setup("test")
