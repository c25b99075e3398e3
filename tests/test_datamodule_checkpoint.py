"""Class names and clips that come with a checkpoint go before those of the data set."""

from __future__ import annotations

import logging
import shutil

import pytest

from datamodules import FolderDataModule
from datamodules.options import ClipOptions
from temporal_attn.types import UserError
from tests.foreign_modules import CLASSES, CLIP, Foreign, Remembering, class_folders, make, make_trainer, names


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path)


@pytest.fixture
def checkpoint(root, tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.fit(Remembering(), datamodule=make(root))
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    return str(tmp_path / "trained.ckpt")


def test_labels_follow_the_checkpoint_when_a_class_is_gone(root, tmp_path, checkpoint, caplog):
    before, after = Remembering(), Remembering()
    make_trainer(tmp_path).test(before, datamodule=make(root), ckpt_path=checkpoint, verbose=False)
    shutil.rmtree(root / "archery")
    data = make(root)
    assert data.class_names == ["diving", "swing"]
    make_trainer(tmp_path).test(after, datamodule=data, ckpt_path=checkpoint, verbose=False)
    assert data.class_names == list(CLASSES)
    assert data.num_classes == 3

    def items(module):
        return {
            name: (int(batch["label"][row]), batch["frame_index"][row].tolist(), batch["video"][row].sum().item())
            for batch in module.seen["test"]
            for row, name in enumerate(batch["video_id"])
        }

    assert items(after) == {name: item for name, item in items(before).items() if not name.startswith("archery")}
    assert "1 classes of the model have no clips: archery" in caplog.text
    assert data.account.empty_classes == ("archery",)
    assert data.account.num_classes == 3


def test_a_class_that_the_checkpoint_does_not_know(root, tmp_path, checkpoint):
    shutil.copytree(root / "swing", root / "boxing")
    with pytest.raises(UserError, match=r"does not know the classes boxing; leave them out with `classes`"):
        make_trainer(tmp_path).test(Remembering(), datamodule=make(root), ckpt_path=checkpoint, verbose=False)
    module = Remembering()
    data = make(root, classes=["swing", "archery"])
    make_trainer(tmp_path).test(module, datamodule=data, ckpt_path=checkpoint, verbose=False)
    assert {int(label) for batch in module.seen["test"] for label in batch["label"]} == {0, 2}


def test_a_resumed_run_keeps_its_labels(root, tmp_path, checkpoint):
    shutil.rmtree(root / "archery")
    module = Remembering()
    make_trainer(tmp_path, max_epochs=2).fit(module, datamodule=make(root), ckpt_path=checkpoint)
    assert {int(label) for batch in module.seen["train"] for label in batch["label"]} == {1, 2}


def test_evaluation_samples_as_the_checkpoint_was_trained(root, tmp_path, checkpoint, caplog):
    caplog.set_level(logging.INFO, logger="datamodules")
    data = FolderDataModule(str(root), clip=ClipOptions(num_frames=3, resize=32, crop=32))
    module = Remembering()
    make_trainer(tmp_path).test(module, datamodule=data, ckpt_path=checkpoint, verbose=False)
    assert module.seen["test"][0]["video"].shape[1:] == (2, 3, 16, 16)
    assert data.clip_spec == CLIP.spec()
    assert "num_frames 2 instead of 3" in caplog.text
    fresh = Foreign()
    make_trainer(tmp_path).fit(fresh, datamodule=data)
    assert fresh.seen["train"][0]["video"].shape[1:] == (3, 3, 32, 32)


def test_prediction_with_a_checkpoint_needs_no_data_set(root, tmp_path, checkpoint):
    data = FolderDataModule("gone", predict_paths=[str(root / "swing" / "*.mp4")])
    module = Remembering()
    make_trainer(tmp_path).predict(module, datamodule=data, ckpt_path=checkpoint)
    assert len(names(module.seen["predict"])) == 5
    assert module.seen["predict"][0]["video"].shape[1:] == (2, 3, 16, 16)


def test_prediction_without_paths_is_on_the_test_part(root, tmp_path, checkpoint):
    module, data = Remembering(), make(root)
    make_trainer(tmp_path).predict(module, datamodule=data, ckpt_path=checkpoint)
    assert names(module.seen["predict"]) == [record.id for record in data.test_dataset.records]
