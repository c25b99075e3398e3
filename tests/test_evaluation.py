"""The document of a test, by hand and against scikit-learn, and its intervals against a plain bootstrap."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from temporal_attn.evaluation import VideoRow, bootstrap_over_groups, summarise
from temporal_attn.evaluation.intervals import draw_groups
from temporal_attn.evaluation.ranking import average_precision
from temporal_attn.types import FailedVideo

NAMES = ["Archery", "Basketball", "Surfing"]


def failure(name: str, label: int | tuple[int, ...], group: str = "g9") -> FailedVideo:
    return FailedVideo(id=name, path=f"videos/{name}.avi", reason="no stream", label=label, group=group, index=0)


def test_by_hand():
    rows = [
        VideoRow("a", "g1", 0, [0.7, 0.2, 0.1]),
        VideoRow("b", "g1", 0, [0.3, 0.4, 0.3]),
        VideoRow("c", "g2", 1, [0.1, 0.8, 0.1]),
        VideoRow("unlabelled", "g3", -1, [0.1, 0.8, 0.1]),
    ]
    document = summarise(rows, NAMES, [failure("d", 1)], missing=["z", "y"], extra={"fold": 1})
    assert document["schema"] == "temporal_attn/metrics/1"
    assert document["videos"] == 4
    assert document["groups"] == 3
    assert document["top1"] == 2 / 4
    assert document["top5"] == 3 / 4  # three classes: only the failed video is not among them
    assert document["mean_class_accuracy"] == (1 / 2 + 1 / 2) / 2  # nobody tested surfing
    assert [{key: row[key] for key in ("class", "n", "top1")} for row in document["per_class"]] == [
        {"class": "Archery", "n": 2, "top1": 0.5},
        {"class": "Basketball", "n": 2, "top1": 0.5},
        {"class": "Surfing", "n": 0, "top1": None},
    ]
    assert document["missing"] == 2
    assert document["missing_ids"] == ["y", "z"]
    assert document["failed"] == [{"id": "d", "path": "videos/d.avi", "reason": "no stream"}]
    assert document["fold"] == 1
    low, high = document["ci95"]
    assert 0 <= low <= document["top1"] <= high <= 1
    assert json.loads(json.dumps(document)) == document


def test_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    classes = 8
    labels = rng.integers(0, classes - 1, 120)  # the last class is absent
    scores = rng.random((120, classes))
    scores[np.arange(120), labels] += rng.random(120)
    rows = [
        VideoRow(str(i), f"g{i % 7}", int(k), s.tolist()) for i, (k, s) in enumerate(zip(labels, scores, strict=True))
    ]
    document = summarise(rows, [f"c{k}" for k in range(classes)])
    predicted = scores.argmax(1)
    assert document["top1"] == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert document["top5"] == pytest.approx(sklearn.top_k_accuracy_score(labels, scores, k=5, labels=range(classes)))
    present = list(range(classes - 1))
    precision = sklearn.precision_score(
        labels, predicted, labels=[*present, classes - 1], average=None, zero_division=0
    )
    assert document["mean_class_accuracy"] == pytest.approx(
        sklearn.recall_score(labels, predicted, labels=present, average="macro")
    )
    matrix = sklearn.confusion_matrix(labels, predicted, labels=[*present, classes - 1])
    for k, entry in enumerate(document["per_class"][:-1]):
        assert entry["n"] == matrix[k].sum()
        assert entry["top1"] == entry["recall"] == pytest.approx(matrix[k, k] / matrix[k].sum(), abs=1e-6)
        assert entry["precision"] == pytest.approx(precision[k], abs=1e-6)
        expected = sklearn.average_precision_score(labels == k, scores[:, k])
        assert entry["average_precision"] == pytest.approx(expected, abs=1e-6)
    assert document["confusion"] == matrix.tolist()
    by_class = [sklearn.average_precision_score(labels == k, scores[:, k]) for k in present]
    assert document["map"] == pytest.approx(np.mean(by_class), abs=1e-6)
    low, high = document["map_ci95"]
    assert low < document["map"] < high


def test_probabilistic_scores_equal_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 5, 200), rng.dirichlet(np.ones(5), 200)
    rows = [VideoRow(str(i), f"g{i % 9}", int(labels[i]), scores[i]) for i in range(200)]
    document = summarise(rows, list("abcde"), [failure("x", 1)])  # a failed video has no probabilities to judge
    assert document["nll"] == pytest.approx(sklearn.log_loss(labels, scores, labels=range(5)), abs=1e-6)
    one_hot = np.eye(5)[labels]
    by_class = [sklearn.brier_score_loss(one_hot[:, k], scores[:, k]) for k in range(5)]
    assert document["brier"] == pytest.approx(sum(by_class), abs=1e-6)


def test_without_any_class_there_is_nothing_to_be_right_about():
    rows = [VideoRow("a", "a", (), [0.9, 0.1, 0.2]), VideoRow("b", "b", (1,), [0.1, 0.9, 0.2])]
    document = summarise(rows, NAMES)
    assert (document["top1"], document["top5"], document["videos"]) == (1.0, 1.0, 2)
    document = summarise(rows[:1], NAMES)
    assert (document["top1"], document["map"], document["videos"]) == (None, None, 1)


def test_samples_of_videos_without_any_class_do_not_spoil_the_interval():
    """A quarter of the samples are twice the video that belongs to nothing."""
    rows = [VideoRow("a", "a", (), [0.9, 0.1, 0.2]), VideoRow("b", "b", (1,), [0.1, 0.9, 0.2])]
    document = summarise(rows, NAMES)
    assert document["map_ci95"] == [1.0, 1.0]
    json.dumps(document, allow_nan=False)


def test_several_labels_equal_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    truth, scores = rng.random((150, 6)) < 0.3, rng.random((150, 6))
    truth[:, 5] = False  # a class without videos
    rows = [VideoRow(str(i), str(i % 11), tuple(np.flatnonzero(truth[i]).tolist()), scores[i]) for i in range(150)]
    document = summarise(rows, [f"c{k}" for k in range(6)])
    assert document["map"] == pytest.approx(
        sklearn.average_precision_score(truth[:, :5], scores[:, :5], average="macro"), abs=1e-6
    )
    predicted = scores >= 0.5
    for k in range(5):
        row = document["per_class"][k]
        assert row["precision"] == pytest.approx(sklearn.precision_score(truth[:, k], predicted[:, k]), abs=1e-6)
        assert row["recall"] == pytest.approx(sklearn.recall_score(truth[:, k], predicted[:, k]), abs=1e-6)
    by_class = [sklearn.log_loss(truth[:, k], scores[:, k], labels=[False, True]) for k in range(6)]
    assert document["nll"] == pytest.approx(np.mean(by_class), abs=1e-6)
    some = truth.any(1)  # of the others no class can be right
    assert 0 < some.sum() < 150
    assert document["top1"] == pytest.approx(np.mean(truth[np.arange(150), scores.argmax(1)][some]))
    assert document["videos"] == 150
    assert document["confusion"] is None
    assert document["per_class"][5]["average_precision"] is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=3, max_size=12), st.data())
def test_average_precision_counts_ties_together_and_videos_by_their_weight(scores: list[float], data: st.DataObject):
    sklearn = pytest.importorskip("sklearn.metrics")
    positive = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    positive[0] = True
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores)))
    weights[0] = 1
    own = average_precision(np.array(scores), np.array(positive, float), np.array([weights], float))[0]
    repeated = np.repeat(np.arange(len(scores)), weights)
    assert own == pytest.approx(
        sklearn.average_precision_score(np.array(positive)[repeated], np.array(scores)[repeated])
    )


@pytest.mark.parametrize(("label", "hit"), [(0, 1.0), (1, 0.0), (2, 0.0)])
def test_ties_go_to_the_first_class_as_argmax_does(label: int, hit: float):
    assert summarise([VideoRow("a", "g", label, [0.4, 0.4, 0.2])], NAMES)["top1"] == hit


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=7, max_size=7), st.integers(0, 6))
def test_rank_is_the_place_in_a_stable_sort(scores: list[float], label: int):
    place = np.argsort(-np.array(scores), kind="stable").tolist().index(label)
    document = summarise([VideoRow("a", "g", label, scores)], [str(k) for k in range(7)])
    assert document["top1"] == float(place < 1)
    assert document["top5"] == float(place < 5)


@pytest.mark.parametrize("scores", [[float("nan")] * 3, [float("nan"), 0.0, 0.0]])
def test_a_score_that_is_no_number_is_wrong(scores: list[float]):
    document = summarise([VideoRow("a", "g", 0, scores)], NAMES)
    assert document["top1"] == 0
    assert document["top5"] == 0


def test_failed_videos_count_as_wrong_and_lower_the_accuracy():
    rows = [VideoRow(str(i), f"g{i}", 0, [1.0, 0.0, 0.0]) for i in range(3)]
    assert summarise(rows, NAMES)["top1"] == 1
    document = summarise(rows, NAMES, [failure("x", 0), failure("y", -1)])
    assert document["top1"] == document["top5"] == document["mean_class_accuracy"] == 3 / 4
    assert len(document["failed"]) == 2  # named, though without a label there is nothing to be wrong about


def test_failed_videos_of_several_classes_are_missed_in_each():
    rows = [VideoRow("a", "g1", (0, 1), [0.9, 0.8, 0.1]), VideoRow("b", "g2", (1,), [0.2, 0.9, 0.1])]
    document = summarise(rows, NAMES, [failure("x", (1, 2))])
    assert document["videos"] == 3
    assert document["top1"] == 2 / 3
    assert [row["n"] for row in document["per_class"]] == [1, 3, 1]
    assert [row["recall"] for row in document["per_class"]] == pytest.approx([1, 2 / 3, 0], abs=1e-6)
    assert document["map"] == 1, "it is of the videos that could be read"
    assert summarise([], NAMES, [failure("x", (1, 2))])["top1"] == 0


def test_nothing_to_test_is_none_and_not_zero():
    document = summarise([], NAMES, missing=["a"])
    assert document["top1"] is None
    assert document["top5"] is None
    assert document["mean_class_accuracy"] is None
    assert document["ci95"] is None
    assert document["videos"] == 0
    assert document["missing"] == 1


def plain_bootstrap(correct: list[float], groups: list[str], samples: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    members: dict[str, list[float]] = {}
    for value, group in zip(correct, groups, strict=True):
        members.setdefault(group, []).append(value)
    own = list(members.values())
    means = []
    for _ in range(samples):
        drawn = [value for i in rng.integers(0, len(own), len(own)) for value in own[i]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[int(0.025 * samples)], means[int(0.975 * samples)]


def test_interval_agrees_with_a_plain_bootstrap():
    rng = np.random.default_rng(3)
    groups = [f"g{i}" for i in rng.integers(0, 25, 200)]
    correct = [float(value) for value in rng.random(200) < 0.7]
    np.testing.assert_allclose(
        bootstrap_over_groups(correct, groups), plain_bootstrap(correct, groups, 4000, seed=1), atol=0.015
    )


def test_single_videos_are_drawn_as_right_and_wrong_ones():
    """Each a group of its own: the number of right ones in a sample is binomial, however many videos there are."""
    correct = np.repeat([1.0, 0.0], [14_000, 6_000])
    found = bootstrap_over_groups(correct, [str(i) for i in range(len(correct))])
    np.testing.assert_allclose(found, scipy.stats.binom.ppf([0.025, 0.975], 20_000, 0.7) / 20_000, atol=5e-4)
    seen: list[tuple[int, ...]] = []
    draw_groups(2, lambda drawn: (seen.append(drawn.shape), drawn[:, 0])[1], alike=np.array([14_000, 6_000]))
    assert seen == [(1000, 2)] * 10


def test_fewer_samples_of_many_groups_that_differ():
    assert len(draw_groups(500, lambda drawn: drawn[:, 0])) == 10_000
    assert len(draw_groups(20_000, lambda drawn: drawn[:, 0])) == 1000


def test_groups_of_every_size_are_drawn_as_a_plain_bootstrap_does():
    rng = np.random.default_rng(8)
    groups = [f"g{i}" for i in range(60) for _ in range(i % 3 + 1)]
    values = rng.integers(0, 3, len(groups)) / 2.0
    found = bootstrap_over_groups(values, groups)
    np.testing.assert_allclose(found, plain_bootstrap(values.tolist(), groups, 4000, seed=2), atol=0.015)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        rate = np.clip(rng.normal(0.6, 0.15, 40), 0, 1)
        groups = [f"g{i}" for i in range(40) for _ in range(5)]
        correct = [float(rng.random() < rate[i]) for i in range(40) for _ in range(5)]
        low, high = bootstrap_over_groups(correct, groups, samples=400)
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_correlated_groups_widen_the_interval():
    correct = [1.0] * 50 + [0.0] * 50
    together = bootstrap_over_groups(correct, [f"g{i // 10}" for i in range(100)])
    apart = bootstrap_over_groups(correct, [f"g{i}" for i in range(100)])
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_variation_is_an_interval_of_no_width(value: float):
    assert bootstrap_over_groups([value] * 9, list("aabbccddd")) == (value, value)


def test_one_group_says_nothing_about_others():
    assert bootstrap_over_groups([1, 0, 0, 1], ["a"] * 4) == (0.5, 0.5)


def test_the_seed_decides_the_draws_and_the_level_the_width():
    correct, groups = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], list("abcdef")
    assert bootstrap_over_groups(correct, groups, seed=1) == bootstrap_over_groups(correct, groups, seed=1)
    wide, narrow = (bootstrap_over_groups(correct, groups, level=level) for level in (0.99, 0.5))
    assert wide[0] < narrow[0]
    assert narrow[1] < wide[1]


@pytest.mark.parametrize(("correct", "groups"), [([], []), ([1.0], []), ([1.0], ["a", "b"])])
def test_wrong_lengths_are_refused(correct: list[float], groups: list[str]):
    with pytest.raises(ValueError, match="as many groups as values"):
        bootstrap_over_groups(correct, groups)
