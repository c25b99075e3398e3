"""Videos that cannot be read, in a Trainer: counted once, named, never replaced, and too many stop training."""

from __future__ import annotations

from unittest import mock

import pytest

from datamodules.base import TooManyFailures
from datamodules.manifest import scan
from tests.foreign_modules import Foreign, class_folders, make, make_trainer, names
from tests.videos import write_empty, write_text


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path)


def test_failures_are_counted_once_and_never_replaced(root, tmp_path, caplog):
    data = make(root)
    broken = data.test_dataset.records[1]
    write_text(broken.path)
    good = [record.id for record in data.test_dataset.records if record != broken]
    module = Foreign()
    for _ in range(2):
        make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert names(module.seen["test"]) == 2 * good
    assert list(data.failures["test"]) == [broken.id]
    assert data.failures["train"] == {}
    assert [record.message.count(broken.path) for record in caplog.records if "cannot read" in record.message] == [1]


def test_evaluation_never_stops(root, tmp_path):
    for path in root.glob("*/*.mp4"):
        write_empty(path)
    data, module = make(root), Foreign()
    make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert len(data.failures["test"]) == len(data.test_dataset)
    assert {batch["video"].shape for batch in module.seen["test"]} == {(0, 2, 3, 16, 16)}


def test_too_many_failures_stop_training(root, tmp_path):
    data = make(root)
    for record in data.train_dataset.records[:6]:
        write_empty(record.path)
    with pytest.raises(TooManyFailures, match="6 training videos cannot be read") as error:
        make_trainer(tmp_path, max_epochs=3).fit(Foreign(), datamodule=data)
    assert all(record.path in str(error.value) for record in data.train_dataset.records[:6])


def test_a_few_failures_do_not_stop_training(root, tmp_path):
    data, module = make(root, batch_size=1), Foreign()
    broken = data.train_dataset.records[:5]
    for record in broken:
        write_empty(record.path)
    make_trainer(tmp_path, max_epochs=2).fit(module, datamodule=data)
    assert set(data.failures["train"]) == {record.id for record in broken}
    assert len(names(module.seen["train"])) == 2 * 4


def test_a_manifest_in_the_cache_folder_is_used(root, tmp_path):
    bad = root / "swing" / "v_g00_c01.mp4"
    write_text(bad)
    scan(sorted(root.glob("*/*.mp4")), tmp_path / "cache")
    data, module = make(root, val_fraction=0.0, test_fraction=0.0, cache_dir=str(tmp_path / "cache")), Foreign()
    with mock.patch("datamodules.decoding.SandboxedReader", side_effect=AssertionError("a known file in a sandbox")):
        make_trainer(tmp_path).fit(module, datamodule=data)
    assert len(names(module.seen["train"])) + len(data.failures["train"]) == 14  # in batches of 2
    for video in data.failures["train"].values():
        assert video["path"] == str(bad)
        assert "as the manifest says" in video["reason"]
