from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from datamodules import FolderDataModule
from datamodules.base import TooManyFailures
from datamodules.dataset import load_clip
from datamodules.manifest import scan
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.records import RecordTable
from temporal_attn.types import UserError
from tests.videos import numbered_frames, write_empty, write_text, write_video

CLASSES = ("archery", "diving", "swing")
CLIP = ClipOptions(num_frames=2, resize=24, crop=16)


class Foreign(pl.LightningModule):
    """Somebody's module: knows nothing of this project, keeps what it is fed."""

    def __init__(self, num_classes=3, lr=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.head = nn.Linear(3, num_classes)
        self.lr = lr
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def forward(self, batch):
        return self.head(batch["video"].float().div(255).mean((1, 3, 4)))

    def step(self, batch, split):
        self.seen[split].append({"epoch": self.current_epoch, **batch})
        if len(batch["label"]) == 0:
            return None
        return nn.functional.cross_entropy(self(batch), batch["label"])

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def predict_step(self, batch, batch_idx):
        self.seen["predict"].append(batch)
        return self(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Remembering(Foreign):
    """A module that keeps class names and clip in its checkpoint, and has them back only after setup."""

    class_names = None
    clip_spec = None

    def on_fit_start(self):
        self.class_names, self.clip_spec = self.trainer.datamodule.class_names, self.trainer.datamodule.clip_spec

    def on_save_checkpoint(self, checkpoint):
        checkpoint["data"] = {"class_names": self.class_names, "clip_spec": dict(self.clip_spec)}

    def on_load_checkpoint(self, checkpoint):
        self.class_names, self.clip_spec = checkpoint["data"]["class_names"], checkpoint["data"]["clip_spec"]


def make_trainer(folder, **options):
    return pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, **options},
    )


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(CLASSES):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for group in range(5):
            frames = numbered_frames(6, height=32, width=48, first=100 * number + 10 * group)
            write_video(tmp_path / "videos" / name / f"v_g{group:02d}_c01.mp4", frames)
    return tmp_path / "videos"


def make(root, num_workers=0, batch_size=2, **options):
    loader = LoaderOptions(batch_size=batch_size, num_workers=num_workers)
    return FolderDataModule(str(root), clip=CLIP, loader=loader, **options)


def names(batches):
    return [name for batch in batches for name in batch["video_id"]]


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


# Broken files


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


# Class names and clips that come with a checkpoint


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


# The command line
