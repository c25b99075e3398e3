from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.frames import (
    View,
    clip_indices,
    dense_indices,
    jittered_indices,
    lagged_indices,
    seconds_indices,
    symmetric_indices,
    uniform_indices,
)
from datamodules.options import ClipOptions

lengths = st.integers(1, 300)
frame_counts = st.integers(1, 40)
views = st.integers(1, 6).flatmap(lambda total: st.builds(View, st.integers(0, total - 1), st.just(total)))
times = st.lists(st.floats(0.001, 2.0), max_size=60).map(lambda gaps: np.cumsum([0.5, *gaps]))
generators = st.one_of(st.none(), st.integers(0, 2**32).map(np.random.default_rng))


def check_form(indices, mask, length, num_frames):
    assert indices.shape == mask.shape == (num_frames,)
    assert indices.dtype == np.int64
    assert mask.dtype == np.bool_
    assert indices.min() >= 0
    assert indices.max() < length
    assert (np.diff(indices) >= 0).all()
    assert (np.diff(mask.astype(int)) <= 0).all()  # padding only at the end
    assert (indices[~mask] == indices[mask][-1]).all()  # ... and it repeats the last frame


@given(lengths, frame_counts, generators)
def test_uniform_takes_one_frame_of_each_segment(length, num_frames, rng):
    indices, mask = uniform_indices(length, num_frames, rng)
    check_form(indices, mask, length, num_frames)
    if length < num_frames:
        assert indices[mask].tolist() == list(range(length))
    else:
        assert mask.all()
        bounds = [t * length // num_frames for t in range(num_frames + 1)]
        assert all(bounds[t] <= indices[t] < bounds[t + 1] for t in range(num_frames))


@given(lengths, frame_counts, generators)
def test_uniform_repeats_short_videos_evenly(length, num_frames, rng):
    indices, mask = uniform_indices(length, num_frames, rng, repeat_short=True)
    check_form(indices, mask, length, num_frames)
    assert mask.all()
    counts = np.bincount(indices, minlength=length)
    if length <= num_frames:
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1


@given(lengths, frame_counts)
def test_uniform_without_a_generator_is_the_middle(length, num_frames):
    if length < num_frames:
        return
    indices, _ = uniform_indices(length, num_frames)
    middles = (np.arange(num_frames) + 0.5) * length / num_frames - 0.5
    assert np.abs(indices - middles).max() <= 1


@given(lengths, frame_counts, st.integers(1, 12), generators, st.booleans())
def test_dense_keeps_its_stride(length, num_frames, stride, rng, repeat_short):
    indices, mask = dense_indices(length, num_frames, stride, rng, repeat_short=repeat_short)
    real = len([t for t in range(num_frames) if t * stride < length])  # as many as fit
    if repeat_short:
        assert mask.all()
    else:
        check_form(indices, mask, length, num_frames)
        assert mask.sum() == real
    assert (np.diff(indices[:real]) == stride).all()
    assert (indices[real:] == indices[real - 1]).all()
    assert indices[0] >= 0
    assert indices[-1] < length


def test_random_draws_reach_every_frame():
    rng = np.random.default_rng(0)
    uniform = {int(i) for _ in range(400) for i in uniform_indices(11, 3, rng)[0]}
    dense_starts = {int(dense_indices(20, 3, 4, rng)[0][0]) for _ in range(400)}
    assert uniform == set(range(11))
    assert dense_starts == set(range(12))


def test_dense_without_a_generator_is_the_centre():
    indices, _ = dense_indices(101, 5, 10)
    assert indices.tolist() == [30, 40, 50, 60, 70]


@pytest.mark.parametrize("arguments", [(0, 4), (4, 0)])
def test_nothing_to_sample_is_an_error(arguments):
    with pytest.raises(ValueError, match="positive"):
        uniform_indices(*arguments)
    with pytest.raises(ValueError, match="positive"):
        dense_indices(*arguments, 1)
    with pytest.raises(ValueError, match="positive"):
        dense_indices(4, 4, 0)


# Segments that a reversed video shares


@given(lengths, frame_counts, views)
def test_symmetric_frames_of_a_reversed_video_are_the_same(length, num_frames, view):
    mirrored = View(view.total - 1 - view.number, view.total)
    indices, mask = symmetric_indices(length, num_frames, view=view, repeat_short=True)
    reversed_indices, _ = symmetric_indices(length, num_frames, view=mirrored, repeat_short=True)
    check_form(indices, mask, length, num_frames)
    moved = indices + reversed_indices[::-1] - (length - 1)
    is_between_two_middles = (2 * indices + 2 == length) & (moved == -1)
    assert ((moved == 0) | is_between_two_middles).all()
    assert is_between_two_middles.sum() <= 1


@given(lengths, frame_counts)
def test_symmetric_frames_are_the_nearest_to_the_segments_middles(length, num_frames):
    if length < num_frames:
        assert symmetric_indices(length, num_frames)[0].tolist() == uniform_indices(length, num_frames)[0].tolist()
        return
    indices, mask = symmetric_indices(length, num_frames)
    check_form(indices, mask, length, num_frames)
    assert mask.all()
    middles = (np.arange(num_frames) + 0.5) * length / num_frames - 0.5
    assert np.abs(indices - middles).max() <= 0.5 + 1e-9


def test_symmetric_draws_are_as_likely_in_a_reversed_video():
    rng = np.random.default_rng(0)
    drawn = np.stack([symmetric_indices(7, 3, rng)[0] for _ in range(6000)])
    counts = np.stack([np.bincount(column, minlength=7) for column in drawn.T]) / len(drawn)
    segments = np.array([[3, 3, 1, 0, 0, 0, 0], [0, 0, 2, 3, 2, 0, 0], [0, 0, 0, 0, 1, 3, 3]]) / 7
    assert np.abs(counts - segments).max() < 0.03


@given(lengths, frame_counts, st.integers(0, 2**32), st.booleans())
def test_symmetric_draws_stay_in_their_segments(length, num_frames, seed, repeat_short):
    indices, mask = symmetric_indices(length, num_frames, np.random.default_rng(seed), repeat_short=repeat_short)
    check_form(indices, mask, length, num_frames)
    if mask.all():
        t = np.arange(num_frames)
        assert (indices >= np.floor(t * length / num_frames)).all()
        assert (indices < np.ceil((t + 1) * length / num_frames)).all()


# Seconds


@given(times, frame_counts, st.floats(0.5, 60), generators, views, st.booleans())
def test_seconds_shows_what_a_viewer_sees(pts, num_frames, fps, rng, view, repeat_short):
    indices, mask = seconds_indices(pts, num_frames, fps, rng, repeat_short=repeat_short, view=view)
    if repeat_short:
        assert mask.all()
    else:
        check_form(indices, mask, len(pts), num_frames)
    real = sum(t / fps <= pts[-1] - pts[0] + 1e-6 for t in range(num_frames))  # as many moments as fit
    assert repeat_short or mask.sum() == real
    # some start exists from which every moment lies while its frame is shown
    after = np.append(pts[1:], np.inf)
    moments = np.arange(real) / fps
    earliest = (pts[indices[:real]] - moments).max()
    latest = (after[indices[:real]] - moments).min()
    assert earliest <= latest + 2e-6
    assert (indices[real:] == indices[real - 1]).all()


@given(st.integers(1, 200), frame_counts, st.integers(1, 8), generators, views)
def test_seconds_of_a_constant_rate_are_a_stride(length, num_frames, stride, rng, view):
    pts = 3.0 + np.arange(length) / 24
    indices, mask = seconds_indices(pts, num_frames, 24 / stride, rng, view=view)
    real = indices[mask]
    assert len(real) == min(num_frames, (length - 1) // stride + 1)
    assert (np.diff(real) == stride).all()


def test_seconds_of_a_varying_rate():
    pts = np.array([0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 4.0])
    indices, mask = seconds_indices(pts, 5, fps=1.0)
    assert indices.tolist() == [0, 3, 4, 5, 6]  # at seconds 0, 1, 2, 3, 4
    assert mask.all()
    indices, mask = seconds_indices(pts, 3, fps=1.0, view=View(1, 2))
    assert indices.tolist() == [4, 5, 6]
    indices, mask = seconds_indices(pts, 6, fps=1.0)
    assert (indices.tolist(), mask.tolist()) == ([0, 3, 4, 5, 6, 6], [True] * 5 + [False])


def test_seconds_draws_reach_every_place():
    rng = np.random.default_rng(0)
    starts = [int(seconds_indices(np.arange(20) / 10, 3, 2.0, rng)[0][0]) for _ in range(3000)]
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    assert np.abs(counts / 300 - 1).max() < 0.25  # each as likely as the other


# Views


@given(lengths, frame_counts, st.integers(1, 12), st.integers(1, 5))
def test_views_are_spread_over_the_video(length, num_frames, stride, total):
    dense = [dense_indices(length, num_frames, stride, view=View(n, total)) for n in range(total)]
    uniform = [uniform_indices(length, num_frames, view=View(n, total)) for n in range(total)]
    symmetric = [symmetric_indices(length, num_frames, view=View(n, total)) for n in range(total)]
    pts = np.arange(length) / 8
    seconds = [seconds_indices(pts, num_frames, 8 / stride, view=View(n, total)) for n in range(total)]
    for clips in (dense, uniform, symmetric, seconds):
        for indices, mask in clips:
            check_form(indices, mask, length, num_frames)
        firsts = [indices[0] for indices, _ in clips]
        assert firsts == sorted(firsts)
    if total > 1:
        assert dense[0][0][0] == seconds[0][0][0] == 0
        assert dense[-1][0][dense[-1][1]][-1] == seconds[-1][0][seconds[-1][1]][-1] == length - 1
    if length >= num_frames * total:  # segments have room for a frame of each view
        for clips in (uniform, symmetric):
            frames = [int(i) for indices, _ in clips for i in indices]
            assert len(set(frames)) == len(frames)


# Jitter


@given(lengths, frame_counts, st.integers(1, 12), st.floats(0, 0.5), st.integers(0, 2**32))
def test_jitter_moves_frames_by_less_than_their_neighbours_are_away(length, num_frames, stride, reach, seed):
    indices, mask = dense_indices(length, num_frames, stride)
    moved = jittered_indices(indices, mask, length, reach, np.random.default_rng(seed))
    check_form(moved, mask, length, num_frames)
    assert np.abs(moved - indices)[mask].max() <= reach * stride


def test_jitter_reaches_every_place():
    rng, mask = np.random.default_rng(0), np.ones(3, dtype=np.bool_)
    moved = np.stack([jittered_indices(np.array([0, 10, 16]), mask, 17, 0.4, rng) for _ in range(500)])
    assert [set(column.tolist()) for column in moved.T] == [set(range(5)), set(range(8, 13)), {14, 15, 16}]


def test_jitter_out_of_range_is_refused():
    with pytest.raises(ValueError, match="reach"):
        jittered_indices(np.arange(3), np.ones(3, dtype=np.bool_), 3, 0.6, np.random.default_rng(0))


# By name


def test_a_clip_is_cut_by_the_sampling_that_it_names():
    pts = np.arange(100) / 25
    expected = {
        "uniform": uniform_indices(100, 6),
        "symmetric": symmetric_indices(100, 6),
        "dense": dense_indices(100, 6, 3),
        "seconds": seconds_indices(pts, 6, 5.0),
    }
    for sampling, (indices, mask) in expected.items():
        clip = ClipOptions(num_frames=6, sampling=sampling, stride=3, fps=5.0).spec()
        assert clip_indices(pts, clip)[0].tolist() == indices.tolist()
        assert clip_indices(pts, clip)[1].tolist() == mask.tolist()
        assert clip_indices(pts, clip, jitter=0.5)[0].tolist() == indices.tolist()  # evaluation does not jitter
        drawn = {tuple(clip_indices(pts, clip, np.random.default_rng(s), jitter=0.5)[0].tolist()) for s in range(20)}
        assert len(drawn) > 10


def test_checkpoints_from_before_there_was_a_frame_rate_are_read():
    clip = ClipOptions(num_frames=4).spec()
    del clip["fps"]
    assert clip_indices(np.arange(8.0), clip)[0].tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("arguments", [(np.arange(0.0), 4, 1.0), (np.arange(4.0), 0, 1.0), (np.arange(4.0), 4, 0.0)])
def test_no_seconds_to_sample_is_an_error(arguments):
    with pytest.raises(ValueError, match="positive"):
        seconds_indices(*arguments)


@given(times, st.floats(0.0, 3.0), st.randoms(use_true_random=False))
def test_the_second_frame_of_a_pair_is_the_first_that_is_late_enough(pts, lag, random):
    indices = np.array([random.randrange(len(pts)) for _ in range(6)])
    first, second = lagged_indices(pts, indices, lag)
    assert (first <= indices).all()
    for own, later, asked in zip(first.tolist(), second.tolist(), indices.tolist(), strict=True):
        late_enough = [j for j in range(len(pts)) if pts[j] - pts[own] >= lag - 1e-6]
        assert later == (late_enough[0] if late_enough else len(pts) - 1)
        if pts[-1] - pts[asked] >= lag:
            assert own == asked  # nothing had to be moved
        elif own < asked:
            assert pts[-1] - pts[own + 1] < lag  # it was moved no further than to the last pair
