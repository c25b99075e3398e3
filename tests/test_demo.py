"""The demo, drastically shortened, and the numbers it derives from inspections."""

from __future__ import annotations

import contextlib
import io
import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from datamodules.synthetic import frame_average_bound, key_frames
from temporal_attn.demo import run_demo
from temporal_attn.demo.result import SCHEMA, auroc
from temporal_attn.inference import load_classifier, predict_video
from temporal_attn.types import UserError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo of one epoch on one group: it learns nothing, but everything runs."""
    base = tmp_path_factory.mktemp("demo")
    out = base / "out"
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        status = run_demo(
            out=str(out), root=str(base / "videos"), epochs=1, train_groups=1, val_groups=1, test_groups=1
        )
    assert status == 0
    (base / "stdout.txt").write_text(stdout.getvalue())
    return out


def test_metrics_hold_both_models_the_bound_and_the_key_frames(demo):
    metrics = json.loads((demo / "metrics.json").read_text())
    assert metrics["schema"] == SCHEMA
    assert metrics["frame_average_bound"] == frame_average_bound("actions")
    for model in ("temporal", "mean_pool"):
        summary = metrics[model]
        assert summary["videos"] == 16
        assert summary["failed"] == []
        # Reference: the diagonal of the confusion matrix.
        confusion = torch.tensor(summary["confusion"])
        assert summary["top1"] == pytest.approx(confusion.trace().item() / confusion.sum().item())
    assert metrics["keyframes"]["method"] == "auto"
    assert metrics["keyframes"]["videos"] == 4
    assert 0 <= metrics["keyframes"]["auroc"] <= 1
    assert metrics["settings"]["epochs"] == 1


def test_mean_pool_of_any_weights_stays_under_the_bound(demo):
    """Order-blind by construction, so exact for every training: the two videos of a pair get one answer."""
    metrics = json.loads((demo / "metrics.json").read_text())
    assert metrics["mean_pool"]["top1"] <= metrics["frame_average_bound"]


def test_checkpoint_is_the_temporal_model_and_classifies_a_file(demo):
    loaded = load_classifier(demo / "checkpoint.ckpt")
    video = next((demo.parent / "videos").rglob("v_FlashX_g01_c01.mp4"))
    assert key_frames(video)
    prediction = predict_video(loaded, video)
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert len(prediction["frames"]) == 16
    assert any("temporal.blocks.1" in name for name, _ in loaded.model.named_parameters())


def test_report_stands_alone_and_shows_four_film_strips(demo):
    page = (demo / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert page.count('class="film"') == 4
    assert page.count("<polyline") == 4
    assert "62.5 %" in page


def test_outcome_is_all_of_stdout(demo):
    lines = (demo.parent / "stdout.txt").read_text().splitlines()
    assert lines[-1] == str(demo / "report.html")
    assert [line.split(",")[0] for line in lines[1:3]] == ["attention over time", "mean of frames"]
    assert len(lines) == 6


def test_wrong_use_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="epochs is 0"):
        run_demo(out=str(tmp_path / "out"), epochs=0)
    with pytest.raises(UserError, match="val_groups is 0"):
        run_demo(out=str(tmp_path / "out"), val_groups=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        run_demo(out=str(tmp_path / "file"), root=str(tmp_path / "videos"))
    assert not (tmp_path / "videos").exists()


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=20))
def test_auroc_is_sklearns(frames):
    scores, positive = zip(*frames, strict=True)
    if len(set(positive)) == 2:
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
