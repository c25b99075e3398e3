"""The loader benchmark: its phases add up, its changes are taken back, and what it says is in its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from datamodules.dataset import DecodedClips
from temporal_attn.bench import loader
from temporal_attn.bench.loader import bench_loader
from temporal_attn.bench.loader_changes import changes_of
from temporal_attn.bench.loader_steps import TrainingSteps
from temporal_attn.experiment import load_experiment
from temporal_attn.types import UserError


@pytest.fixture
def config(tiny_ucf: Path, tmp_path: Path) -> str:
    content = {
        "trainer": {"accelerator": "cpu", "default_root_dir": str(tmp_path / "run")},
        "model": {
            "class_path": "temporal_attn.VideoClassificationModule",
            "init_args": {"backbone": "test_resnet", "attention": None, "dim": 32, "heads": 4, "freeze": "layer3"},
        },
        "data": {
            "class_path": "datamodules.UCF101DataModule",
            "init_args": {
                "root": str(tiny_ucf / "root"),
                "splits": str(tiny_ucf / "splits"),
                "val_groups": [7, 8],
                "clip": {"num_frames": 2, "resize": 32, "crop": 32},
                "loader": {"batch_size": 3, "sandbox": False},
            },
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_where_the_time_goes(config, tmp_path, capsys):
    assert bench_loader(config, steps=2, rounds=2, workers=0, json=str(tmp_path / "f.json")) == 0
    result = json.loads((tmp_path / "f.json").read_text())
    assert result["schema"] == "temporal-attn/bench-loader/1"
    assert (result["batch_size"], result["steps"]) == (3, 2)
    assert [phase["phase"] for phase in result["phases"]] == ["decode", "transfer", "transform", "forward", "backward"]
    assert sum(phase["share"] for phase in result["phases"]) == pytest.approx(1)
    assert sum(phase["ms"] for phase in result["phases"]) <= result["step_ms"] * 1.001
    changes = {row["change"]: row for row in result["changes"]}
    assert set(changes) == {"frame store, jpeg", "frame store, uint8", "feature cache", "channels_last", "bf16"}
    for row in changes.values():
        low, high = row["gain_ci"]
        assert low <= row["gain"] <= high
        assert row["gain"] == pytest.approx(result["step_ms"] / row["step_ms"], rel=1e-6)
        assert row["advised"] == (low > 1)
    shown = capsys.readouterr().out
    assert "decode" in shown
    assert "feature cache" in shown
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("**/*.ckpt"))


def test_changes_are_made_and_taken_back(config, tmp_path):
    bench = TrainingSteps(load_experiment(config, ["--trainer.max_epochs=0"]), 1)
    changes = {change.name: change for change in changes_of(bench, tmp_path)}
    source = bench.dataset.source
    assert isinstance(source, DecodedClips)
    opener, weight = source.open_video, bench.model.backbone.net.conv1[0].weight
    plain = bench.load(0)
    with changes["frame store, uint8"].made():
        stored = bench.load(0)
    assert torch.equal(stored["video"], plain["video"])
    with changes["feature cache"].made():
        assert "video" not in bench.load(0)
    with changes["channels_last"].made():
        assert weight.is_contiguous(memory_format=torch.channels_last)
    with changes["bf16"].made(), bench.precision():
        assert torch.is_autocast_enabled("cpu")
    with bench.precision():
        assert not torch.is_autocast_enabled("cpu")
    assert bench.dataset.source is source
    assert source.open_video is opener
    assert weight.is_contiguous()


@pytest.mark.slow
def test_workers_are_compared(config):
    bench = TrainingSteps(load_experiment(config, ["--trainer.max_epochs=0"]), 2)
    row = loader._compare_workers(bench, 1, rounds=1)
    assert row["change"] == "1 workers"
    assert row["step_ms"] > 0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rounds": 0}, {"workers": -1}, {"json": "no/such/f.json"}])
def test_wrong_use(config, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        bench_loader(config, **wrong)
