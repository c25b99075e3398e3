"""Temperature, calibration error and its interval, against scipy and plain loops; and the way they take in a fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.callbacks import BestCheckpoint, MetricsWriter, PredictionWriter
from temporal_attn.evaluation.calibration import calibration_interval, reliability
from temporal_attn.evaluation.predictions import predict_batch
from temporal_attn.evaluation.scoring import Scoring, calibrated, fit_temperature, negative_log_likelihood
from temporal_attn.metrics import VideoScore
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError
from tests.bright_clips import Clips, Numbered, loader, module, trainer


def sampled(videos: int, views: int, temperature: float, seed: int = 0) -> VideoScore:
    """Logits whose labels are drawn from softmax(z / T); further views are the same with noise."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(videos, 6, generator=generator)
    label = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    noise = 0.3 * torch.randn(views, videos, 6, generator=generator) * (views > 1)
    index = torch.arange(videos).repeat(views)
    return VideoScore(index, (logits + noise).flatten(0, 1), label.repeat(views))


def plain_ece(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        own = (confidence > low) & (confidence <= high) if number else confidence <= high
        if own.any():
            total += own.mean() * abs(correct[own].mean() - confidence[own].mean())
    return total


def test_ece_is_the_plain_loop_over_bins():
    rng = np.random.default_rng(0)
    confidence = np.append(rng.random(300), [0.0, 1.0, 1 / 15, 0.2])  # edges belong to the bin below
    correct = (rng.random(304) < confidence).astype(float)
    diagram = reliability(confidence, correct)
    assert diagram.ece == pytest.approx(plain_ece(confidence, correct))
    assert diagram.videos.sum() == 304
    assert diagram.accuracy[-1] == pytest.approx(correct[confidence > 14 / 15].mean())


def test_the_interval_holds_the_estimate_and_equals_a_plain_bootstrap():
    rng = np.random.default_rng(1)
    confidence, groups = rng.uniform(0.3, 1, 240), [f"g{i % 24}" for i in range(240)]
    correct = (rng.random(240) < confidence**2).astype(float)
    low, high = calibration_interval(confidence, correct, groups)
    estimate = plain_ece(confidence, correct)
    assert low <= estimate <= high
    members = [np.arange(240)[np.array(groups) == name] for name in sorted(set(groups))]
    draws = [np.concatenate([members[i] for i in rng.integers(0, 24, 24)]) for _ in range(2000)]
    found = np.sort([plain_ece(confidence[rows], correct[rows]) for rows in draws])
    expected = (2 * estimate - found[1950], 2 * estimate - found[50])
    np.testing.assert_allclose((low, high), expected, atol=0.012)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_the_temperature_is_where_scipy_finds_the_minimum(average: Any, truth: float):
    optimize = pytest.importorskip("scipy.optimize")
    views = sampled(400, 2, truth)
    scoring = Scoring(average)

    def cost(log_t: float) -> float:
        found = Scoring(average, temperature=math.exp(log_t)).by_video(views)
        log_p = found.scores.double().log().numpy()[np.arange(400), found.label.numpy()]
        return float(-log_p.sum() + log_t**2 / 2)

    best = optimize.minimize_scalar(cost, bounds=(-3, 3), method="bounded").x
    assert fit_temperature(views, scoring) == pytest.approx(math.exp(best), rel=2e-3)
    assert fit_temperature(views, scoring) == pytest.approx(truth, rel=0.25)


def test_calibration_lowers_the_error_on_other_videos():
    scoring = calibrated(sampled(800, 1, 2.0), Scoring())
    other = sampled(800, 1, 2.0, seed=1)

    def error(way: Scoring) -> float:
        confidence, top = way.by_video(other).scores.max(1)
        return reliability(confidence.double().numpy(), (top == other.label).double().numpy()).ece

    assert error(scoring) < 0.5 * error(Scoring())


def test_fits_that_have_nothing_to_hold_on_to():
    logits = torch.eye(4) * 5
    right = VideoScore(torch.arange(4), logits, torch.arange(4))
    wrong = VideoScore(torch.arange(4), logits, (torch.arange(4) + 1) % 4)
    assert 0.3 < fit_temperature(right, Scoring()) < 1  # all right: surer, but not without end
    assert 1 < fit_temperature(wrong, Scoring()) < 20
    nobody = VideoScore(torch.arange(4), logits, torch.full((4,), -1))
    assert calibrated(nobody, Scoring(temperature=3.0)).temperature == 1
    logits = logits.clone()
    logits[0] = float("nan")
    broken = VideoScore(torch.arange(4), logits, torch.arange(4))
    assert math.isfinite(calibrated(broken, Scoring()).temperature)


def test_views_are_averaged_as_asked():
    views = VideoScore(torch.tensor([7, 7, 2]), torch.tensor([[4.0, 0], [0, 2], [1, 1]]), torch.tensor([0, 0, 1]))
    by_p = Scoring("probabilities", temperature=2.0).by_video(views)
    by_z = Scoring("logits", temperature=2.0).by_video(views)
    assert by_p.index.tolist() == by_z.index.tolist() == [2, 7]
    softmax = (views.scores / 2).softmax(1)
    assert torch.allclose(by_p.scores[1], softmax[:2].mean(0))
    assert torch.allclose(by_z.scores[1], (torch.tensor([2.0, 1.0]) / 2).softmax(0))
    sigmoid = Scoring("logits", multi_label=True).by_video(views).scores
    assert torch.allclose(sigmoid[1], torch.tensor([2.0, 1.0]).sigmoid())
    with pytest.raises(ValueError, match="probabilities or logits"):
        Scoring("median")  # type: ignore[arg-type]


def test_predictions_average_views_and_keep_the_order():
    index, logits = torch.tensor([0, 0, 1, 1]), torch.tensor([[4.0, 0], [0, 2], [1, 1], [0, 3]])
    rows = predict_batch(["a", "a", "b", "b"], index, logits, ["x", "y"], Scoring(threshold=0.8))
    assert [row["video_id"] for row in rows] == ["a", "b"]
    assert list(rows[0]["probabilities"].values()) == pytest.approx(logits[:2].softmax(1).mean(0).tolist())
    assert [row["abstained"] for row in rows] == [max(row["probabilities"].values()) < 0.8 for row in rows]
    assert "abstained" not in predict_batch(["a"], index[:1], logits[:1], ["x", "y"], Scoring())[0]


def test_likelihood_of_certainty_is_finite():
    assert math.isfinite(negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).item())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VideoClassificationModule]:
    """A run of three epochs with a threshold."""
    folder = tmp_path_factory.mktemp("fitted")
    pl.seed_everything(0)
    net = module(lr=3e-3, backbone_lr=3e-3, frame_dropout=0.0, abstain_coverage=0.5)
    run = trainer(folder, max_epochs=3, callbacks=[BestCheckpoint("val/loss", "min")], enable_checkpointing=True)
    run.fit(net, loader(shuffle=True), DataLoader(Numbered(size=15), batch_size=4))
    return folder, net


def test_every_checkpoint_has_the_temperature_of_its_weights(fitted: tuple[Path, VideoClassificationModule]):
    for name in ("best", "last"):
        path = fitted[0] / "checkpoints" / f"{name}.ckpt"
        net = VideoClassificationModule.load_from_checkpoint(path, weights_only=True).eval()
        data = Clips(size=15)
        with torch.no_grad():
            logits = torch.cat([net.model(data.video[i : i + 1]).logits for i in range(15)])
        expected = calibrated(VideoScore(torch.arange(15), logits, data.label), Scoring(), coverage=0.5)
        assert net.scoring.temperature == pytest.approx(expected.temperature, rel=1e-2)
        assert net.scoring.threshold == pytest.approx(expected.threshold, abs=1e-2)
        assert net.scoring.temperature != 1


def test_seconds_of_training_travel_and_add_up(fitted: tuple[Path, VideoClassificationModule], tmp_path: Path):
    folder, net = fitted
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    before = torch.load(last, weights_only=True)["train_s"]
    whole = torch.load(best, weights_only=True)["train_s"]
    assert net.train_s is not None
    assert 0 < before <= whole <= net.train_s  # the best one too knows of the epochs after it
    again = module()
    trainer(tmp_path, max_epochs=4).fit(again, loader(), ckpt_path=str(last))
    assert again.train_s is not None
    assert again.train_s > before


def test_what_is_tested_and_what_is_predicted_are_the_same(
    fitted: tuple[Path, VideoClassificationModule], tmp_path: Path
):
    net = VideoClassificationModule.load_from_checkpoint(fitted[0] / "checkpoints" / "best.ckpt", weights_only=True)
    data = DataLoader(Numbered(size=15), batch_size=4)
    trainer(tmp_path, callbacks=[MetricsWriter()]).test(net, data, verbose=False)
    trainer(tmp_path, callbacks=[PredictionWriter()]).predict(net, data)
    tested, predicted = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("test_predictions.jsonl", "predictions.jsonl")
    )
    assert [{key: row[key] for key in predicted[0]} for row in tested] == predicted
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["temperature"] == net.scoring.temperature
    assert document["train_s"] == net.train_s
    right = [row["class"] == row["label"] for row in tested]
    assert document["top1"] == pytest.approx(np.mean(right))
    confidence = np.array([max(row["probabilities"].values()) for row in tested])
    assert document["ece"] == pytest.approx(plain_ece(confidence, np.array(right, float)), abs=1e-6)
    assert document["selective"]["coverage"] == pytest.approx(np.mean([not row["abstained"] for row in tested]))


def test_an_old_checkpoint_has_temperature_one(fitted: tuple[Path, VideoClassificationModule], tmp_path: Path):
    stored = torch.load(fitted[0] / "checkpoints" / "best.ckpt", weights_only=True)
    for key in ("calibration", "train_s"):
        del stored[key]
    torch.save(stored, tmp_path / "old.ckpt")
    net = VideoClassificationModule.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    assert (net.scoring.temperature, net.scoring.threshold, net.train_s) == (1.0, None, None)


def test_a_video_without_a_label_is_not_tested(tmp_path: Path):
    data = Numbered(size=6)
    data.label[3] = -1
    with pytest.raises(UserError, match=r"video v3 has no label.*predict"):
        trainer(tmp_path).test(module(), DataLoader(data, batch_size=4), verbose=False)


@pytest.mark.parametrize(
    "wrong", [{"average": "max"}, {"abstain_risk": 2.0}, {"abstain_risk": 0.1, "abstain_coverage": 0.9}]
)
def test_wrong_settings_are_user_errors(wrong: dict[str, Any]):
    with pytest.raises(UserError):
        module(**wrong)
