from __future__ import annotations

import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from datamodules.options import AugmentOptions
from datamodules.transforms import ClipAugment

NOTHING = AugmentOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
JITTER = AugmentOptions(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)


def make_batch(num_clips=4, num_frames=3, height=40, width=56, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_clips, num_frames, 3, height, width)
    video = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return {"video": video, "seed": torch.arange(100, 100 + num_clips), "label": torch.arange(num_clips)}


@pytest.mark.parametrize("options", [AugmentOptions(), JITTER])
def test_form_stays(options):
    batch = make_batch()
    before = batch["video"].clone()
    augmented = ClipAugment(options, 32)(batch)
    assert augmented["video"].shape == (4, 3, 3, 32, 32)
    assert augmented["video"].dtype == torch.uint8
    assert augmented["label"] is batch["label"]
    assert torch.equal(batch["video"], before)  # the batch that came in is untouched


@pytest.mark.parametrize("options", [AugmentOptions(), JITTER])
def test_each_frame_of_a_clip_is_treated_alike(options):
    batch = make_batch()
    batch["video"] = batch["video"][:, :1].expand(-1, 3, -1, -1, -1)  # a still video
    video = ClipAugment(options, 32)(batch)["video"]
    assert torch.equal(video[:, 0], video[:, 1])
    assert torch.equal(video[:, 0], video[:, 2])
    assert not torch.equal(video[0], video[1])


def test_a_clip_looks_the_same_in_any_batch():
    batch, augment = make_batch(), ClipAugment(JITTER, 32)
    whole = augment(batch)["video"]
    for row in range(4):
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        assert torch.equal(augment(alone)["video"][0], whole[row])
    backwards = {key: value.flip(0) for key, value in batch.items()}
    assert torch.equal(augment(backwards)["video"].flip(0), whole)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    batch, augment = make_batch(), ClipAugment(JITTER, 32)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = augment(batch)["video"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(augment(batch)["video"], first)
    assert not torch.equal(augment({**batch, "seed": batch["seed"] + 4})["video"], first)


def test_largest_seed():
    batch = make_batch(num_clips=1)
    assert ClipAugment(JITTER, 8)({**batch, "seed": torch.tensor([2**63 - 1])})["video"].shape[-1] == 8


def test_without_a_draw_it_is_a_plain_resize():
    batch = make_batch(height=40, width=40)
    video = ClipAugment(NOTHING, 24)(batch)["video"]
    assert torch.equal(video, F.resize(batch["video"], [24, 24], antialias=True))


def test_flips_as_often_as_asked():
    batch = make_batch(num_clips=400, num_frames=1, height=8, width=8)
    video = ClipAugment(AugmentOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.3), 8)(batch)["video"]
    flipped = (video == batch["video"].flip(-1)).flatten(1).all(1)
    unchanged = (video == batch["video"]).flatten(1).all(1)
    assert (flipped ^ unchanged).all()
    assert 80 < flipped.sum() < 160


def crops(options, height, width, count=300):
    augment = ClipAugment(options, 16)
    return [augment._draw_crop(height, width, torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_crops_stay_inside_and_cover_the_asked_share():
    options = AugmentOptions(scale=(0.3, 0.6), ratio=(0.8, 1.25))
    drawn = crops(options, 120, 160)
    for top, left, height, width in drawn:
        assert 0 <= top <= 120 - height
        assert 0 <= left <= 160 - width
        assert 0.29 <= height * width / (120 * 160) <= 0.61
        assert 0.78 <= width / height <= 1.27
    shares = [height * width / (120 * 160) for _, _, height, width in drawn]
    assert min(shares) < 0.33
    assert max(shares) > 0.57
    assert len({(top, left) for top, left, _, _ in drawn}) > 200


@pytest.mark.parametrize(("height", "width"), [(20, 400), (400, 20)])
def test_where_no_crop_fits_it_is_torchvisions_centre(height, width):
    options = AugmentOptions(scale=(1.0, 1.0))
    reference = RandomResizedCrop.get_params(torch.empty(3, height, width), list(options.scale), list(options.ratio))
    assert set(crops(options, height, width, count=3)) == {reference}


def test_each_colour_change_does_its_part():
    def mean_shift(**strength):
        options = AugmentOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, **strength)
        batch = make_batch(num_clips=16, num_frames=1, height=8, width=8)
        return (ClipAugment(options, 8)(batch)["video"].float() - batch["video"].float()).abs().mean()

    assert mean_shift() == 0
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert mean_shift(**{name: 0.1}) > 0
        assert mean_shift(**{name: 0.4}) > mean_shift(**{name: 0.1})


def test_batches_without_frames_pass():
    batch = {"features": torch.zeros(2, 3, 5), "seed": torch.zeros(2)}
    assert ClipAugment(JITTER, 32)(batch) is batch
    empty = {"video": torch.empty(0, 3, 3, 40, 56, dtype=torch.uint8), "seed": torch.empty(0, dtype=torch.int64)}
    assert ClipAugment(JITTER, 32)(empty)["video"].shape == (0, 3, 3, 32, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_changes_pixels_by_rounding_only():
    batch = make_batch()
    on_device = ClipAugment(JITTER, 32)({key: value.cuda() for key, value in batch.items()})["video"]
    assert on_device.is_cuda
    difference = (on_device.cpu().float() - ClipAugment(JITTER, 32)(batch)["video"].float()).abs()
    assert difference.mean() < 0.5
