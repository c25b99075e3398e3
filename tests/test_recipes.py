"""Every recipe in configs/ through the real program, on a tiny data set in the layout that it reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from layouts import LAYOUTS

from temporal_attn.cli import main

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))

# What makes a recipe small enough for a test: a tiny net, small frames, one epoch on one CPU.
SMALL = {
    "trainer.max_epochs": 1,
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
    "trainer.num_nodes": 1,
    "trainer.strategy": "auto",
    "trainer.sync_batchnorm": False,
    "trainer.precision": 32,
    "trainer.enable_progress_bar": False,
    "trainer.enable_model_summary": False,
    "model.backbone": "test_resnet",
    "model.weights": "none",
    "model.dim": 32,
    "model.heads": 4,
    "model.depth": 1,
    "data.clip.num_frames": 4,
    "data.clip.resize": 32,
    "data.clip.crop": 32,
    "data.loader.batch_size": 4,
    "data.loader.num_workers": 0,
    "data.loader.sandbox": False,
}
# The tiny net's parts in the place of EfficientNet-Lite's.
PARTS = {"bn2": "layer4", "blocks.4": "layer2", "blocks.5": "layer2", "blocks.6": "layer3"}
SYNTHETIC = {f"data.{key}": 1 for key in ("val_groups", "test_groups", "clips_per_group")} | {"data.train_groups": 2}


def small(recipe: dict[str, Any], base: Path, tiny_ucf: Path) -> dict[str, Any]:
    """Options that make a recipe small and point it at tiny data."""
    model, data = (recipe[section]["init_args"] for section in ("model", "data"))
    options: dict[str, Any] = dict(SMALL)
    if model.get("freeze") in PARTS:
        options["model.freeze"] = PARTS[model["freeze"]]
    if isinstance(model.get("attention_at"), list):
        options["model.attention_at"] = [PARTS[place] for place in model["attention_at"]]
    if model.get("dim") == 0:
        del options["model.dim"]
    if data.get("cache_dir"):
        options["data.cache_dir"] = str(base / "cache")
    name = recipe["data"]["class_path"].rpartition(".")[2]
    if name == "SyntheticDataModule":
        return options | SYNTHETIC | {"data.root": str(base / "synthetic")}
    if name == "UCF101DataModule":
        where = {f"data.{key}": str(tiny_ucf / key) for key in ("root", "splits")}
        return options | where | {"data.val_groups": [7, 8]}
    if "val_fraction" in data:
        options["data.val_fraction"] = 0.2
    return options | {f"data.{key}": value for key, value in LAYOUTS[name](base / "data").items()}


def words(config: Path, options: dict[str, Any], folder: Path) -> Sequence[str]:
    given = {**options, "trainer.default_root_dir": str(folder)}
    return [f"--config={config}", *(f"--{key}={json.dumps(value).strip(chr(34))}" for key, value in given.items())]


@pytest.mark.parametrize("config", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_recipe_fits_and_tests(config: Path, tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    options = small(yaml.safe_load(config.read_text()), tmp_path, tiny_ucf)
    assert main(["fit", *words(config, options, tmp_path / "run")]) == 0
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert capsys.readouterr().out.splitlines()[-1] == str(best)
    assert main(["test", *words(config, options, tmp_path / "out"), f"--ckpt_path={best}"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"top1", "top5", "mean_class_accuracy", "ece", "ci95", "per_class", "train_s"} <= set(metrics)
    assert metrics["videos"] == sum(row["n"] for row in metrics["per_class"]) > 0


@pytest.mark.parametrize("config", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_recipe_says_how_it_is_run(config: Path) -> None:
    """And writes into a folder of its own name; where its results are not known it says so."""
    text = config.read_text()
    head = text[: text.index("seed_everything")]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"temporal-attn fit --config configs/{config.name}" in head
    assert yaml.safe_load(text)["trainer"]["default_root_dir"] == f"runs/{config.stem}"
    assert ("| this recipe | not run here" in head) == ("| |\n# |---|---|" in head)
