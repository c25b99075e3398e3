"""Datamodules in a Trainer with somebody's module: stages, epochs, resumed runs, workers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.tuner import Tuner

from datamodules import FolderDataModule
from datamodules.dataset import load_clip
from datamodules.options import AugmentOptions, LoaderOptions
from datamodules.records import RecordTable
from temporal_attn.types import UserError
from tests.foreign_modules import CLASSES, CLIP, Foreign, class_folders, make, make_trainer, names


@pytest.fixture
def root(tmp_path):
    return class_folders(tmp_path)


def test_every_stage_with_a_foreign_module(root, tmp_path):
    data, module = make(root, predict_paths=[str(root / "swing")]), Foreign()
    trainer = make_trainer(tmp_path, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data)
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.test(module, datamodule=data, verbose=False)
    predictions = trainer.predict(module, datamodule=data)

    assert len(names(module.seen["train"])) == 8  # 9 in batches of 2, without the rest
    assert sorted(names(module.seen["val"])) == sorted(2 * [record.id for record in data.val_dataset.records])
    assert names(module.seen["test"]) == [record.id for record in data.test_dataset.records]
    assert names(module.seen["predict"]) == [str(root / "swing" / f"v_g{group:02d}_c01.mp4") for group in range(5)]
    assert {int(label) for batch in module.seen["predict"] for label in batch["label"]} == {-1}
    assert sum(map(len, predictions)) == 5
    assert {tuple(batch["video"].shape[1:]) for split in module.seen.values() for batch in split} == {(2, 3, 16, 16)}
    for name in ("train", "val", "test"):
        for batch in module.seen[name]:
            for video_id, label in zip(batch["video_id"], batch["label"].tolist(), strict=True):
                assert video_id.startswith(CLASSES[label])


def test_prediction_on_a_file_sees_the_clip_of_the_test(root, tmp_path):
    data, module = make(root), Foreign()
    make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    for batch in module.seen["test"]:
        for row, record in enumerate(data.test_dataset.records[int(i)] for i in batch["index"]):
            assert torch.equal(load_clip(record.path, data.clip_spec)["video"][0], batch["video"][row])


def test_epochs_differ_and_runs_repeat(root, tmp_path):
    def run(**options):
        module = Foreign()
        data = make(root, val_fraction=0.0, test_fraction=0.4, **options)
        make_trainer(tmp_path, max_epochs=2).fit(module, datamodule=data)
        return module.seen["train"]

    torch.manual_seed(0)
    first = run()
    torch.manual_seed(1)  # the global generator has no say
    again, workers, other = run(), run(num_workers=2), run(seed=1)
    for repeated in (again, workers):
        assert names(repeated) == names(first)
        assert all(torch.equal(a["video"], b["video"]) for a, b in zip(repeated, first, strict=True))
        assert all(torch.equal(a["frame_index"], b["frame_index"]) for a, b in zip(repeated, first, strict=True))
    assert names(first[:4]) != names(first[4:])
    assert names(other) != names(first)


def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(root, tmp_path):
    whole, begun, resumed = Foreign(), Foreign(), Foreign()
    begun.load_state_dict(whole.state_dict())
    make_trainer(tmp_path, max_epochs=3).fit(whole, datamodule=make(root))
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(begun, datamodule=make(root))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    make_trainer(tmp_path, max_epochs=3).fit(resumed, datamodule=make(root), ckpt_path=str(tmp_path / "one.ckpt"))
    later = [batch for batch in whole.seen["train"] if batch["epoch"] > 0]
    assert names(resumed.seen["train"]) == names(later)
    assert all(torch.equal(a["video"], b["video"]) for a, b in zip(resumed.seen["train"], later, strict=True))
    assert torch.equal(whole.head.weight, resumed.head.weight)


class SaveAfter(pl.Callback):
    """Saves a checkpoint after some training batches, counted over all epochs, while workers fetch ahead."""

    def __init__(self, folder, *counts):
        self.folder = folder
        self.counts = counts

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        count = len(module.seen["train"])
        if count in self.counts:
            trainer.save_checkpoint(self.folder / f"{count}.ckpt")


@pytest.mark.parametrize(("count", "num_workers"), [(3, 0), (4, 0), (5, 2)])
def test_a_run_resumed_in_mid_epoch_sees_exactly_the_rest(root, tmp_path, count, num_workers, recwarn):
    whole, resumed = Foreign(), Foreign()
    whole_trainer = make_trainer(tmp_path, max_epochs=3, callbacks=SaveAfter(tmp_path, count))
    whole_trainer.fit(whole, datamodule=make(root, val_fraction=0.0, test_fraction=0.4))
    data = make(root, num_workers, val_fraction=0.0, test_fraction=0.4)
    make_trainer(tmp_path, max_epochs=3).fit(resumed, datamodule=data, ckpt_path=str(tmp_path / f"{count}.ckpt"))
    rest = whole.seen["train"][count:]
    assert len(whole.seen["train"]) == 12
    assert [batch["epoch"] for batch in resumed.seen["train"]] == [batch["epoch"] for batch in rest]
    assert names(resumed.seen["train"]) == names(rest)
    assert all(torch.equal(a["video"], b["video"]) for a, b in zip(resumed.seen["train"], rest, strict=True))
    assert torch.equal(whole.head.weight, resumed.head.weight)
    assert not [warning for warning in recwarn if "not resumable" in str(warning.message)]


def test_a_run_that_dies_in_mid_step_does_that_step_again(root, tmp_path):
    class Dying(Foreign):
        def training_step(self, batch, batch_idx):
            if len(self.seen["train"]) == 2:
                self.trainer.save_checkpoint(tmp_path / "dying.ckpt")
                raise KeyError("stop")
            return super().training_step(batch, batch_idx)

    whole, resumed = Foreign(), Foreign()
    make_trainer(tmp_path).fit(whole, datamodule=make(root))
    with pytest.raises(KeyError):
        make_trainer(tmp_path).fit(Dying(), datamodule=make(root))
    make_trainer(tmp_path).fit(resumed, datamodule=make(root), ckpt_path=str(tmp_path / "dying.ckpt"))
    assert names(resumed.seen["train"]) == names(whole.seen["train"][2:])


def test_another_batch_size_after_a_stop_is_said(root, tmp_path, caplog):
    make_trainer(tmp_path, callbacks=SaveAfter(tmp_path, 1)).fit(Foreign(), datamodule=make(root))
    module = Foreign()
    make_trainer(tmp_path).fit(module, datamodule=make(root, batch_size=3), ckpt_path=str(tmp_path / "1.ckpt"))
    assert "another batch_size" in caplog.text


def test_loading_leaves_the_global_generator_alone(root):
    data = make(root)
    data.setup("fit")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_start_safely_and_stay(root):
    data = make(root, num_workers=2)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert loader.num_workers == 2
        assert loader.multiprocessing_context.get_start_method() == "spawn"
        assert loader.persistent_workers
        assert loader.pin_memory == torch.cuda.is_available()
    assert make(root).train_dataloader().multiprocessing_context is None


def test_the_disk_is_scanned_once(root, monkeypatch):
    data, scans = make(root), []
    monkeypatch.setattr(data, "find_videos", lambda: scans.append(1) or FolderDataModule.find_videos(data))
    assert data.num_classes == 3
    for stage in ("fit", "fit", "validate", "test"):
        data.setup(stage)
    assert data.train_dataset is data.train_dataset
    assert len(scans) == 1


def test_fewer_videos_than_a_batch_still_train(root, tmp_path):
    module = Foreign()
    make_trainer(tmp_path).fit(module, datamodule=make(root, batch_size=64))
    assert len(names(module.seen["train"])) == 9


def test_overfitting_on_a_few_batches(root, tmp_path):
    """Lightning puts a sampler of its own into the loader then."""
    module = Foreign()
    trainer = make_trainer(tmp_path, overfit_batches=1, max_epochs=2)
    trainer.fit(module, datamodule=make(root))
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    trainer = make_trainer(tmp_path, overfit_batches=1, max_epochs=3)
    trainer.fit(module, datamodule=make(root), ckpt_path=tmp_path / "two.ckpt")
    first, second, third = (batch["video_id"] for batch in module.seen["train"])
    assert first == second == third


def test_the_largest_batch_is_searched_for(root, tmp_path):
    data = make(root, batch_size=1)
    trainer = make_trainer(tmp_path, max_epochs=1)
    found = Tuner(trainer).scale_batch_size(Foreign(), datamodule=data, max_trials=2, steps_per_trial=1)
    assert found == data.batch_size == data.loader.batch_size > 1
    assert data.train_dataloader().batch_size == found


def test_set_up_by_hand_is_for_training(root):
    data = make(root)
    data.setup()
    data.setup(None)
    assert len(data.train_dataset) > 0


def test_nothing_held_back_for_validation(root, tmp_path):
    module = Foreign()
    make_trainer(tmp_path).fit(module, datamodule=make(root, val_fraction=0.0, test_fraction=0.0))
    assert len(names(module.seen["train"])) == 14
    assert module.seen["val"] == []
    with pytest.raises(UserError, match="no videos for val"):
        make_trainer(tmp_path).validate(module, datamodule=make(root, val_fraction=0.0), verbose=False)


def test_only_training_is_augmented(root, tmp_path):
    data, module = make(root, augment=AugmentOptions(flip=1.0)), Foreign()
    make_trainer(tmp_path).fit(module, datamodule=data)
    data.setup("validate")
    for batch in module.seen["val"]:
        for row, index in enumerate(batch["index"].tolist()):
            assert torch.equal(batch["video"][row], data.val_dataset[index]["video"])
    batch = module.seen["train"][0]
    whole = data.train_dataset[int(batch["index"][0]), 0]["video"]
    assert whole.shape[-2:] == (24, 36)
    expected = data.augment({"video": whole[None], "seed": batch["seed"][:1]})["video"][0]
    assert torch.equal(batch["video"][0], expected)


class MultiLabel(FolderDataModule):
    """Every video of one class belongs to the next one too."""

    def find_videos(self):
        found = super().find_videos()
        records = {
            split: RecordTable(replace(record, label=(record.label, (record.label + 1) % 3)) for record in table)
            for split, table in found.records.items()
        }
        return replace(found, records=records)


def test_several_labels_a_video(root, tmp_path):
    module = Foreign()
    data = MultiLabel(str(root), clip=CLIP, loader=LoaderOptions(batch_size=2))
    make_trainer(tmp_path).fit(module, datamodule=data)
    for batch in module.seen["train"]:
        assert batch["label"].shape == (2, 3)
        assert batch["label"].sum(1).tolist() == [2, 2]
        for video_id, label in zip(batch["video_id"], batch["label"], strict=True):
            assert label[CLASSES.index(video_id.split("/")[0])] == 1
