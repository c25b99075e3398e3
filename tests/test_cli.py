"""The program, through its real `main`; test_recipes.py runs every file in configs/."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from videos import write_audio_only, write_empty, write_text

from temporal_attn.cli import main
from temporal_attn.inference import load_classifier, predict_video

ROOT = Path(__file__).resolve().parents[1]

# What makes a recipe small enough for a test: a tiny net, small frames, one epoch on the CPU.
SMALL = [
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--model.backbone=test_resnet",
    "--model.weights=none",
    "--model.dim=32",
    "--model.heads=4",
    "--model.depth=1",
    "--data.clip.num_frames=4",
    "--data.clip.resize=32",
    "--data.clip.crop=32",
    "--data.loader.batch_size=4",
    "--data.loader.num_workers=0",
]
PARTS = {
    "ucf101_20.yaml": ["--model.freeze=layer3", "--model.attention_at=[layer4]", "--data.val_groups=[7,8]"],
    "folder.yaml": ["--model.freeze=layer1"],
}


def where(config: str, tiny: Path, folder: Path) -> list[str]:
    """Options that point a recipe at the tiny data."""
    root = f"--data.root={tiny / 'root'}"
    if config == "folder.yaml":
        return [root]
    return [root, f"--data.splits={tiny / 'splits'}", f"--data.cache_dir={folder / 'cache'}"]


def options(config: str, tiny: Path, folder: Path, run: str) -> list[str]:
    path = f"--config={ROOT / 'configs' / config}"
    return [path, *SMALL, *PARTS[config], *where(config, tiny, folder), f"--trainer.default_root_dir={folder / run}"]


@pytest.fixture(scope="module")
def fitted(tiny_ucf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run of configs/ucf101_20.yaml on the tiny data set."""
    folder = tmp_path_factory.mktemp("fitted")
    assert main(["fit", *options("ucf101_20.yaml", tiny_ucf, folder, "run"), "--trainer.max_epochs=6"]) == 0
    return folder


def checkpoint(fitted: Path) -> str:
    return str(fitted / "run" / "checkpoints" / "best.ckpt")


def test_validate(fitted: Path, tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = options("ucf101_20.yaml", tiny_ucf, tmp_path, "out")
    assert main(["validate", *arguments, f"--ckpt_path={checkpoint(fitted)}"]) == 0
    assert "val/top1" in capsys.readouterr().out


@pytest.mark.parametrize("reader", ["auto", "decord", "pyav"])
def test_predictions_equal_the_test(reader: str, fitted: Path, tiny_ucf: Path, tmp_path: Path) -> None:
    if reader == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    arguments = [*options("ucf101_20.yaml", tiny_ucf, tmp_path, "out"), f"--ckpt_path={checkpoint(fitted)}"]
    assert main(["test", *arguments, f"--data.reader={reader}"]) == 0
    held = [str(path) for path in sorted((tiny_ucf / "root").glob("*/*_g0[12]_*.mp4"))]
    assert main(["predict", *arguments, f"--data.reader={reader}", f"--data.predict_paths={json.dumps(held)}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    hits = [Path(path).parent.name == row["class"] for path, row in zip(held, rows, strict=True)]
    assert metrics["videos"] == len(rows) == 6
    assert metrics["top1"] == pytest.approx(sum(hits) / len(hits))
    # and the checkpoint alone, without any datamodule, says the same
    loaded = load_classifier(checkpoint(fitted))
    for path, row in zip(held, rows, strict=True):
        alone = predict_video(loaded, path, reader)
        assert alone["class"] == row["class"]
        assert alone["probabilities"] == pytest.approx(row["probabilities"], abs=1e-5)


def test_another_fold_and_root(fitted: Path, tiny_ucf: Path, tmp_path: Path) -> None:
    arguments = options("ucf101_20.yaml", tiny_ucf, tmp_path, "out")
    assert main(["test", *arguments, f"--ckpt_path={checkpoint(fitted)}", "--data.fold=2"]) == 0


def test_settings_of_the_checkpoint_win_over_the_file(fitted: Path, tiny_ucf: Path, tmp_path: Path) -> None:
    """A test with the model's and the clip's defaults of the YAML is still the test of what was trained."""
    arguments = [
        f"--config={ROOT / 'configs' / 'ucf101_20.yaml'}",
        "--trainer.accelerator=cpu",
        *where("ucf101_20.yaml", tiny_ucf, tmp_path),
        f"--ckpt_path={checkpoint(fitted)}",
    ]
    assert main(["test", *arguments, f"--trainer.default_root_dir={tmp_path / 'plain'}"]) == 0
    small = [*options("ucf101_20.yaml", tiny_ucf, tmp_path, "small"), f"--ckpt_path={checkpoint(fitted)}"]
    assert main(["test", *small]) == 0
    plain, own = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("plain", "small"))
    assert plain == own


def test_classes_come_from_the_checkpoint(fitted: Path, tiny_ucf: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_ucf, copy)
    shutil.rmtree(copy / "root" / "Diving")
    results = {}
    for name, base in (("all", tiny_ucf), ("less", copy)):
        arguments = options("ucf101_20.yaml", base, tmp_path, name)
        assert main(["test", *arguments, f"--ckpt_path={checkpoint(fitted)}"]) == 0
        results[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    everything, less = results["all"], results["less"]
    assert less["missing"] == everything["missing"] + 2
    for before, after in zip(everything["per_class"], less["per_class"], strict=True):
        assert before["class"] == after["class"]
        expected = {"n": 0, "top1": None} if before["class"] == "Diving" else {"n": before["n"], "top1": before["top1"]}
        assert {key: after[key] for key in ("n", "top1")} == expected


def test_resume_through_the_program(tiny_ucf: Path, tmp_path: Path) -> None:
    def fit(run: str, *more: str) -> dict[str, Any]:
        assert main(["fit", *options("ucf101_20.yaml", tiny_ucf, tmp_path, run), "--trainer.max_epochs=4", *more]) == 0
        return torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]  # type: ignore[no-any-return]

    whole = fit("whole")
    stop = "--trainer.callbacks+=pytorch_lightning.callbacks.EarlyStopping"
    patience = [stop, "--trainer.callbacks.monitor=train/loss", "--trainer.callbacks.stopping_threshold=1000"]
    fit("half", *patience)  # any loss is below the threshold: stops after its first epoch
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0
    resumed = fit("resumed", f"--ckpt_path={last}")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_inspect_files(fitted: Path, tiny_ucf: Path, tmp_path: Path) -> None:
    videos = sorted(str(path) for path in (tiny_ucf / "root" / "Swing").glob("*.mp4"))[:2]
    assert main(["inspect", videos[0], "--checkpoint", checkpoint(fitted), "--out", str(tmp_path / "one")]) == 0
    scores = json.loads((tmp_path / "one" / "scores.json").read_text())
    keys = {"schema", "video", "checkpoint", "target", "method", "frames", "logits", "verdict"}
    assert keys <= set(scores)
    assert {"index", "pts", "score", "keyframe"} <= set(scores["frames"][0])
    broken = write_empty(tmp_path / "broken.mp4")
    several = [*videos, str(broken)]
    assert main(["inspect", *several, "--checkpoint", checkpoint(fitted), "--out", str(tmp_path / "more")]) == 1
    assert (tmp_path / "more" / "index.html").is_file()
    assert len(list((tmp_path / "more").glob("*/scores.json"))) == 2


# -- wrong use and bad input: one line, no traceback, the right exit status ------------------------------------------


def one_line(capsys: Any) -> str:
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, errors
    return str(lines[0])


def test_missing_root(tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = options("ucf101_20.yaml", tiny_ucf, tmp_path, "run")
    assert main(["fit", *arguments, f"--data.root={tmp_path / 'nowhere'}"]) == 2
    assert str(tmp_path / "nowhere") in one_line(capsys)


def test_empty_folder(tmp_path: Path, tiny_ucf: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    arguments = options("folder.yaml", tiny_ucf, tmp_path, "run")
    assert main(["fit", *arguments, f"--data.root={tmp_path / 'empty'}"]) == 2
    assert str(tmp_path / "empty") in one_line(capsys)


def test_a_fold_whose_test_files_are_absent(fitted: Path, tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_ucf, copy)
    for path in (copy / "root").glob("*/*_g0[12]_*"):
        path.unlink()
    arguments = options("ucf101_20.yaml", copy, tmp_path, "run")
    capsys.readouterr()
    assert main(["test", *arguments, f"--ckpt_path={checkpoint(fitted)}"]) == 2
    assert "testlist01" in one_line(capsys)


@pytest.mark.parametrize("line", ["Archery/v_Archery_g03_c01.avi 9", "Boxing/v_Boxing_g03_c01.avi 1"])
def test_a_list_with_nonsense(line: str, tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_ucf, copy)
    with open(copy / "splits" / "trainlist01.txt", "a") as file:
        file.write(line + "\n")
    assert main(["fit", *options("ucf101_20.yaml", copy, tmp_path, "run")]) == 2
    assert "trainlist01.txt" in one_line(capsys)


def test_an_unknown_class_in_a_list(fitted: Path, tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    """The checkpoint knows three classes; this disk has a fourth."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_ucf, copy)
    with open(copy / "splits" / "classInd.txt", "a") as file:
        file.write("4 Boxing\n")
    with open(copy / "splits" / "testlist01.txt", "a") as file:
        file.write("Boxing/v_Boxing_g01_c01.avi\n")
    (copy / "root" / "Boxing").mkdir()
    source = next((copy / "root" / "Swing").iterdir())
    shutil.copy(source, copy / "root" / "Boxing" / "v_Boxing_g01_c01.mp4")
    arguments = options("ucf101_20.yaml", copy, tmp_path, "run")
    capsys.readouterr()
    assert main(["test", *arguments, f"--ckpt_path={checkpoint(fitted)}"]) == 2
    assert "Boxing" in one_line(capsys)


@pytest.mark.parametrize("kind", ["missing", "text", "stranger"])
def test_a_wrong_checkpoint(kind: str, tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "a.ckpt"
    if kind == "text":
        path.write_text("hello")
    if kind == "stranger":
        torch.save({"state_dict": {}, "epoch": 3}, path)
    video = str(next((tiny_ucf / "root").glob("*/*.mp4")))
    assert main(["inspect", video, "--checkpoint", str(path), "--out", str(tmp_path / "out")]) == 2
    assert str(path) in one_line(capsys)
    arguments = options("ucf101_20.yaml", tiny_ucf, tmp_path, "run")
    assert main(["test", *arguments, f"--ckpt_path={path}"]) == 2
    assert str(path) in one_line(capsys)


def test_an_unwritable_output_folder(tiny_ucf: Path, fitted: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = options("ucf101_20.yaml", tiny_ucf, tmp_path, "file/run")
    capsys.readouterr()
    assert main(["fit", *arguments]) == 2
    assert str(tmp_path / "file") in one_line(capsys)
    video = str(next((tiny_ucf / "root").glob("*/*.mp4")))
    assert main(["inspect", video, "--checkpoint", checkpoint(fitted), "--out", str(tmp_path / "file" / "x")]) == 2
    assert str(tmp_path / "file") in one_line(capsys)


@pytest.mark.parametrize("make", [write_empty, write_text, write_audio_only])
def test_a_bad_file(make: Any, fitted: Path, tmp_path: Path, capsys: Any) -> None:
    path = make(tmp_path / "bad.mp4")
    capsys.readouterr()
    assert main(["inspect", str(path), "--checkpoint", checkpoint(fitted), "--out", str(tmp_path / "out")]) == 1
    assert str(path) in one_line(capsys)


def test_bad_files_in_a_test_are_counted_and_named(fitted: Path, tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_ucf, copy)
    bad = sorted((copy / "root").glob("*/*_g0[12]_*.mp4"))
    write_empty(bad[0])
    arguments = options("ucf101_20.yaml", copy, tmp_path, "few")
    assert main(["test", *arguments, f"--ckpt_path={checkpoint(fitted)}"]) == 0
    few = json.loads((tmp_path / "few" / "metrics.json").read_text())
    assert [video["id"] for video in few["failed"]] == [f"Archery/{bad[0].stem}"]
    assert few["videos"] == 6
    assert few["per_class"][0]["top1"] <= 0.5
    for path in bad:
        write_text(path)
    arguments = options("ucf101_20.yaml", copy, tmp_path, "many")
    capsys.readouterr()
    assert main(["test", *arguments, f"--ckpt_path={checkpoint(fitted)}"]) == 1
    many = json.loads((tmp_path / "many" / "metrics.json").read_text())
    assert (many["top1"], len(many["failed"])) == (0.0, 6)
    assert "6 of 6 videos could not be read" in capsys.readouterr().err


def test_too_many_bad_files_stop_training(tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_ucf, copy)
    bad = sorted((copy / "root").glob("*/*_g0[3-5]_*.mp4"))
    for path in bad:
        write_empty(path)
    assert main(["fit", *options("ucf101_20.yaml", copy, tmp_path, "run")]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert len(re.findall(r"_g0[3-5]_c01\.mp4: .*?empty", errors)) >= 6


def test_optimizer_of_a_model_that_is_not_made_yet(tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    words = options("ucf101_20.yaml", tiny_ucf, tmp_path, "run")
    assert main(["fit", *words, "--optimizer=SGD", "--optimizer.lr=0.1"]) == 2
    assert "--optimizer: the model is made when" in one_line(capsys)


def test_a_switch_may_stand_alone(tiny_ucf: Path, tmp_path: Path) -> None:
    """The tiny data set has no error but warnings, which only ``--strict`` turns into a failure."""
    words = ["doctor", str(tiny_ucf / "root"), f"--cache_dir={tmp_path}", "--min_frames=99", "--workers=1"]
    assert main(words) == 0
    assert main([*words, "--strict"]) == 1
    assert main([*words, "--strict", f"--json={tmp_path / 'found.json'}"]) == 1
    assert main([*words, "--strict=false"]) == 0


def test_best_and_last_are_files_of_the_run(tiny_ucf: Path, tmp_path: Path, capsys: Any) -> None:
    words = [*options("ucf101_20.yaml", tiny_ucf, tmp_path, "run"), "--trainer.logger=false"]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert main(["test", *words, "--ckpt_path=last"]) == 2
    assert "last.ckpt: no such file" in one_line(capsys)
    assert main(["fit", *words, "--ckpt_path=last"]) == 0  # nothing yet to go on with
    first = torch.load(last, weights_only=True)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert main(["fit", *words, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 2 * first["global_step"]
    trained = (tmp_path / "run" / "config.yaml").read_text()
    assert trained != config
    assert main(["test", *words, "--ckpt_path=best"]) == 0
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert (tmp_path / "run" / "config.yaml").read_text() == trained  # how it was trained, not how it was tested
    assert (tmp_path / "run" / "config_test.yaml").is_file()
