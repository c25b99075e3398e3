from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.samplers import EpochSampler, Visit, balanced_visits, count_copies

label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=80)


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def videos(visits):
    return [visit.video for visit in visits]


def test_the_order_is_a_function_of_seed_and_epoch():
    sampler, again, other = (EpochSampler(range(50), seed=seed) for seed in (3, 3, 4))
    assert isinstance(sampler, DistributedSampler)  # Lightning leaves it in place
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert sorted(videos(first)) == sorted(videos(second)) == list(range(50))
    assert {(visit.epoch, visit.copy) for visit in second} == {(1, 0)}
    assert videos(first) != videos(second)
    assert epoch_of(again, 1) == second
    assert epoch_of(sampler, 0) == first  # going back gives the same
    assert videos(epoch_of(other, 0)) != videos(epoch_of(sampler, 0))
    assert videos(epoch_of(other, 0)) != videos(second)  # seed 4, epoch 0 is not seed 3, epoch 1


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0]))
def test_ranks_share_an_epoch_equally_and_no_visit_twice(length, replicas, repeats, balance):
    labels = [i % 3 for i in range(length)]

    def sampler(num_replicas, rank):
        return EpochSampler(range(length), 0, num_replicas, rank, repeats, labels, balance)

    shares = [list(sampler(replicas, rank)) for rank in range(replicas)]
    assert {len(share) for share in shares} == {len(sampler(replicas, 0))}
    visited = [visit for share in shares for visit in share]
    alone = list(sampler(1, 0))
    assert len(alone) == length * repeats
    if len(alone) >= replicas:
        assert len(set(visited)) == len(visited) > len(alone) - replicas
        assert set(visited) <= set(alone)
    else:
        assert set(visited) == set(alone)  # every rank has work


@given(st.integers(1, 40), st.integers(1, 5))
def test_repeated_augmentation_visits_each_video_in_a_row_with_draws_of_its_own(length, repeats):
    visits = epoch_of(EpochSampler(range(length), 0, repeats=repeats), 2)
    assert len(visits) == len(set(visits)) == length * repeats
    for start in range(0, len(visits), repeats):
        row = visits[start : start + repeats]
        assert len(set(videos(row))) == 1
        assert [visit.copy for visit in row] == list(range(repeats))
    order = videos(epoch_of(EpochSampler(range(length), 0), 2))
    assert videos(visits)[::repeats] == order  # the order of the videos is that without repeats


@given(label_lists, st.floats(0, 1), st.integers(0, 2**32))
def test_classes_get_their_share_and_videos_theirs_of_it(labels, balance, seed):
    labels = np.array(labels)
    visits = balanced_visits(labels, balance, np.random.default_rng(seed))
    assert len(visits) == len(labels)
    sizes = Counter(labels.tolist())
    scale = len(labels) / sum(size ** (1 - balance) for size in sizes.values())
    by_class, by_video = Counter(labels[visits].tolist()), Counter(visits.tolist())
    for name, size in sizes.items():
        expected = scale * size ** (1 - balance)
        assert abs(by_class[name] - expected) <= 1 + 1e-9
        for video in np.flatnonzero(labels == name):
            assert abs(by_video[int(video)] - expected / size) <= 1 + 1e-9


@given(label_lists, st.integers(0, 2**32))
def test_no_balance_visits_each_video_once(labels, seed):
    visits = balanced_visits(np.array(labels), 0.0, np.random.default_rng(seed))
    assert sorted(visits.tolist()) == list(range(len(labels)))


def test_a_balanced_epoch():
    labels = [0] * 90 + [1] * 10
    sampler = EpochSampler(range(100), 0, labels=labels, balance=1.0)
    epochs = [epoch_of(sampler, epoch) for epoch in range(4)]
    for visits in epochs:
        assert Counter(labels[video] for video in videos(visits)) == {0: 50, 1: 50}
        assert len(set(visits)) == 100  # a video that comes again has other draws
        assert Counter(videos(visits)[:50]) != Counter(videos(visits)[50:])
        halves = [sum(labels[video] for video in half) for half in (videos(visits)[:50], videos(visits)[50:])]
        assert min(halves) > 10  # classes are mixed over the epoch
    frequent = Counter(video for visits in epochs for video in videos(visits) if labels[video] == 0)
    assert len(frequent) > 80  # other videos of the large class each time


@given(st.lists(st.integers(0, 6)))
def test_copies_are_counted(order):
    seen = Counter()
    expected = []
    for entry in order:
        expected.append(seen[entry])
        seen[entry] += 1
    assert count_copies(np.array(order, dtype=np.int64)).tolist() == expected


@pytest.mark.parametrize("options", [{"repeats": 0}, {"balance": 1.0}, {"balance": 1.0, "labels": [0, 1]}])
def test_what_cannot_be_done_is_refused(options):
    with pytest.raises(ValueError, match=r"repeats|balance"):
        EpochSampler(range(3), 0, **options)


class Keys(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, key):
        return key


def test_a_loader_hands_the_visit_to_the_dataset():
    sampler = EpochSampler(Keys(), seed=0, repeats=2)
    loader = DataLoader(Keys(), sampler=sampler, batch_size=3, collate_fn=list)
    sampler.set_epoch(5)
    keys = [key for batch in loader for key in batch]
    assert sorted(keys) == [Visit(video, 5, copy) for video in range(6) for copy in range(2)]
