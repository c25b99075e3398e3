"""The experiment with the spatial transformer on digits, in miniature."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "stn_digits.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stn_digits", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stn_digits"] = module
    spec.loader.exec_module(module)
    return module


def test_prints_both_accuracies_and_draws(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("sklearn")
    from PIL import Image

    bundled = script.bundled_digits
    few = [script.Digits(part.images[:64], part.labels[:64]) for part in bundled()]
    monkeypatch.setattr(script, "bundled_digits", lambda: few)
    out = tmp_path / "new" / "digits.png"
    script.main(["--seeds", "0", "1", "--epochs", "1", "--out", str(out)])
    printed = capsys.readouterr().out
    for line in ("2 seeds of 1 epochs", "without spatial transformer (", "with spatial transformer (", "gain: "):
        assert line in printed
    picture = np.asarray(Image.open(out).convert("RGB")).astype(int)
    orange = (np.abs(picture - (255, 159, 28)).sum(-1) < 30).sum()
    assert orange > 500  # frames were drawn over the digits


def test_digits_of_the_test_are_not_trained_on(script: ModuleType):
    pytest.importorskip("sklearn")
    training, test = script.bundled_digits()
    assert (len(training.labels), len(test.labels)) == (1347, 450)
    from sklearn.datasets import load_digits

    together = torch.cat((training.images, test.images)).flatten(1).mul(16).numpy()
    assert sorted(map(tuple, together)) == sorted(map(tuple, load_digits().data.astype(np.float32)))


def test_distorted_digits_stay_on_the_canvas(script: ModuleType):
    blank = torch.ones(200, 1, 8, 8)
    canvases = script.distort(blank, torch.Generator().manual_seed(0))
    assert canvases.shape == (200, 1, 28, 28)
    area = canvases.sum((1, 2, 3))
    assert area.min() > 0.5 * (0.7 * 14) ** 2
    assert area.max() < 1.1 * (1.2 * 14) ** 2
    assert canvases.mean(0)[0, 3:-3, 3:-3].min() > 0  # digits come everywhere
    again = script.distort(blank, torch.Generator().manual_seed(0))
    assert torch.equal(canvases, again)


def test_frame_is_where_the_output_is_taken_from(script: ModuleType):
    corners = script.quadrilateral(torch.tensor([[0.5, 0, 0.5], [0, 0.5, -0.5]]), 100)
    assert corners == [(50.0, 0.0), (100.0, 0.0), (100.0, 50.0), (50.0, 50.0)]  # the upper right quarter


def test_interval_is_over_digits_and_not_over_their_poses(script: ModuleType):
    right = torch.arange(40) % 2 == 0
    every_pose = script.accuracy(right.float().repeat(script.POSES))
    assert every_pose.startswith("50.0 % (95 % interval 3")


def test_wrong_use_is_named(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for words, message in (
        (["--mnist", str(tmp_path), "--out", str(tmp_path / "a.png")], "MNIST is not there"),
        (["--out", str(tmp_path / "a.jpg")], "ends in .png"),
        (["--epochs", "0"], "at least one"),
    ):
        with pytest.raises(SystemExit) as caught:
            script.main(words)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_missing_scikit_learn_is_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit):
        script.main([])
    assert "pip install scikit-learn" in capsys.readouterr().err


def test_mnist_is_read_where_it_is(script: ModuleType, tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 3)):
        images = np.arange(count, dtype=np.uint8).repeat(28 * 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            np.array([2051, count, 28, 28], ">i4").tobytes() + images.tobytes()
        )
        labels = np.arange(count, dtype=np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([2049, count], ">i4").tobytes() + labels.tobytes())
    training, test = script.mnist_digits(tmp_path)
    assert training.images.shape == (5, 1, 20, 20)
    assert test.labels.tolist() == [0, 1, 2]
    assert torch.equal(test.images[2], torch.full((1, 20, 20), 2 / 255))
