"""Folds of groups, what they say together, and the command on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import SMALL

from datamodules.records import Account, Catalogue, RecordTable
from temporal_attn.cli import main
from temporal_attn.crossval import mean_of_folds_interval, pool, refolded
from temporal_attn.evaluation import VideoRow, VideoTable, summarise
from temporal_attn.evaluation.predictions import write_judged
from temporal_attn.evaluation.scoring import Scoring
from temporal_attn.types import FailedVideo, VideoRecord


def catalogue() -> Catalogue:
    def records(part: str, groups: range) -> RecordTable:
        return RecordTable(
            VideoRecord(f"{part}/{k}/{g}/{c}", f"{k}{g}{c}.avi", k, f"class{k}_g{g}")
            for k in range(3)
            for g in groups
            for c in range(2)
        )

    parts = {
        "train": records("train", range(8)),
        "val": records("val", range(8, 10)),
        "test": records("test", range(3)),
    }
    accounts = {name: Account(len(own), len(own), (), 3, ()) for name, own in parts.items()}
    return Catalogue(("a", "b", "c"), parts, accounts)


@pytest.mark.parametrize("k", [2, 5])
def test_every_group_tests_once_and_the_test_part_stays_unseen(k: int):
    source = catalogue()
    folds = [refolded(source, k, fold, 0.25, seed=0) for fold in range(1, k + 1)]
    tested = [name for fold in folds for name in fold.records["test"].ids]
    assert sorted(tested) == sorted([*source.records["train"].ids, *source.records["val"].ids])
    for fold in folds:
        groups = {part: set(records.groups) for part, records in fold.records.items()}
        assert not groups["train"] & groups["val"]
        assert not groups["train"] & groups["test"]
        assert not groups["val"] & groups["test"]
        assert sum(map(len, fold.records.values())) == len(tested)
        assert set(fold.records["test"].labels) == {0, 1, 2}


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    groups = [[f"g{i % 12}" for i in range(40)], [f"g{i % 12}" for i in range(30)]]  # the same groups in both folds
    rate = rng.random(12)
    values = [(rng.random(len(own)) < [rate[int(name[1:])] for name in own]).astype(float) for own in groups]
    low, high = mean_of_folds_interval(values, groups)
    names = sorted(set(groups[0]))
    means = []
    for _ in range(2000):
        drawn = [names[i] for i in rng.integers(0, 12, 12)]
        of_folds = []
        for own, value in zip(groups, values, strict=True):
            picked = np.concatenate([value[np.array(own) == name] for name in drawn])
            of_folds.append(picked.mean())
        means.append(np.mean(of_folds))
    np.testing.assert_allclose((low, high), np.percentile(means, [2.5, 97.5]), atol=0.02)


def test_the_command_runs_each_fold_once(tiny_ucf: Path, tmp_path: Path, capsys: Any):
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "model: {class_path: temporal_attn.VideoClassificationModule}\n"
        "data: {class_path: datamodules.UCF101DataModule, init_args: "
        f"{{root: {tiny_ucf / 'root'}, splits: {tiny_ucf / 'splits'}}}}}\n"
    )
    options = [word.removeprefix("--") for word in SMALL]
    words = ["crossval", f"--config={config}", f"--out={tmp_path / 'cv'}", f"--options={json.dumps(options)}"]
    assert main([*words, "--folds=groups", "--k=2"]) == 0
    found = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    assert [row["videos"] for row in found["results"]] == [9, 9]  # the official test part has the other six
    top1 = [row["top1"] for row in found["results"]]
    assert found["top1"]["mean"] == pytest.approx(np.mean(top1))
    assert found["top1"]["std"] == pytest.approx(np.std(top1, ddof=1))
    assert found["top1"]["ci95"][0] <= found["top1"]["mean"] <= found["top1"]["ci95"][1]
    assert found["train_s"] == pytest.approx(sum(row["train_s"] for row in found["results"]))
    tested = {
        row["video_id"]
        for fold in (1, 2)
        for row in map(json.loads, (tmp_path / "cv" / f"fold-{fold}" / "test_predictions.jsonl").open())
    }
    assert len(tested) == 18
    best = tmp_path / "cv" / "fold-1" / "checkpoints" / "best.ckpt"
    written = best.stat().st_mtime_ns
    assert main([*words, "--folds=groups", "--k=2"]) == 0  # nothing is left to run
    assert best.stat().st_mtime_ns == written
    capsys.readouterr()
    assert main([*words, "--folds=groups", "--k=3"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_wrong_option_does_not_claim_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    config = tmp_path / "empty.yaml"
    config.write_text("{}\n")
    words = ["crossval", f"--config={config}", f"--out={tmp_path / 'cv'}"]
    assert main([*words, "--options=[trainer.nonsense=1]"]) == 2
    monkeypatch.setattr("temporal_attn.crossval.run", lambda words, program: 1)
    capsys.readouterr()
    assert main(words) == 1
    assert "other settings" not in capsys.readouterr().err


def test_official_folds_are_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []

    def stopped(words: list[str], program: type) -> int:
        seen.append(words)
        return int(len(seen) == 3)  # the second fold's training fails

    monkeypatch.setattr("temporal_attn.crossval.run", stopped)
    assert main(["crossval", "--config=some.yaml", f"--out={tmp_path}", "--options=data.seed=1"]) == 1
    assert [words[0] for words in seen] == ["fit", "test", "fit"]
    assert [next(w for w in words if w.startswith("--data.fold")) for words in seen] == [
        "--data.fold=1",
        "--data.fold=1",
        "--data.fold=2",
    ]
    assert all("--data.seed=1" in words for words in seen)
    assert "--ckpt_path=best" in seen[1]


def write_fold(folder: Path, fold: int, probabilities: list[list[float]], failed: int = 0) -> Path:
    """What the test of a fold leaves: videos of class a, and some that could not be read."""
    own = folder / f"fold-{fold}"
    own.mkdir(parents=True, exist_ok=True)
    rows = [VideoRow(f"v{fold}-{i}", f"g{i}", 0, scores) for i, scores in enumerate(probabilities)]
    lost = [FailedVideo(id=f"x{i}", path="x", reason="gone", label=0, group="h", index=i) for i in range(failed)]
    summary = summarise(rows, ["a", "b"], lost, extra={"temperature": 1.0, "train_s": 1.0})
    (own / "metrics.json").write_text(json.dumps(summary))
    write_judged(own / "test_predictions.jsonl", VideoTable.of(rows, 2, lost), ["a", "b"], Scoring(), {})
    return own


def test_a_fold_of_which_nothing_could_be_read_counts_as_wrong(tmp_path: Path):
    good, lost = write_fold(tmp_path, 1, [[0.9, 0.1], [0.4, 0.6]]), write_fold(tmp_path, 2, [], failed=2)
    found = pool([good, lost])
    assert found["top1"]["mean"] == 0.25
    assert found["nll"] == json.loads((good / "metrics.json").read_text())["nll"]
    nothing = pool([lost, lost])
    assert (nothing["top1"]["mean"], nothing["map"], nothing["ece"], nothing["ece_ci95"]) == (0.0, None, None, None)


def test_a_fold_whose_videos_were_gone_is_tested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """And not trained again: there is a test only where the training had ended."""
    write_fold(tmp_path, 1, [[0.9, 0.1]])
    write_fold(tmp_path, 2, [], failed=6)
    write_fold(tmp_path, 3, [], failed=2)  # so few are tolerated
    seen: list[tuple[str, str]] = []

    def tested(words: list[str], program: type) -> int:
        seen.append((words[0], next(word for word in words if word.startswith("--data.fold"))))
        write_fold(tmp_path, 2, [[0.9, 0.1]])
        return 0

    monkeypatch.setattr("temporal_attn.crossval.run", tested)
    assert main(["crossval", "--config=some.yaml", f"--out={tmp_path}"]) == 0
    assert seen == [("test", "--data.fold=2")]
    assert "mean 66.7%" in capsys.readouterr().out


def test_a_configuration_that_was_edited_is_another_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("temporal_attn.crossval.run", lambda words, program: 1)
    config = tmp_path / "a.yaml"
    config.write_text("seed_everything: 1\n")
    words = ["crossval", f"--config={config}", f"--out={tmp_path / 'cv'}"]
    assert main(words) == 1
    (tmp_path / "cv" / "fold-1").mkdir()  # what training begins with
    assert main(words) == 1
    config.write_text("seed_everything: 2\n")
    assert main(words) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("temporal_attn.VideoClassificationModule", "FolderDataModule", "folds: official are those of UCF101"),
        ("pytorch_lightning.demos.boring_classes.BoringModel", "UCF101DataModule", "BoringModel is none"),
    ],
)
def test_folds_that_cannot_be_pooled_are_refused_before_the_first(
    model: str, data: str, message: str, tiny_ucf: Path, tmp_path: Path, capsys: Any
):
    arguments = {"root": str(tiny_ucf / "root")} | ({"splits": str(tiny_ucf / "splits")} if "UCF" in data else {})
    config = tmp_path / "other.yaml"
    config.write_text(
        json.dumps(
            {
                "trainer": {"max_epochs": 1, "accelerator": "cpu"},
                "model": {"class_path": model},
                "data": {"class_path": f"datamodules.{data}", "init_args": arguments},
            }
        )
    )
    assert main(["crossval", f"--config={config}", f"--out={tmp_path / 'cv'}"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("cv/fold-1/**/*.ckpt"))


def test_a_fold_goes_on_with_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    last = tmp_path / "fold-1" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    seen: list[list[str]] = []
    monkeypatch.setattr("temporal_attn.crossval.run", lambda words, program: seen.append(words) or 1)
    assert main(["crossval", "--config=some.yaml", f"--out={tmp_path}"]) == 1
    assert "--ckpt_path=last" in seen[0]


def test_lists_may_be_given_word_by_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []
    monkeypatch.setattr("temporal_attn.crossval.run", lambda words, program: seen.append(words) or 1)
    words = ["--config", "a.yaml", "--config+", "b.yaml", "--options=[data.seed=1,data.fold=2]", "--options=model.lr=1"]
    assert main(["crossval", *words, f"--out={tmp_path}"]) == 1
    given = ["--config=a.yaml", "--config=b.yaml", "--data.seed=1", "--data.fold=2", "--model.lr=1"]
    assert seen[0][1 : 1 + len(given)] == given
