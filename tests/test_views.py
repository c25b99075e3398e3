from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from datamodules.dataset import VideoDataset, collate_clips
from datamodules.frames import View, uniform_indices
from datamodules.options import ClipOptions
from datamodules.views import Views, crop_views
from temporal_attn.metrics import VideoScores
from temporal_attn.types import UserError, VideoRecord
from tests.videos import numbered_frames, read_numbers, write_empty, write_video

OPTIONS = ClipOptions(num_frames=4, resize=48, crop=48, num_clips=2, num_crops=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "long.mp4", numbered_frames(40, height=48, width=96), fps=10)
    write_video(folder / "short.mp4", numbered_frames(3, height=96, width=64), fps=10)
    write_empty(folder / "broken.mp4")
    names = ("long", "short", "broken")
    records = [VideoRecord(f"id/{n}", str(folder / f"{n}.mp4"), label, n) for label, n in enumerate(names)]
    return VideoDataset(records, OPTIONS.spec(), views=OPTIONS.views)


@pytest.mark.parametrize(("height", "width"), [(40, 56), (56, 40), (40, 40)])
def test_three_crops_lie_along_the_longer_side(height, width):
    frames = torch.arange(height * width).reshape(1, height, width)
    crops = crop_views(frames, 32, 3)
    assert crops.shape == (3, 1, 32, 32)
    assert torch.equal(crops[1:2], crop_views(frames, 32))
    for crop, place in zip(crops, (0, 0.5, 1), strict=True):
        top = int((height - 32) * (place if height > width else 0.5))
        left = int((width - 32) * (0.5 if height > width else place))
        assert torch.equal(crop, frames[:, top : top + 32, left : left + 32])


def test_a_crop_may_be_oblong_and_is_never_larger_than_what_there_is():
    frames = torch.arange(40 * 56).reshape(1, 40, 56)
    assert torch.equal(crop_views(frames, (32, 48))[0], frames[:, 4:36, 4:52])
    upright = torch.randint(256, (2, 3, 56, 40), dtype=torch.uint8)
    crops = crop_views(upright, [32, 60], 3)
    enlarged = resize(upright, [84, 60], antialias=True)  # 60 / 40 in both directions, so that the crop is covered
    assert crops.shape == (3, 2, 3, 32, 60)
    for crop, top in zip(crops, (0, 26, 52), strict=True):
        assert torch.equal(crop, enlarged[..., top : top + 32, :])


@pytest.mark.parametrize("crop", [(0, 48), (64, 80)])
def test_an_oblong_crop_is_checked_by_its_shorter_side(crop):
    assert ClipOptions(resize=48, crop=(48, 64)).spec()["crop"] == [48, 64]
    with pytest.raises(UserError, match=r"clip.crop"):
        ClipOptions(resize=48, crop=crop)


def test_all_views_of_a_video_are_in_one_item(dataset):
    item = dataset[0]
    single = VideoDataset(dataset.records, OPTIONS.spec())[0]
    assert len(OPTIONS.views) == 6
    assert item["video"].shape == (6, 4, 3, 48, 48)
    assert item["mask"].shape == item["pts"].shape == item["frame_index"].shape == (6, 4)
    for view in range(6):
        clip, crop = divmod(view, 3)
        indices, _ = uniform_indices(40, 4, view=View(clip, 2))
        assert item["frame_index"][view].tolist() == indices.tolist()
        assert torch.allclose(item["pts"][view], torch.from_numpy(indices / 10).float())
        frames = VideoDataset(dataset.records, OPTIONS.spec(), train=True)
        frames.source.train = False
        frames.source.views = Views(2, 1)
        middle = frames[0]["video"][clip]
        assert torch.equal(item["video"][view], middle) == (crop == 1)
    assert single["video"].shape == (4, 3, 48, 48)


def test_views_show_the_frames_that_they_name(tmp_path):
    write_video(tmp_path / "a.mp4", numbered_frames(30, height=64, width=64, first=500), fps=10)
    options = ClipOptions(num_frames=3, sampling="dense", stride=4, resize=64, crop=64, num_clips=4)
    record = VideoRecord("a", str(tmp_path / "a.mp4"), 0, "a", start=0.5, end=2.45)
    item = VideoDataset([record], options.spec(), views=options.views)[0]
    assert item["frame_index"][:, 0].tolist() == [5, 8, 12, 16]  # from second 0.5 to the last window's start
    for view in range(4):
        shown = read_numbers(np.ascontiguousarray(item["video"][view].permute(0, 2, 3, 1).numpy()))
        assert shown == (500 + item["frame_index"][view]).tolist()


def test_a_batch_holds_whole_videos(dataset):
    items = [dataset[index] for index in range(3)]
    batch = collate_clips(items, OPTIONS.spec())
    assert batch["video"].shape == (12, 4, 3, 48, 48)
    assert batch["view_id"].tolist() == 2 * list(range(6))
    assert batch["index"].tolist() == [0] * 6 + [1] * 6
    assert batch["label"].tolist() == [0] * 6 + [1] * 6
    assert batch["video_id"] == ["id/long"] * 6 + ["id/short"] * 6
    assert batch["group"] == ["long"] * 6 + ["short"] * 6
    assert batch["mask"][6:].tolist() == 6 * [[True, True, True, False]]
    assert [video["id"] for video in batch["failed"]] == ["id/broken"]
    assert torch.equal(batch["video"][:6], items[0]["video"])
    assert torch.equal(batch["video"][6:], items[1]["video"])


def test_scores_of_a_video_are_the_mean_of_its_views(dataset):
    batch = collate_clips([dataset[1], dataset[0]])
    probabilities = torch.rand(12, 5, generator=torch.Generator().manual_seed(0)).softmax(1)
    scores = VideoScores(5)
    for _ in range(2):  # a distributed sampler that pads brings a video again
        scores.update(batch["index"], batch["view_id"], probabilities, batch["label"])
    by_video = scores.by_video()
    assert by_video.index.tolist() == [0, 1]
    assert torch.allclose(by_video.scores, torch.stack([probabilities[6:].mean(0), probabilities[:6].mean(0)]))


def test_training_sees_one_clip(dataset):
    train = VideoDataset(dataset.records, OPTIONS.spec(), train=True, views=OPTIONS.views)
    assert train[0, 3]["mask"].shape == (4,)


def test_copies_of_a_video_have_draws_of_their_own_and_jitter_moves_frames(dataset):
    def draws(copy, **options):
        train = VideoDataset(dataset.records, OPTIONS.spec(), train=True, **options)
        item = train[0, 1, copy]
        return item["seed"], item["frame_index"].tolist()

    assert draws(0) == draws(0)
    assert draws(0)[0] != draws(1)[0]
    assert draws(0)[1] != draws(1)[1]
    assert draws(0)[0] == draws(0, jitter=0.5)[0]
    assert draws(0)[1] != draws(0, jitter=0.5)[1]
