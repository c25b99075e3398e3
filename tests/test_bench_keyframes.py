"""The benchmark of frame scores: what is summed up, how sure it is, and that each suite runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy import stats

from datamodules.synthetic import TASKS
from temporal_attn.bench import keyframe_faith, keyframe_tvsum, keyframes
from temporal_attn.bench.keyframe_baselines import centre_prior, motion_energy, spread_evenly
from temporal_attn.bench.keyframe_captum import compare_with_captum
from temporal_attn.bench.keyframe_clips import COLUMNS
from temporal_attn.bench.keyframe_models import SmallClassifier, Training, render_clips, train_classifier
from temporal_attn.bench.keyframe_regimes import Test as RegimeTest
from temporal_attn.bench.keyframe_regimes import evaluate_regime
from temporal_attn.bench.keyframe_rows import cross_rows, paired_difference, rows_of
from temporal_attn.bench.keyframe_synth import BUDGETS, MODEL_OF
from temporal_attn.bench.keyframe_targets import check_sanity
from temporal_attn.bench.nested_bootstrap import interval, mean_over_seeds, resampled_means
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError
from tests.videos import write_video

TINY = Training("or", seed=3, steps=2, batch=4, groups=1, clips=1)


# Intervals


def test_interval_of_one_seed_is_that_of_a_mean():
    sample = np.random.default_rng(0).normal(2, 1, (200, 1))
    low, high = interval(resampled_means([sample], draws=4000), lambda means: means[:, 0])
    half = 1.96 * sample.std() / np.sqrt(200)
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.02)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    alike, apart = ([rng.normal(shift * step, 0.1, (50, 1)) for shift in range(3)] for step in (0, 1))
    width = [np.ptp(interval(resampled_means(s, draws=2000), lambda means: means[:, 0])) for s in (alike, apart)]
    assert width[1] > 5 * width[0]


def test_seeds_count_alike_and_missing_values_not_at_all():
    samples = [np.array([[1.0], [np.nan], [3.0]]), np.array([[10.0]])]
    assert mean_over_seeds(samples) == pytest.approx(6)
    assert interval(np.full((5, 1), np.nan), lambda means: means[:, 0]) is None


def answers(**columns):
    """Two clips of one seed, every column constant but those given."""
    rows = [[0.5] * len(COLUMNS) for _ in range(2)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[COLUMNS.index(name)] = value
    return rows


def test_ndel_is_a_ratio_of_means():
    scale = {"random_deletion": [0.8, 0.4], "best_deletion": [0.2, 0.4]}
    found = [{"methods": {"drop/auto": answers(deletion=[0.2, 0.5], **scale)}, "cross": {}}]
    (row,) = rows_of("or", found)
    assert row["ndel"] == pytest.approx((0.6 - 0.35) / (0.6 - 0.3))
    assert row["nins"] is None, "random orders are as good as the best"
    assert (row["regime"], row["method"], row["removal"], row["seeds"], row["clips"]) == ("or", "auto", "drop", 1, 2)


def test_difference_is_taken_on_the_clips_that_both_have():
    auto, exact = answers(auroc=[0.9, 0.1]), answers(auroc=[0.8, 0.0])[:1]
    found = [{"methods": {"drop/auto": auto, "drop/exact": exact}}]
    value, ci = paired_difference(found, "auroc", "auto", "exact")
    assert value == pytest.approx(0.1)
    assert ci == pytest.approx([0.1, 0.1])


def test_failed_checks_are_told_in_words():
    good = {
        "random_head_tau": 0.1,
        "random_head_auroc": 0.5,
        "completeness_gap": 1e-6,
        "missingness_drift_drop": 0.0,
    }
    assert check_sanity(good) == []
    assert "shuffled head" in check_sanity({**good, "random_head_tau": 0.8})[0]
    assert "out of distribution" in check_sanity({**good, "missingness_drift_drop": 0.05})[0]
    assert "finds key frames" in check_sanity({**good, "random_head_auroc": 0.9})[0]


# Baselines


def test_motion_is_the_mean_difference_to_the_neighbours():
    video = torch.tensor([0, 10, 10, 40], dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2)
    assert motion_energy(video).tolist() == [10, 5, 15, 30]
    assert motion_energy(video[:1]).tolist() == [0]


@pytest.mark.parametrize("players", [1, 2, 12, 16])
def test_priors_need_only_the_length(players):
    order = spread_evenly(players).argsort(descending=True).tolist()
    assert sorted(order) == list(range(players))
    if players == 16:
        assert order[:4] == [0, 8, 4, 12]
    assert torch.equal(centre_prior(players), centre_prior(players).flip(0))
    assert centre_prior(players).argmax() in (players // 2, (players - 1) // 2)


# Suite synth


def test_training_is_kept_and_a_warm_start_lends_what_speaks_against_a_glyph(tmp_path):
    model = train_classifier(TINY, tmp_path)
    assert not model.training
    file = TINY.file(tmp_path)
    written = file.stat().st_mtime_ns
    again = train_classifier(TINY, tmp_path)
    assert file.stat().st_mtime_ns == written
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    started = train_classifier(Training("set", 3, 0, "or", batch=4, groups=1, clips=1), tmp_path, file)
    assert torch.equal(started.head.weight, -model.head.weight)
    assert torch.equal(started.project[1].weight, model.project[1].weight)
    ordered = train_classifier(Training("order", 3, 0, "or", batch=4, groups=1, clips=1), tmp_path, file)
    assert ordered.head.weight.shape == (2, 64)


def test_rendered_clips_say_where_the_key_frames_are():
    clips = render_clips("event", range(2), 1)
    assert clips.video.shape == (8, 16, 3, 64, 64)
    assert clips.key.sum(1).tolist() == [3] * 8
    assert clips.label.tolist() == [0, 1, 2, 3] * 2
    assert clips.pts[1] == pytest.approx(0.08)


def test_a_regime_is_asked_and_summed_up(tmp_path):
    train_classifier(TINY, tmp_path)
    result = evaluate_regime(TINY, tmp_path, RegimeTest("event", frames=6, groups=1, clips=1, exact=2))
    assert (result["clips"], result["regime"], result["seed"]) == (4, "event", 3)
    assert 1 <= result["explained"] <= 4
    assert json.loads(json.dumps(result["checks"]))["completeness_gap"] < 1e-3
    rows = {(row["method"], row["removal"]): row for row in rows_of("event", [result])}
    wanted = {"auto", "exact", "loo", "loo+loi", "attn_pool", "random", "uniform", "motion_energy", "centre_prior"}
    assert wanted | {"greedy", "truth"} <= {method for method, removal in rows if removal == "drop"}
    assert {removal for method, removal in rows if method == "auto"} == {"drop", "nearest", "mean"}
    assert rows["truth", "drop"]["auroc"] == rows["truth", "drop"]["p_at_3"] == 1
    assert rows["exact", "drop"]["tau"] == pytest.approx(1)
    assert rows["exact", "drop"]["rel_l2"] == 0
    assert rows["attn_pool", "drop"]["rel_l2"] is None, "weights are no logits"
    assert rows["loo+loi", "drop"]["evals"] == 2 * 6 + 2
    assert rows["random", "drop"]["ndel"] == pytest.approx(0, abs=1e-9)
    assert all(row["ndel"] is None or row["ndel"] <= 1 + 1e-9 for row in rows.values() if row["removal"] == "drop")
    assert len(cross_rows("event", [result])) == 9


def test_budgets_hold_every_regime_and_three_seeds():
    for budget in BUDGETS.values():
        assert len(budget.seeds) >= 3
        assert set(MODEL_OF.values()) == set(budget.steps)
        for regime in MODEL_OF:
            test = budget.test(regime)
            assert len(TASKS[regime].class_names) * test.groups * test.clips == budget.videos


def test_small_classifier_answers_clips_of_any_length():
    model = SmallClassifier(4).eval()
    video = torch.randint(256, (2, 5, 3, 64, 64), dtype=torch.uint8)
    pts = torch.arange(5.0).expand(2, -1)
    output = model(video, torch.tensor([[True] * 5, [True] * 2 + [False] * 3]), pts)
    assert output.logits.shape == (2, 4)
    alone = model.classify(model.encode_frames(video[1:, :2]).tokens, None, pts[1:, :2])
    assert torch.allclose(output.logits[1], alone.logits[0], atol=1e-5)
    assert not output.frame_weights[1, 2:].any()


def test_captum_gives_the_same_values_and_takes_longer():
    pytest.importorskip("captum")
    found = compare_with_captum(permutations=4, frames=3, side=32)
    assert found["distance"] < 1e-4  # the same orders, so nothing but rounding
    assert found["ratio"] > 1


# Suite faith


def test_a_classifier_is_asked_about_videos_and_a_run_goes_on(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    clip = {"num_frames": 4, "sampling": "uniform", "stride": 1, "resize": 32, "crop": 32, "repeat_short": True}
    module = VideoClassificationModule(class_names=["a", "b"], clip_spec=clip, backbone="test_resnet", dim=8, heads=2)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "best.ckpt")
    for name in ("v_A_g01_c01", "v_A_g01_c02", "v_A_g02_c01"):
        frames = np.random.default_rng(len(name)).integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
        write_video(tmp_path / f"{name}.mp4", frames)
    (tmp_path / "v_A_g03_c01.mp4").write_bytes(b"no video")
    write_video(tmp_path / "v_A_g00_c01.mp4", np.zeros((1, 48, 64, 3), np.uint8))
    options = {
        "checkpoint": str(tmp_path / "best.ckpt"),
        "root": str(tmp_path / "*.mp4"),
        "runs": str(tmp_path / "runs"),
    }
    keyframes.bench_keyframes("faith", json=str(tmp_path / "first.json"), **options)
    said = capsys.readouterr()
    assert "left out" in said.err
    assert "v_A_g00_c01.mp4: the clip has one frame" in said.err
    assert "auto is" in said.out
    first = json.loads((tmp_path / "first.json").read_text())
    rows = {(row["method"], row["removal"]): row for row in first["rows"]}
    assert {"auto", "loo+loi", "attn_pool", "random", "uniform", "motion_energy", "centre_prior", "greedy"} <= {
        method for method, removal in rows if removal == "drop"
    }
    assert rows["auto", "drop"]["auroc"] is None, "no key frames are known"
    assert rows["auto", "drop"]["clips"] == first["models"][0]["groups"] == 2
    assert len(first["removals"]) == 9

    monkeypatch.setattr(keyframe_faith, "load_clip", None)  # nothing is decoded again
    (tmp_path / "v_A_g03_c01.mp4").unlink()
    keyframes.bench_keyframes("faith", json=str(tmp_path / "second.json"), **options)
    second = json.loads((tmp_path / "second.json").read_text())
    assert [row["ndel"] for row in second["rows"]] == [row["ndel"] for row in first["rows"]]


# Suite tvsum


def test_people_are_compared_as_scipy_does():
    people = torch.from_numpy(np.random.default_rng(0).integers(1, 6, (4, 15)).astype(float))
    found = keyframe_tvsum.agreement_with_people(people)
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    assert found["people"][0] == pytest.approx(
        np.mean([stats.kendalltau(people[a], people[b]).statistic for a, b in pairs]), abs=1e-6
    )
    others = [(people.sum(0) - person) / 3 for person in people]
    assert found["mean_of_others"][1] == pytest.approx(
        np.mean([stats.spearmanr(a, b).statistic for a, b in zip(people, others, strict=True)]), abs=1e-6
    )
    assert found["edge_prior"] == pytest.approx((-found["centre_prior"][0], -found["centre_prior"][1]))


def test_file_of_the_annotations_is_read_every_15th_frame(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "ydata-tvsum50.mat"
    people = np.random.default_rng(0).integers(1, 6, (3, 200)).astype(float)
    with h5py.File(path, "w") as file:
        file["one"] = people
        file.create_dataset("tvsum50/user_anno", (1, 1), h5py.ref_dtype)[0, 0] = file["one"].ref
    (read,) = keyframe_tvsum.read_tvsum(str(path))
    assert np.array_equal(read, people[:, ::15])


@pytest.mark.slow
@pytest.mark.shared_data
def test_published_numbers_are_reproduced(shared_data, tmp_path, capsys):
    pytest.importorskip("h5py")
    out = tmp_path / "tvsum.json"
    path = shared_data / "tvsum" / "ydata-tvsum50.mat"
    assert keyframes.bench_keyframes("tvsum", json=str(out), tvsum=str(path)) == 0
    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    for method in ("people", "random", "centre_prior"):
        assert (rows[method]["tau"], rows[method]["rho"]) == pytest.approx(keyframe_tvsum.PUBLISHED[method], abs=2e-3)
    assert "mean_of_others" in capsys.readouterr().out


# The command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "nonsense"}, "suite: 'nonsense'"),
        ({"budget": "huge"}, "budget: 'huge'"),
        ({"suite": "tvsum"}, "tvsum: suite tvsum needs"),
        ({"suite": "tvsum", "tvsum": "nowhere.mat"}, "nowhere.mat does not exist"),
        ({"suite": "faith"}, "checkpoint: suite faith"),
        ({"suite": "faith", "checkpoint": "x.ckpt"}, "root: suite faith"),
    ],
)
def test_wrong_use_says_what_to_do(options, message):
    with pytest.raises(UserError, match=message):
        keyframes.bench_keyframes(**options)
