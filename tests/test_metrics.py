"""Video-level scores against a dictionary, on one process and on two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DistributedSampler

from temporal_attn.metrics import VideoScore, VideoScores

CLASSES = 4
SAMPLES = 13  # odd: two processes must repeat one sample


def views(videos: int, each: int, seed: int = 0) -> list[tuple[int, int, Tensor, int]]:
    """Rows (video, view, probabilities, label); every third video has no label."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for video in range(videos):
        for view in range(each):
            probabilities = torch.rand(CLASSES, generator=generator).softmax(0)
            rows.append((video * 7, view, probabilities, -1 if video % 3 == 2 else video % CLASSES))
    return rows


def reference(rows: list[tuple[int, int, Tensor, int]]) -> dict[int, tuple[np.ndarray, int]]:
    seen: dict[int, dict[int, np.ndarray]] = {}
    labels = {}
    for video, view, probabilities, label in rows:
        seen.setdefault(video, {})[view] = probabilities.numpy().astype(np.float64)
        labels[video] = label
    return {video: (np.mean(list(own.values()), axis=0), labels[video]) for video, own in seen.items()}


def feed(metric: VideoScores, rows: list[tuple[int, int, Tensor, int]], batch: int = 3) -> VideoScores:
    for start in range(0, len(rows), batch):
        index, view, probabilities, label = zip(*rows[start : start + batch], strict=True)
        metric.update(torch.tensor(index), torch.tensor(view), torch.stack(probabilities), torch.tensor(label))
    return metric


def check(score: VideoScore, rows: list[tuple[int, int, Tensor, int]]) -> None:
    expected = reference(rows)
    assert score.index.tolist() == sorted(expected)
    for video, probabilities, label in zip(score.index.tolist(), score.scores, score.label.tolist(), strict=True):
        np.testing.assert_allclose(probabilities.numpy(), expected[video][0], atol=1e-6)
        assert label == expected[video][1]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_scores_are_a_dictionary_of_means(data: st.DataObject):
    rows = views(data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3)))
    repeats = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=8))
    shuffled = data.draw(st.permutations([*rows, *(rows[i] for i in repeats)]))
    check(feed(VideoScores(CLASSES), shuffled, data.draw(st.integers(1, 5))).by_video(), rows)


def test_half_precision_probabilities_are_averaged_in_single():
    rows = [(0, view, torch.full((CLASSES,), 0.25 + view * 2**-9, dtype=torch.bfloat16), 0) for view in range(3)]
    score = feed(VideoScores(CLASSES), rows).by_video()
    assert score.scores.dtype == torch.float32


def test_nothing_seen_is_an_empty_table():
    with pytest.warns(UserWarning, match="before the ``update``"):
        score = VideoScores(CLASSES).by_video()
    assert score.index.shape == (0,)
    assert score.index.dtype == torch.long
    assert score.scores.shape == (0, CLASSES)


def test_reset_forgets():
    metric = feed(VideoScores(CLASSES), views(5, 2))
    metric.reset()
    check(feed(metric, views(3, 1)).by_video(), views(3, 1))


def _rank_rows(rank: int, case: str) -> list[tuple[int, int, Tensor, int]]:
    if case == "one rank read nothing":
        return views(SAMPLES, 1) if rank == 0 else []
    sampler: DistributedSampler[int] = DistributedSampler(range(SAMPLES), num_replicas=2, rank=rank, shuffle=False)
    rows = views(SAMPLES, 1)
    return [rows[i] for i in sampler]


def _run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        for case in ("padded", "one rank read nothing"):
            metric = feed(VideoScores(CLASSES), _rank_rows(rank, case))
            score = metric.by_video()
            torch.save((score.index, score.scores, score.label), f"{folder}/{case}_{rank}.pt")
            # Synchronising for one answer must not leave the others' rows behind.
            assert sum(len(part) for part in metric.index) == len(_rank_rows(rank, case))
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(_run_rank, args=(str(folder),), nprocs=2, start_method="fork")
    return folder


@pytest.mark.parametrize("case", ["padded", "one rank read nothing"])
def test_two_processes_equal_one(two_processes: Path, case: str):
    if case == "padded":
        assert sum(len(_rank_rows(rank, case)) for rank in (0, 1)) == SAMPLES + 1
    for rank in (0, 1):
        check(VideoScore(*torch.load(two_processes / f"{case}_{rank}.pt")), views(SAMPLES, 1))


def test_several_labels_stay_rows():
    metric = VideoScores(CLASSES, multi_label=True)
    label = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    for _ in range(2):  # twice the same
        metric.update(torch.tensor([3, 1]), torch.zeros(2, dtype=torch.long), torch.rand(2, CLASSES), label)
    assert torch.equal(metric.by_video().label, label.flip(0))
