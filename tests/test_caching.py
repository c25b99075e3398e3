"""`cache frames` and `cache features` as commands: what they store, report and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import videos
import yaml

from datamodules.cache import FeatureStore
from datamodules.frame_store import FrameStore
from temporal_attn.caching import cache_features, cache_frames
from temporal_attn.cli import main
from temporal_attn.experiment import load_experiment
from temporal_attn.types import UserError


@pytest.fixture
def config(tiny_ucf: Path, tmp_path: Path) -> Path:
    """The YAML of a small training with a frozen part."""
    content = {
        "trainer": {"accelerator": "cpu", "max_epochs": 3, "default_root_dir": str(tmp_path / "run")},
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
                "loader": {"sandbox": False},
            },
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_frames_are_stored_and_reported(tmp_path, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        videos.write_video(folder / name, videos.numbered_frames(6))
    figures = tmp_path / "f.json"
    assert cache_frames([str(folder)], str(tmp_path / "store"), short_side=32, json=str(figures), workers=1) == 0
    assert "2 of 2 videos, 2 of them new" in capsys.readouterr().out
    result = json.loads(figures.read_text())
    assert result["schema"] == "temporal-attn/cache-frames/1"
    assert (result["stored"], result["failed"]) == (2, {})
    assert result["bytes"] == FrameStore.open(tmp_path / "store").num_bytes
    videos.write_text(folder / "c.mp4")
    assert cache_frames([str(folder)], str(tmp_path / "store"), short_side=32, workers=1) == 1
    shown = capsys.readouterr()
    assert "2 of 3 videos, 0 of them new" in shown.out
    assert "c.mp4" in shown.err


@pytest.mark.parametrize("wrong", [{"max_gb": 0}, {"workers": 0}, {"short_side": 0}, {"json": "no/such/folder/f.json"}])
def test_wrong_use_of_frames(tmp_path, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        cache_frames([str(tmp_path)], str(tmp_path / "store"), **wrong)


def test_features_are_stored_and_reported(config, tmp_path, capsys):
    cache, figures = str(tmp_path / "cache"), tmp_path / "f.json"
    assert cache_features(str(config), views=3, dtype="bfloat16", cache_dir=cache, json=str(figures)) == 0
    shown = capsys.readouterr().out
    assert "train: 12 videos, 12 of them new" in shown
    assert "val: 6 videos, 6 of them new" in shown
    result = json.loads(figures.read_text())
    for split, views in zip(result["splits"], (3, 1), strict=True):
        settings = json.loads((Path(split["folder"]) / "settings.json").read_text())
        assert settings["dtype"] == "bfloat16"
        store = FeatureStore(cache, settings)
        assert str(store.folder) == split["folder"]
        assert store.num_bytes == split["bytes"]
        data = load_experiment(str(config)).data
        assert len(store.open(data.dataset(split["split"]).records[0])) == views
    assert not list(tmp_path.glob("run/**/*.ckpt"))
    assert cache_features([str(config)], views=3, dtype="bfloat16", cache_dir=cache) == 0
    assert "train: 12 videos, 0 of them new" in capsys.readouterr().out


def test_features_need_a_folder(config):
    with pytest.raises(UserError, match="cache_dir"):
        cache_features(str(config))


def test_an_experiment_is_made_but_not_run(config, tmp_path):
    experiment = load_experiment(str(config), ["--trainer.max_epochs=7"])
    assert experiment.trainer.max_epochs == 7
    assert experiment.trainer.callbacks == [experiment.features]
    assert experiment.module.hparams["freeze"] == "layer3"
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="label_smoothing"):
        load_experiment(str(config), ["--model.label_smoothing=2"])


def test_settings_go_before_the_file(config, tmp_path, capsys):
    cache, figures = str(tmp_path / "cache"), tmp_path / "f.json"
    words = ["--data.cache_dir", cache, "--features.views=2", "--data.clip.num_frames", "3", "--json", str(figures)]
    assert main(["cache", "features", "--config", str(config), *words]) == 0
    result = json.loads(figures.read_text())
    assert all(split["folder"].startswith(cache) for split in result["splits"])
    (train,) = (split for split in result["splits"] if split["split"] == "train")
    data = load_experiment(str(config), ["--data.cache_dir", cache, "--features.views=2", "--data.clip.num_frames=3"])
    assert train["videos"] == train["computed"] == len(data.data.dataset("train"))
    assert main(["cache", "features", "--config", str(config), "--data.no_such_setting", "3"]) == 2
    assert "no_such_setting" in capsys.readouterr().err
