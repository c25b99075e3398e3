"""Sampling and augmentation as a datamodule offers them: by options, under any Trainer."""

from __future__ import annotations

from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from datamodules import FolderDataModule
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from temporal_attn.types import UserError
from tests.videos import numbered_frames, write_video

CLIP = ClipOptions(num_frames=3, resize=16, crop=16)
COUNTS = {"left": 9, "right": 4}


class Watcher(pl.LightningModule):
    """Keeps what it is fed, and saves a checkpoint after some batches."""

    def __init__(self, save=None):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.save = save
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return nn.functional.cross_entropy(self.head(batch["video"].float().div(255).mean((1, 3, 4))), batch["label"])

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.save is not None and len(self.seen) == self.save[0]:
            self.trainer.save_checkpoint(self.save[1])

    def test_step(self, batch, batch_idx):
        self.seen.append(batch)

    validation_step = test_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number, (name, count) in enumerate(COUNTS.items()):
        (folder / name).mkdir()
        for group in range(count):
            frames = numbered_frames(6, height=16, width=32, first=100 * number + 10 * group)
            write_video(folder / name / f"v_g{group:02d}_c01.mp4", frames)
    return folder


def make(root, clip=CLIP, augment=AugmentOptions(), num_workers=0, **loader):
    options = LoaderOptions(batch_size=4, num_workers=num_workers, **loader)
    return FolderDataModule(str(root), val_fraction=0.0, test_fraction=0.0, clip=clip, augment=augment, loader=options)


def fit(data, module=None, max_epochs=1, **options):
    module = module or Watcher()
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data, **options)
    return module


def names(batches):
    return [name for batch in batches for name in batch["video_id"]]


EVERYTHING = AugmentOptions(
    jitter=0.4,
    reverse=0.5,
    reverse_symmetric="all",
    flip_pairs=(("left", "right"),),
    policy="rand",
    erase=0.5,
    mixup=1.0,
)


def test_epochs_are_the_same_for_any_number_of_workers_and_after_a_stop(root, tmp_path):
    def data(num_workers=0):
        return make(root, augment=EVERYTHING, num_workers=num_workers, balance=1.0, repeats=2)

    whole = fit(data(), Watcher(save=(8, tmp_path / "stopped.ckpt")), max_epochs=2)
    workers = fit(data(2), max_epochs=2)
    resumed = fit(data(), max_epochs=2, ckpt_path=str(tmp_path / "stopped.ckpt"))
    assert len(whole.seen) == 2 * (2 * 13 // 4)
    for others, own in ((workers.seen, whole.seen), (resumed.seen, whole.seen[8:])):
        assert names(others) == names(own)
        for other, batch in zip(others, own, strict=True):
            for key in ("video", "label", "label_b", "lam", "pts", "seed"):
                assert torch.equal(other[key], batch[key])
    assert torch.equal(resumed.head.weight, whole.head.weight)


def test_repeats_and_balance_decide_what_an_epoch_visits(root):
    plain, repeated = fit(make(root)), fit(make(root, repeats=2))
    assert set(Counter(names(plain.seen)).values()) == {1}
    assert set(Counter(names(repeated.seen)).values()) <= {1, 2}
    assert len(names(repeated.seen)) == 24
    for batch in repeated.seen:
        assert len(set(batch["seed"].tolist())) == 4  # each visit has draws of its own
    labels = [int(label) for batch in fit(make(root, balance=True, repeats=2)).seen for label in batch["label"]]
    assert abs(sum(labels) - 12) <= 3


def test_a_model_is_trained_with_shares_of_classes(root):
    module = fit(make(root, augment=AugmentOptions(cutmix=1.0)))
    for batch in module.seen:
        assert batch["label"].shape == (4, 2)
        assert torch.allclose(batch["label"].sum(1), torch.ones(4))


def test_a_class_that_is_not_there_is_named_before_training(root):
    with pytest.raises(UserError, match=r"flip_pairs names up; the classes are left, right"):
        fit(make(root, augment=AugmentOptions(flip_pairs=(("left", "up"),))))


def test_only_a_test_sees_several_views(root):
    clip = ClipOptions(num_frames=3, resize=16, crop=16, num_clips=2, num_crops=3)
    options = LoaderOptions(batch_size=2)
    data = FolderDataModule(str(root), val_fraction=0.2, test_fraction=0.3, clip=clip, loader=options)
    module = Watcher()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(module, datamodule=data, verbose=False)
    assert all(set(batch["view_id"].tolist()) == {0} for batch in module.seen)
    module.seen.clear()
    trainer.test(module, datamodule=data, verbose=False)
    for batch in module.seen:
        videos = len(set(batch["video_id"]))
        assert batch["video"].shape == (6 * videos, 3, 3, 16, 16)
        assert batch["view_id"].tolist() == videos * list(range(6))
    assert set(names(module.seen)) == set(data.test_dataset.records.ids)
    data.setup("fit")
    assert data.train_dataset[0]["mask"].ndim == data.val_dataset[0]["mask"].ndim == 1


def test_balance_needs_one_class_a_video(root):
    data = make(root, balance=0.5)
    data.setup("fit")
    records = data.train_dataset.records
    assert data._single_labels(records) == records.labels
    unknown = type(records)([*records, records[0].__class__("a", "a", None, "a")])
    with pytest.raises(UserError, match=r"loader\.balance"):
        data._single_labels(unknown)


def test_options_are_read_from_yaml(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        """
data:
  class_path: datamodules.FolderDataModule
  init_args:
    root: videos
    clip: {sampling: seconds, fps: 4.0, num_clips: 10, num_crops: 3}
    augment:
      flip_pairs: [[Swipe left, Swipe right]]
      reverse: 0.5
      reverse_pairs: [[Open, Close], [Up, Down]]
      reverse_symmetric: [Clap]
      policy: trivial
      mixup: 0.8
    loader: {balance: 0.5, repeats: 2}
"""
    )
    parser = LightningArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(FolderDataModule, "data")
    parsed = parser.instantiate(parser.parse_args(["--config", str(config), "--data.augment.cutmix", "1"]))["data"]
    assert parsed.clip == ClipOptions(sampling="seconds", fps=4.0, num_clips=10, num_crops=3)
    assert parsed.loader == LoaderOptions(balance=0.5, repeats=2)
    assert parsed.augment.options == AugmentOptions(
        flip_pairs=(("Swipe left", "Swipe right"),),
        reverse=0.5,
        reverse_pairs=(("Open", "Close"), ("Up", "Down")),
        reverse_symmetric=("Clap",),
        policy="trivial",
        mixup=0.8,
        cutmix=1.0,
    )


@pytest.mark.parametrize(
    ("make_options", "message"),
    [
        (lambda: ClipOptions(fps=0.0), "clip.fps is 0.0"),
        (lambda: ClipOptions(num_clips=0), "clip.num_clips is 0"),
        (lambda: ClipOptions(num_crops=2), "clip.num_crops is 2; it has to be 1 or 3"),
        (lambda: LoaderOptions(balance=1.5), "loader.balance is 1.5"),
        (lambda: LoaderOptions(repeats=0), "loader.repeats is 0"),
    ],
)
def test_options_out_of_range(make_options, message):
    with pytest.raises(UserError) as error:
        make_options()
    assert message in str(error.value)
