from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from datamodules.options import AugmentOptions
from datamodules.transforms import ClipAugment
from datamodules.transforms.pixels import draw_crop
from temporal_attn.types import UserError

NOTHING = AugmentOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
JITTER = AugmentOptions(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
RAND = AugmentOptions(policy="rand", erase=0.7, brightness=0.1)
TRIVIAL = AugmentOptions(policy="trivial", flip_pairs=(("left", "right"),), reverse=0.5, reverse_symmetric="all")
EVERYTHING = replace(TRIVIAL, erase=0.5, erase_each_frame=True, mixup=0.8, cutmix=1.0, mix=0.9, hue=0.1)
NAMES = ["left", "right", "up", "down"]


def make_batch(num_clips=4, num_frames=3, height=40, width=56, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_clips, num_frames, 3, height, width)
    video = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    steps = torch.arange(num_frames).expand(num_clips, -1)
    return {
        "video": video,
        "seed": torch.arange(100, 100 + num_clips),
        "label": torch.arange(num_clips) % 4,
        "mask": torch.ones(num_clips, num_frames, dtype=torch.bool),
        "pts": steps.float(),
        "frame_index": steps,
    }


@pytest.mark.parametrize("options", [AugmentOptions(), JITTER, RAND])
def test_form_stays(options):
    batch = make_batch()
    before = batch["video"].clone()
    augmented = ClipAugment(options, 32)(batch)
    assert augmented["video"].shape == (4, 3, 3, 32, 32)
    assert augmented["video"].dtype == torch.uint8
    assert augmented["label"] is batch["label"]
    assert torch.equal(batch["video"], before)  # the batch that came in is untouched


@pytest.mark.parametrize("options", [AugmentOptions(), JITTER, RAND, TRIVIAL, replace(RAND, mixup=1.0, cutmix=1.0)])
def test_each_frame_of_a_clip_is_treated_alike(options):
    batch = make_batch()
    batch["video"] = batch["video"][:, :1].expand(-1, 3, -1, -1, -1)  # a still video
    video = ClipAugment(options, 32, NAMES)(batch)["video"]
    assert torch.equal(video[:, 0], video[:, 1])
    assert torch.equal(video[:, 0], video[:, 2])
    assert not torch.equal(video[0], video[1])


@pytest.mark.parametrize("options", [JITTER, RAND, TRIVIAL])
def test_a_clip_looks_the_same_in_any_batch(options):
    batch, augment = make_batch(), ClipAugment(options, 32, NAMES)
    whole = augment(batch)
    backwards = augment({key: value.flip(0) for key, value in batch.items()})
    for key, value in whole.items():
        assert torch.equal(backwards[key].flip(0), value)
        for row in range(4):
            alone = augment({key: value[row : row + 1] for key, value in batch.items()})
            assert torch.equal(alone[key][0], value[row])


@pytest.mark.parametrize("options", [JITTER, EVERYTHING])
def test_the_seed_decides_and_the_global_generator_is_left_alone(options):
    batch, augment = make_batch(), ClipAugment(options, 32, NAMES)
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
    draws = (torch.Generator().manual_seed(seed) for seed in range(count))
    return [draw_crop(height, width, options.scale, options.ratio, draw) for draw in draws]


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


# Labels


def test_everything_at_once():
    batch = make_batch(12)
    augmented = ClipAugment(EVERYTHING, 32, NAMES)(batch)
    assert augmented["video"].shape == (12, 3, 3, 32, 32)
    assert augmented["video"].dtype == torch.uint8
    assert augmented["label"].shape == (12, 4)
    assert torch.allclose(augmented["label"].sum(1), torch.ones(12))
    assert set(batch) | {"label_b", "lam", "partner"} == set(augmented)
    assert torch.equal(batch["label"], make_batch(12)["label"])  # the batch that came in is untouched


def test_a_flip_exchanges_left_and_right():
    options = replace(NOTHING, flip=0.5, flip_pairs=(("left", "right"),))
    batch = make_batch(60, height=8, width=8)
    augmented = ClipAugment(options, 8, NAMES)(batch)
    for clip, own, before, after in zip(
        batch["video"], augmented["video"], batch["label"].tolist(), augmented["label"].tolist(), strict=True
    ):
        flipped = torch.equal(own, clip.flip(-1))
        assert flipped or torch.equal(own, clip)
        assert after == ({0: 1, 1: 0}.get(before, before) if flipped else before)
    assert 5 < (augmented["label"] != batch["label"]).sum() < 25


def test_reversal_comes_before_everything_else():
    options = replace(JITTER, reverse=1.0, reverse_pairs=(("up", "down"),), reverse_symmetric=("left",))
    batch = make_batch()
    augmented = ClipAugment(options, 32, NAMES)(batch)
    assert augmented["label"].tolist() == [0, 1, 3, 2]
    assert augmented["frame_index"].tolist() == [[2, 1, 0], [0, 1, 2], [2, 1, 0], [2, 1, 0]]
    again = ClipAugment(options, 32, NAMES)(augmented)
    assert again["frame_index"].tolist() == batch["frame_index"].tolist()


@pytest.mark.parametrize("options", [TRIVIAL, replace(NOTHING, cutmix=1.0)])
def test_labels_that_change_need_class_names_and_frames(options):
    with pytest.raises(UserError, match="class names"):
        ClipAugment(options, 8)(make_batch())
    augment = ClipAugment(options, 8, NAMES)
    with pytest.raises(UserError, match="stored features"):
        augment({"features": torch.zeros(2, 3, 5), "seed": torch.zeros(2)})
    with pytest.raises(UserError, match="stored features"):
        augment.clip(make_batch()["video"][0], 3)


def test_class_names_may_come_later():
    augment = ClipAugment(TRIVIAL, 16)
    augment.set_classes(NAMES)
    assert torch.equal(augment(make_batch())["video"], ClipAugment(TRIVIAL, 16, NAMES)(make_batch())["video"])
    with pytest.raises(UserError, match=r"augment.flip_pairs names right; the classes are left, up"):
        augment.set_classes(["left", "up"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jitter": 0.6}, "augment.jitter is 0.6"),
        ({"reverse": 0.5}, "unless reverse_pairs or reverse_symmetric say which classes"),
        ({"reverse_pairs": (("a", "b"), ("b", "c"))}, "augment.reverse_pairs"),
        ({"reverse_pairs": (("a", "b"),), "reverse_symmetric": ("b",)}, "no class stands twice"),
        ({"flip_pairs": (("a", "a"),)}, "augment.flip_pairs"),
        ({"flip_pairs": (("a",),)}, "pairs of class names"),
        ({"policy": "auto"}, "none, rand, trivial"),
        ({"policy_level": 31}, "augment.policy_level"),
        ({"policy_ops": 0}, "augment.policy_ops"),
        ({"erase": 1.5}, "augment.erase"),
        ({"erase_scale": (0.5, 0.1)}, "augment.erase_scale"),
        ({"mixup": -1.0}, "augment.mixup"),
        ({"mix": 2.0}, "augment.mix"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UserError) as error:
        AugmentOptions(**options)
    assert message in str(error.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_changes_pixels_by_rounding_only():
    batch = make_batch()
    on_device = ClipAugment(JITTER, 32)({key: value.cuda() for key, value in batch.items()})["video"]
    assert on_device.is_cuda
    difference = (on_device.cpu().float() - ClipAugment(JITTER, 32)(batch)["video"].float()).abs()
    assert difference.mean() < 0.5


def test_an_oblong_size_keeps_the_shape_of_what_it_shows():
    batch = make_batch()
    height, width = batch["video"].shape[-2:]
    whole = AugmentOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    assert torch.equal(ClipAugment(whole, (height, width))(batch)["video"], batch["video"])
    assert ClipAugment(JITTER, (16, 40))(batch)["video"].shape[-2:] == (16, 40)


def test_both_frames_of_a_pair_look_the_same():
    batch = make_batch()
    pairs = {**batch, "video": batch["video"].repeat(1, 1, 2, 1, 1)}
    first, later = ClipAugment(JITTER, 32)(pairs)["video"].split(3, 2)
    assert torch.equal(first, later)
    assert torch.equal(first, ClipAugment(JITTER, 32)(batch)["video"])
