"""Risk over coverage against a loop over thresholds, and thresholds against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from temporal_attn.evaluation.selective import risk_coverage, threshold_for_coverage, threshold_for_risk

VIDEOS = st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.7, 0.9, 1.0]), st.booleans()), min_size=1, max_size=20)


def columns(videos: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([sure for sure, _ in videos]), np.array([float(right) for _, right in videos])


@given(VIDEOS)
def test_the_curve_is_a_loop_over_thresholds(videos: list[tuple[float, bool]]):
    confidence, correct = columns(videos)
    curve = risk_coverage(confidence, correct)
    for threshold, coverage, risk in zip(*curve[:3], strict=True):
        answered = confidence >= threshold
        assert coverage == pytest.approx(answered.mean())
        assert risk == pytest.approx(1 - correct[answered].mean())
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - correct.mean())


@given(VIDEOS, st.randoms(use_true_random=False))
def test_the_area_does_not_depend_on_the_order(videos: list[tuple[float, bool]], random):
    shuffled = random.sample(videos, len(videos))
    assert risk_coverage(*columns(videos)).aurc == pytest.approx(risk_coverage(*columns(shuffled)).aurc)


def test_the_area_by_hand():
    # surest first: right, wrong, right, so that 0/1, 1/2 and 1/3 of the answers are wrong
    assert risk_coverage(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0])).aurc == pytest.approx(
        (1 / 2 + 1 / 3) / 3
    )


@given(VIDEOS, st.integers(0, 999).map(lambda n: (n + 0.137) / 1000))  # no share of so few videos
def test_thresholds_keep_their_promise_and_no_other_answers_more(videos: list[tuple[float, bool]], wanted: float):
    confidence, correct = columns(videos)
    curve = risk_coverage(confidence, correct)
    answered = confidence >= threshold_for_risk(curve, wanted)
    assert not answered.any() or 1 - correct[answered].mean() <= wanted + 1e-12
    better = [level for level in curve.threshold if 1 - correct[confidence >= level].mean() <= wanted]
    assert answered.sum() == max((int((confidence >= level).sum()) for level in better), default=0)
    covered = threshold_for_coverage(curve, wanted)
    assert (confidence >= covered).mean() >= wanted - 1e-9
    above = curve.threshold[curve.threshold > covered]
    assert not len(above) or (confidence >= above.min()).mean() < wanted
