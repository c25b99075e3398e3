from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.dataset import VideoDataset, collate_clips, load_clip
from datamodules.decoding import SandboxedReader
from datamodules.options import ClipOptions
from datamodules.readers import open_reader
from datamodules.samplers import EpochSampler
from datamodules.sandbox import Sandbox
from temporal_attn.types import VideoError, VideoRecord
from tests.videos import numbered_frames, read_numbers, write_empty, write_video

CLIP = ClipOptions(num_frames=4, resize=48, crop=48)
NUM_FRAMES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(folder / f"{number}.mp4", numbered_frames(NUM_FRAMES, first=1000 * number), fps=10)
    write_video(folder / "short.mp4", numbered_frames(3), fps=10)
    write_video(folder / "wide.mp4", numbered_frames(NUM_FRAMES, height=48, width=128), fps=10)
    write_video(folder / "tall.mp4", numbered_frames(NUM_FRAMES, height=96, width=64), fps=10)
    write_empty(folder / "broken.mp4")
    return folder


def record(folder, name, label=0, **seconds):
    return VideoRecord(id=f"id/{name}", path=str(folder / f"{name}.mp4"), label=label, group=f"group {name}", **seconds)


def numbers(item):
    """Frame numbers that the (T, C, H, W) clip shows."""
    return read_numbers(item["video"].permute(0, 2, 3, 1).numpy())


def test_an_evaluation_item(folder):
    item = VideoDataset([record(folder, "0"), record(folder, "2", label=5)], CLIP.spec())[1]
    assert item["video"].shape == (4, 3, 48, 48)
    assert item["video"].dtype == torch.uint8
    assert item["video"].is_contiguous()
    assert item["frame_index"].tolist() == [3, 11, 18, 26]  # middles of 0-6, 7-14, 15-21, 22-29
    assert torch.allclose(item["pts"], torch.tensor([0.3, 1.1, 1.8, 2.6]))
    assert item["pts"].dtype == torch.float32
    assert item["mask"].tolist() == [True] * 4
    assert (item["label"], item["video_id"], item["index"], item["group"]) == (5, "id/2", 1, "group 2")


def test_pixels_are_the_readers_centre(folder):
    clip = ClipOptions(num_frames=4, resize=48, crop=40)
    item = VideoDataset([record(folder, "wide")], clip.spec())[0]
    with open_reader(str(folder / "wide.mp4"), short_side=48) as reader:
        frames = reader.get_batch(item["frame_index"].tolist())
    middle = frames[:, 4:44, 44:84]
    assert np.array_equal(item["video"].permute(0, 2, 3, 1).numpy(), middle)


def test_frames_are_the_ones_they_say(folder):
    clip = ClipOptions(num_frames=4, resize=64, crop=64)
    for key in ((0, 0), (0, 1), (0, 2)):
        item = VideoDataset([record(folder, "1")], clip.spec(), train=True)[key]
        assert item["video"].shape == (4, 3, 64, 96)  # whole frames: the crop is drawn on the device
        assert numbers(item) == (1000 + item["frame_index"]).tolist()


def test_short_videos_are_padded_or_repeated(folder):
    padded = VideoDataset([record(folder, "short")], CLIP.spec())[0]
    assert padded["mask"].tolist() == [True, True, True, False]
    assert padded["frame_index"].tolist() == [0, 1, 2, 2]
    assert torch.equal(padded["video"][3], padded["video"][2])
    repeated = VideoDataset([record(folder, "short")], ClipOptions(4, resize=48, crop=48, repeat_short=True).spec())[0]
    assert repeated["mask"].all()
    assert set(repeated["frame_index"].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("sampling", ["uniform", "dense"])
@pytest.mark.parametrize("train", [False, True])
def test_seconds_of_a_record_are_kept(folder, sampling, train):
    clip = ClipOptions(num_frames=4, sampling=sampling, stride=2, resize=48, crop=48)
    dataset = VideoDataset([record(folder, "0", start=1.0, end=1.95)], clip.spec(), train)
    for epoch in range(5):
        item = dataset[0, epoch]
        assert item["frame_index"].min() >= 10
        assert item["frame_index"].max() <= 19
        assert torch.allclose(item["pts"], item["frame_index"] / 10)


def test_seconds_count_from_the_first_frame_of_a_stream_that_starts_late(tmp_path):
    path = write_video(
        tmp_path / "late.mkv", numbered_frames(40, width=64), times=[5 + place / 10 for place in range(40)]
    )
    clip = ClipOptions(num_frames=4, resize=48, crop=48).spec()
    whole = VideoRecord("late", str(path), 0, "late", start=0.0, end=6.0)
    assert numbers(VideoDataset([whole], clip)[0]) == [5, 15, 25, 35]
    part = VideoRecord("late", str(path), 0, "late", start=2.0, end=2.35)
    assert numbers(VideoDataset([part], clip)[0]) == [20, 21, 22, 23]


def test_a_segment_between_two_frames_is_the_frame_on_screen(folder):
    item = VideoDataset([record(folder, "0", start=0.12, end=0.18)], CLIP.spec())[0]
    assert item["frame_index"].tolist() == [1] * 4
    assert item["mask"].tolist() == [True, False, False, False]


def test_seconds_without_a_frame_fail(folder):
    failed = VideoDataset([record(folder, "0", start=60.0)], CLIP.spec())[0]
    assert "no frame between second 60.0" in failed["reason"]
    assert "ends at second 2.900" in failed["reason"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    write_video(tmp_path / "plain.mp4", numbered_frames(8)).rename(path)
    item = VideoDataset([VideoRecord(path, path, 0, path)], CLIP.spec(), train=True)[0, 1]
    assert len(numbers(item)) == 4


def test_a_broken_video_is_named_and_not_replaced(folder):
    dataset = VideoDataset([record(folder, "0"), record(folder, "broken", label=3)], CLIP.spec())
    failed = dataset[1]
    assert (failed["id"], failed["label"], failed["index"], failed["group"]) == ("id/broken", 3, 1, "group broken")
    assert failed["path"].endswith("broken.mp4")
    assert failed["reason"]
    batch = collate_clips([dataset[0], failed])
    assert batch["video"].shape[0] == len(batch["label"]) == len(batch["video_id"]) == 1
    assert batch["failed"] == [failed]


def test_a_batch_that_failed_altogether_keeps_its_rank(folder):
    failed = VideoDataset([record(folder, "broken")], CLIP.spec())[0]
    good = collate_clips([VideoDataset([record(folder, "0")], CLIP.spec())[0]])
    for empty in (collate_clips([failed, failed]), collate_clips([failed], clip=CLIP.spec())):
        assert len(empty["failed"]) in (1, 2)
        for key, value in good.items():
            if torch.is_tensor(value):
                assert empty[key].shape[0] == 0
                assert empty[key].ndim == value.ndim
                assert empty[key].dtype == value.dtype
    assert empty["video"].shape == (0, 4, 3, 48, 48)


def test_collate_cuts_training_frames_to_a_common_middle(folder):
    dataset = VideoDataset([record(folder, name) for name in ("0", "wide", "tall")], CLIP.spec(), train=True)
    items = [dataset[0], dataset[1], dataset[2]]
    assert [tuple(item["video"].shape[-2:]) for item in items] == [(48, 72), (48, 128), (72, 48)]
    batch = collate_clips(items)
    assert batch["video"].shape == (3, 4, 3, 48, 48)
    assert torch.equal(batch["video"][1], items[1]["video"][..., 40:88])
    assert torch.equal(batch["video"][2], items[2]["video"][..., 12:60, :])
    assert torch.equal(collate_clips(items[:1])["video"][0], items[0]["video"])


def test_a_file_gives_the_clip_of_its_evaluation(folder):
    labelled = record(folder, "1", label=2, start=0.5)
    batch = load_clip(folder / "1.mp4", CLIP.spec(), record=labelled)
    item = VideoDataset([labelled], CLIP.spec())[0]
    assert torch.equal(batch["video"][0], item["video"])
    assert batch["label"].tolist() == [2]
    bare = load_clip(folder / "1.mp4", CLIP.spec(), reader="pyav")
    assert bare["label"].tolist() == [-1]
    assert bare["video_id"] == [str(folder / "1.mp4")]
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        load_clip(folder / "broken.mp4", CLIP.spec())


def test_several_labels_a_video(folder):
    records = [record(folder, str(n), label) for n, label in enumerate([(0, 2), (), None, (1,)])]
    dataset = VideoDataset([*records, record(folder, "broken", (1,))], CLIP.spec(), multi_label=3)
    batch = collate_clips([dataset[n] for n in range(5)], multi_label=3)
    assert batch["label"].tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]]
    assert batch["label"].dtype == torch.float32
    assert [(video["id"], video["label"]) for video in batch["failed"]] == [("id/broken", (1,))]
    empty = collate_clips([dataset[4]], CLIP.spec(), multi_label=3)
    assert empty["label"].shape == (0, 3)
    assert empty["label"].dtype == torch.float32


def test_a_clip_is_the_same_from_a_sandbox(folder):
    with Sandbox(60.0) as sandbox:

        def open_video(path, engine, short_side):
            return SandboxedReader(sandbox, path, engine, short_side)

        for train in (False, True):
            records = [record(folder, "0"), record(folder, "wide")]
            here = VideoDataset(records, CLIP.spec(), train)
            there = VideoDataset(records, CLIP.spec(), train, open_video=open_video)
            for key in ((0, 0), (1, 0), (1, 1)):
                one, other = here[key], there[key]
                assert one.keys() == other.keys()
                for name, value in one.items():
                    assert torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]


def epoch_of(dataset, epoch, num_workers):
    sampler = EpochSampler(dataset, seed=1)
    sampler.set_epoch(epoch)
    loader = DataLoader(
        dataset,
        batch_size=2,
        sampler=sampler,
        collate_fn=collate_clips,
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
    )
    return list(loader)


def test_an_epoch_is_the_same_for_any_number_of_workers(folder):
    dataset = VideoDataset([record(folder, str(i), label=i) for i in range(4)], CLIP.spec(), train=True, seed=1)
    alone, shared = epoch_of(dataset, 2, 0), epoch_of(dataset, 2, 2)
    assert len(alone) == len(shared) == 2
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
    assert [batch["frame_index"].tolist() for batch in epoch_of(dataset, 3, 0)] != [
        batch["frame_index"].tolist() for batch in alone
    ]


def test_workers_start_without_lightning():
    check = "import datamodules.dataset, sys; print('pytorch_lightning' in sys.modules, 'torchvision' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_draws_depend_on_seed_epoch_and_video(folder):
    records = [record(folder, "0"), record(folder, "1")]
    first, other = (VideoDataset(records, CLIP.spec(), train=True, seed=seed) for seed in (0, 1))
    copy = pickle.loads(pickle.dumps(first))

    def draw(item):
        return (*item["frame_index"].tolist(), item["seed"])

    assert draw(first[0]) == draw(first[0, 0]) == draw(copy[0, 0])
    assert len({draw(item) for item in (first[0, 0], first[1, 0], first[0, 1], other[0, 0])}) == 4


@pytest.mark.parametrize("train", [False, True])
def test_frames_in_pairs_show_the_later_one_behind_the_first(folder, train):
    clip = ClipOptions(num_frames=4, resize=48, crop=(48, 72), lag=0.2).spec()
    item = VideoDataset([record(folder, "1"), record(folder, "short")], clip, train=train)[0]
    assert item["video"].shape == (4, 6, 48, 72)
    first, later = item["video"].split(3, 1)
    assert numbers({"video": first}) == (1000 + item["frame_index"]).tolist()
    assert numbers({"video": later}) == (1002 + item["frame_index"]).tolist()
    assert torch.allclose(item["pts"], item["frame_index"] / 10)


def test_pairs_of_a_short_video_and_of_one_that_fails(folder):
    clip = ClipOptions(num_frames=4, resize=48, crop=48, lag=0.2, num_clips=2, num_crops=3)
    records = [record(folder, "short"), record(folder, "broken")]
    item = VideoDataset(records, clip.spec(), views=clip.views)[0]
    assert item["video"].shape == (6, 4, 6, 48, 48)
    assert numbers({"video": item["video"][1, :, 3:]}) == [2] * 4  # no frame is later than the last one
    failed = VideoDataset(records, clip.spec())[1]
    assert collate_clips([failed], clip.spec())["video"].shape == (0, 4, 6, 48, 48)
