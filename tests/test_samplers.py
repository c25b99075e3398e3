from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.samplers import EpochSampler, dense_indices, uniform_indices

lengths = st.integers(1, 300)
frame_counts = st.integers(1, 40)
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


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_epoch_sampler_orders_by_seed_and_epoch():
    sampler, again, other = (EpochSampler(range(50), seed=seed) for seed in (3, 3, 4))
    assert isinstance(sampler, DistributedSampler)  # Lightning leaves it in place
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert sorted(index for index, _ in first) == sorted(index for index, _ in second) == list(range(50))
    assert {epoch for _, epoch in second} == {1}
    assert [i for i, _ in first] != [i for i, _ in second]
    assert epoch_of(again, 1) == second
    assert epoch_of(sampler, 0) == first  # going back gives the same
    assert [i for i, _ in epoch_of(other, 0)] != [i for i, _ in epoch_of(sampler, 0)]
    assert [i for i, _ in epoch_of(other, 0)] != [i for i, _ in second]  # seed 4, epoch 0 is not seed 3, epoch 1


@given(st.integers(1, 60), st.integers(1, 7))
def test_ranks_share_an_epoch_equally(length, replicas):
    shares = [list(EpochSampler(range(length), 0, replicas, rank)) for rank in range(replicas)]
    sizes = {len(EpochSampler(range(length), 0, replicas, rank)) for rank in range(replicas)}
    assert sizes == {len(share) for share in shares}
    assert len(sizes) == 1
    visited = [index for share in shares for index, _ in share]
    if length >= replicas:
        assert len(set(visited)) == len(visited) > length - replicas
    else:
        assert set(visited) == set(range(length))  # every rank has work


class Keys(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, key):
        return key


def test_a_loader_hands_the_epoch_to_the_dataset():
    sampler = EpochSampler(Keys(), seed=0)
    loader = DataLoader(Keys(), sampler=sampler, batch_size=3, collate_fn=list)
    sampler.set_epoch(5)
    keys = [key for batch in loader for key in batch]
    assert sorted(keys) == [(index, 5) for index in range(6)]
