"""`temporal-attn tune` end to end on rendered videos, and its search space."""

from __future__ import annotations

import csv
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from temporal_attn.cli import main
from temporal_attn.experiment import load_experiment
from temporal_attn.module import VideoClassificationModule
from temporal_attn.search_space import Dimension, overlay, read_space
from temporal_attn.tuning import PruneHopeless
from temporal_attn.types import UserError

optuna = pytest.importorskip("optuna")

EXPERIMENT = {
    "seed_everything": 0,
    "trainer": {"accelerator": "cpu", "max_epochs": 2, "num_sanity_val_steps": 0},
    "model": {
        "class_path": "temporal_attn.VideoClassificationModule",
        "init_args": {"backbone": "test_resnet", "attention": None, "dim": 16, "heads": 2, "depth": 1},
    },
    "data": {
        "class_path": "datamodules.SyntheticDataModule",
        "init_args": {
            "task": "or",
            "train_groups": 2,
            "val_groups": 1,
            "test_groups": 1,
            "clips_per_group": 1,
            "clip": {"num_frames": 4, "resize": 32, "crop": 32},
            "loader": {"batch_size": 2, "num_workers": 0},
        },
    },
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment, a space and a study of two trials, the second of which was cut off."""
    folder = tmp_path_factory.mktemp("tune")
    EXPERIMENT["data"]["init_args"]["root"] = str(folder / "videos")  # type: ignore[index]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    space = {
        "model.lr": {"low": "1e-4", "high": 1e-2, "log": True},
        "model.temporal": {"choices": ["mean", "transformer"]},
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    assert run(folder, 1) == 0
    study = optuna.load_study(study_name="temporal-attn", storage=f"sqlite:///{folder / 'study.sqlite'}")
    study.ask()  # a process that began a trial and was killed
    return folder


def run(folder: Path, trials: int, *words: str) -> int:
    names = {"config": "experiment.yaml", "space": "space.yaml", "study": "study.sqlite"}
    return main(["tune", *(f"--{key}={folder / name}" for key, name in names.items()), f"--trials={trials}", *words])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_study_goes_on_to_the_number_asked_for(studied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(rows(studied)) == 1
    assert run(studied, 3) == 0
    assert capsys.readouterr().out.strip() == str(studied / "best.yaml")
    table = rows(studied)
    assert [row["state"] for row in table] == ["complete", "fail", "complete", "complete"]
    done = [row for row in table if row["state"] == "complete"]
    assert len({row["model.init_args.lr"] for row in done}) == 3  # a study that goes on does not repeat itself
    assert all(1e-4 <= float(row["model.init_args.lr"]) <= 1e-2 for row in done)
    # the overlay holds the settings of the best trial, and `fit` takes it after the experiment's own file
    best = max(done, key=lambda row: float(row["val/top1"]))
    experiment = load_experiment([str(studied / "experiment.yaml"), str(studied / "best.yaml")])
    assert experiment.module.hparams["lr"] == pytest.approx(float(best["model.init_args.lr"]))
    assert experiment.module.hparams["temporal"] == json.loads(best["model.init_args.temporal"])
    assert experiment.module.hparams["dim"] == 16  # what is not searched stays
    assert run(studied, 3) == 0
    assert rows(studied) == table  # there was nothing left to do


def test_another_objective_needs_another_study(studied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(studied, 1, "--metric=val/loss", "--mode=min") == 2
    assert "its objective is the max of val/top1" in capsys.readouterr().err


def test_an_unknown_metric_or_option_is_named(studied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(studied, 1, f"--study={studied / 'a.sqlite'}", "--metric=val/nonsense") == 2
    assert "choose one of" in capsys.readouterr().err
    assert run(studied, 1, f"--study={studied / 'b.sqlite'}", "--space=model.rate={low: 0, high: 1}") == 2
    assert "rate" in capsys.readouterr().err


def test_tune_without_optuna_says_what_to_install(
    studied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert run(studied, 9) == 2
    assert "temporal-attn[tune]" in capsys.readouterr().err


class _Trainer:
    sanity_checking = False

    def __init__(self, value: float) -> None:
        self.callback_metrics = {"val/top1": torch.tensor(value)}


def test_a_trial_worse_than_the_median_is_given_up() -> None:
    """Two trials reach 0.8 and 0.6; of the others, one is above their median and one below."""
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    module: Any = None

    def train(values: list[float]) -> PruneHopeless:
        trial = study.ask()
        pruning = PruneHopeless(trial, "val/top1", "max")
        try:
            for value in values:
                pruning.on_validation_end(_Trainer(value), module)  # type: ignore[arg-type]
        finally:
            study.tell(trial, pruning.best)
        return pruning

    train([0.8, 0.8])
    train([0.6, 0.6])
    assert train([0.75, 0.9, 0.7]).best == pytest.approx(0.9)
    with pytest.raises(optuna.TrialPruned):
        train([0.1, 0.9])


def test_an_epoch_without_a_number_is_not_the_best_one() -> None:
    """As for best.ckpt."""
    trial = optuna.create_study().ask()
    for mode, best in (("max", 0.7), ("min", 0.2)):
        pruning = PruneHopeless(trial, "val/top1", mode)
        pruning.values = [float("nan"), 0.2, 0.7, float("nan")]
        assert pruning.best == best


def test_the_log_says_why_a_trial_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = iter([0.5, UserError("heads=3 does not divide dim=16"), RuntimeError(), float("nan"), 0.6, 0.7])

    def fit(*_: object) -> float:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("temporal_attn.tuning._fit", fit)
    (tmp_path / "a.yaml").write_text("model: {}\n")
    words = [
        f"--config={tmp_path / 'a.yaml'}",
        f"--study={tmp_path / 's.sqlite'}",
        "--space=model.lr={low: 0, high: 1}",
        "--trials=3",
    ]
    assert main(["tune", *words]) == 1
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "trial 1: heads=3 does not divide dim=16",
        "trial 2: RuntimeError",
        "trial 3: val/top1 was never a number",
    ]


def test_a_space_from_files_and_words(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "model.lr: {low: 1e-5, high: 1e-2, log: true}\ntrainer.max_epochs: {low: 2, high: 9}\n"
    )
    space = read_space([str(tmp_path / "space.yaml"), "data.augment.scale={choices: [[0.5, 1.0], [0.8, 1.0]]}"])
    assert space == [
        Dimension("model.init_args.lr", 1e-5, 1e-2, True),
        Dimension("trainer.max_epochs", 2, 9),
        Dimension("data.init_args.augment.scale", choices=([0.5, 1.0], [0.8, 1.0])),
    ]
    for seed in range(5):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        rate, epochs, scale = (dimension.draw(trial) for dimension in space)
        assert 1e-5 <= rate <= 1e-2
        assert epochs in range(2, 10)
        assert isinstance(epochs, int)
        assert scale in ([0.5, 1.0], [0.8, 1.0])
    assert overlay({"model.init_args.lr": 1.0, "model.init_args.dim": 2, "seed_everything": 3}) == {
        "model": {"init_args": {"lr": 1.0, "dim": 2}},
        "seed_everything": 3,
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere.yaml", "No such file"),
        ("model.lr={low: 1}", "needs either low and high"),
        ("model.lr={low: 2, high: 1}", "low the smaller"),
        ("model.lr={low: 0, high: .inf}", "finite"),
        ("model.lr={low: 0, high: 1, log: true}", "low above 0"),
        ("model.lr={low: a, high: 1}", "no number"),
        ("model.lr={choices: 3}", "have to be a list"),
        ("model.lr=[1, 2]", "low, high, log"),
        ("model.lr={low: 1, high: 2, choices: [3]}", "either"),
    ],
)
def test_a_malformed_space_is_named(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_space([word])


def test_the_spaces_in_configs_are_spaces_of_options_that_exist() -> None:
    files = sorted((Path(__file__).resolve().parents[1] / "configs" / "tune").glob("*.yaml"))
    assert files
    known = inspect.signature(VideoClassificationModule.__init__).parameters
    for file in files:
        for dimension in read_space([str(file)]):
            place, kind, name = dimension.name.split(".")
            assert (place, kind) == ("model", "init_args")
            assert name in known, name


def test_what_is_not_searched_stays_beside_a_nested_option(studied: Path, tmp_path: Path) -> None:
    base = yaml.safe_load((studied / "experiment.yaml").read_text())
    base["model"]["init_args"]["temporal_options"] = {"position": "relative", "pool": "gated"}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(base))
    words = [f"--config={tmp_path / 'experiment.yaml'}", f"--study={tmp_path / 'study.sqlite'}", "--trials=1"]
    assert main(["tune", *words, "--space=model.temporal_options.direction={choices: [causal]}"]) == 0
    experiment = load_experiment([str(tmp_path / "experiment.yaml"), str(tmp_path / "best.yaml")])
    expected = {"position": "relative", "pool": "gated", "direction": "causal"}
    assert experiment.module.hparams["temporal_options"] == expected  # type: ignore[comparison-overlap]


def test_wrong_use_of_a_study_that_goes_on_fails_once(studied: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copy(studied / "study.sqlite", tmp_path / "study.sqlite")
    words = [f"--config={studied / 'experiment.yaml'}", f"--study={tmp_path / 'study.sqlite'}", "--trials=9"]
    space = "--space=model.lr={low: 1e-4, high: 1e-2}"
    assert main(["tune", *words, space, "--options=data.batchsize=4"]) == 2
    assert capsys.readouterr().err.count("batchsize") < 4
