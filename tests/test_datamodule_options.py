"""Options of a datamodule: nested on the command line and in a file, and refused where they are wrong."""

from __future__ import annotations

import json
import sys
from unittest import mock

import pytest
import pytorch_lightning as pl
from pytorch_lightning.cli import LightningCLI

import datamodules.ucf101
from datamodules import FolderDataModule, VideoDataModule
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from temporal_attn.types import UserError


def run_cli(*args):
    with mock.patch.object(sys, "argv", ["program", *args]):
        return LightningCLI(
            pl.LightningModule,
            VideoDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            run=False,
            save_config_callback=None,
            seed_everything_default=False,
            trainer_defaults={"logger": False, "accelerator": "cpu"},
        )


MODEL = ("--model", "tests.test_datamodule_lightning.Foreign")


def test_options_are_nested_on_the_command_line():
    assert datamodules.ucf101.UCF101DataModule  # a class that is imported goes by its bare name
    data = run_cli(
        *(*MODEL, "--data", "UCF101DataModule", "--data.root", "videos", "--data.splits", "lists"),
        *("--data.clip.num_frames", "5", "--data.augment.scale", "[0.3, 0.9]", "--data.val_groups", "[22, 23]"),
        *("--data.loader.num_workers", "3", "--data.classes", "[Swing]"),
        *("--data.loader.sandbox", "false", "--data.loader.decode_timeout", "7.5"),
    ).datamodule
    assert isinstance(data, datamodules.UCF101DataModule)
    assert data.clip == ClipOptions(num_frames=5)
    assert data.augment.options == AugmentOptions(scale=(0.3, 0.9))
    assert data.loader == LoaderOptions(num_workers=3, sandbox=False, decode_timeout=7.5)
    assert data.val_groups == [22, 23]


def test_options_are_nested_in_a_file(tmp_path):
    config = tmp_path / "run.yaml"
    groups = {"clip": {"num_frames": 6, "sampling": "dense"}, "loader": {"batch_size": 4}}
    data = {"class_path": "datamodules.UCF101DataModule", "init_args": {"root": "a", "splits": "b", **groups}}
    config.write_text(json.dumps({"data": data}))
    built = run_cli("--config", str(config), *MODEL, "--data.clip.crop", "112").datamodule
    assert built.clip == ClipOptions(num_frames=6, sampling="dense", crop=112)
    assert built.loader == LoaderOptions(batch_size=4)


@pytest.mark.parametrize("wrong", ["--data.clip.frames=5", "--data.clip.sampling=random", "--data.reader=vlc"])
def test_mistyped_options_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        run_cli(*MODEL, "--data", "datamodules.FolderDataModule", "--data.root", "videos", wrong)
    assert stop.value.code == 2
    assert wrong.split("=")[0].rsplit(".", 1)[1] in capsys.readouterr().err


def test_options_out_of_range_on_the_command_line():
    with pytest.raises(ValueError, match=r"clip\.crop is 300") as error:
        run_cli(*MODEL, "--data", "datamodules.FolderDataModule", "--data.root", "videos", "--data.clip.crop", "300")
    assert isinstance(error.value.__cause__, UserError)  # jsonargparse wraps it, and names it as the cause


@pytest.mark.parametrize(
    ("make_options", "message"),
    [
        (lambda: ClipOptions(num_frames=0), "clip.num_frames is 0"),
        (lambda: ClipOptions(resize=100), "clip.crop is 224; it has to be at most clip.resize = 100"),
        (lambda: ClipOptions(sampling="random"), "clip.sampling is 'random'; it has to be uniform, symmetric"),
        (lambda: AugmentOptions(scale=(0.9, 0.5)), "augment.scale"),
        (lambda: AugmentOptions(scale=(0.5, 1.5)), "augment.scale"),
        (lambda: AugmentOptions(ratio=(0.0, 1.0)), "augment.ratio"),
        (lambda: AugmentOptions(flip=1.1), "augment.flip"),
        (lambda: AugmentOptions(contrast=-1), "augment.contrast"),
        (lambda: AugmentOptions(hue=0.6), "augment.hue"),
        (lambda: LoaderOptions(batch_size=0), "loader.batch_size"),
        (lambda: LoaderOptions(num_workers=-1), "loader.num_workers"),
        (lambda: LoaderOptions(prefetch_factor=0), "loader.prefetch_factor"),
        (lambda: LoaderOptions(multiprocessing_context="thread"), "spawn, forkserver, fork"),
        (lambda: LoaderOptions(sandbox="always"), "loader.sandbox is 'always'; it has to be true, false or auto"),
        (lambda: LoaderOptions(decode_timeout=0), "loader.decode_timeout"),
        (lambda: FolderDataModule("videos", seed=-1), "seed is -1"),
    ],
)
def test_options_out_of_range(make_options, message):
    with pytest.raises(UserError) as error:
        make_options()
    assert message in str(error.value)
