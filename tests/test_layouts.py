"""Every datamodule on a tiny data set in its layout, and what it says of another one."""

from __future__ import annotations

import inspect
import os

import pytest
from layouts import LAYOUTS

import datamodules
from datamodules import VideoDataModule
from temporal_attn.types import UserError

NAMES = sorted(LAYOUTS)


def make(name, options, **more):
    return getattr(datamodules, name)(**options, **more)


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """Constructor arguments of every datamodule, for the data set written for it."""
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in LAYOUTS.items()}


def test_every_datamodule_of_files_has_a_layout():
    public = {name for name in datamodules.__all__ if not inspect.isabstract(getattr(datamodules, name))}
    assert public - {"SyntheticDataModule", "UCF101DataModule"} == set(LAYOUTS)  # these have tests of their own
    assert all(issubclass(getattr(datamodules, name), VideoDataModule) for name in public)


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_is_read(name, disks):
    catalogue = make(name, disks[name], val_fraction=0.2).catalogue
    assert len(catalogue.class_names) == 3
    records = catalogue.records
    assert all(set(records[split].labels) == {0, 1, 2} for split in ("train", "val", "test"))
    assert len({r.path for split in records.values() for r in split}) == sum(map(len, records.values()))
    assert all(os.path.exists(path) for split in records.values() for path in split.paths)
    groups = [set(split.groups) for split in records.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert catalogue.accounts["train"].missing == ()
    assert catalogue.accounts["test"].found == catalogue.accounts["test"].listed


@pytest.mark.parametrize("name", NAMES)
def test_labels_follow_the_classes_asked_for(name, disks):
    every = make(name, disks[name]).catalogue
    chosen = [every.class_names[2], every.class_names[0]]
    some = make(name, disks[name], classes=chosen).catalogue
    assert some.class_names == tuple(chosen)
    before = {r.path: every.class_names[r.label] for part in every.records.values() for r in part}
    for split in some.records.values():
        assert {before[r.path] for r in split} == set(chosen)
        assert all(before[r.path] == chosen[r.label] for r in split)
    with pytest.raises(UserError, match="juggling unknown"):
        _ = make(name, disks[name], classes=["juggling"]).catalogue


@pytest.mark.parametrize("name", NAMES)
def test_another_layout_is_shown_beside_the_expected_one(name, disks, tmp_path):
    (tmp_path / "other.mkv").touch()
    data = make(name, {**disks[name], "root": str(tmp_path)})
    with pytest.raises(UserError) as error:
        data.setup("fit")
    said = str(error.value)
    assert said.startswith(f"{tmp_path}: ")
    assert "expected " in said
    assert "found videos such as other.mkv (1 in all)" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_named(name, disks, tmp_path):
    for argument, value in disks[name].items():
        gone = tmp_path / "gone"
        with pytest.raises(UserError, match="gone"):
            make(name, {**disks[name], argument: str(gone)}).setup("fit")
        assert value != str(gone)


@pytest.mark.parametrize("name", NAMES)
def test_links_out_of_the_root_need_permission(name, disks, tmp_path):
    root = disks[name]["root"]
    os.mkdir(tmp_path / "root")
    for entry in os.listdir(root):
        if not entry.endswith(".csv"):
            os.symlink(os.path.join(root, entry), tmp_path / "root" / entry)
    linked = {**disks[name], "root": str(tmp_path / "root")}
    with pytest.raises(UserError, match=r"a link to .*allow_outside: true"):
        make(name, linked).setup("fit")
    allowed = make(name, linked, allow_outside=True)
    assert len(allowed.catalogue.records["train"]) == len(make(name, disks[name]).catalogue.records["train"])


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_checked_at_once(name, disks):
    with pytest.raises(UserError, match="val_fraction is 1"):
        make(name, disks[name], val_fraction=1.0)
    with pytest.raises(UserError, match="seed is -1"):
        make(name, disks[name], seed=-1)
