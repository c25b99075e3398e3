from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from datamodules.transforms.policies import OPERATIONS, rand_augment, trivial_augment


def make_clip(num_frames=3, height=24, width=36):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((num_frames, 3, height // 4, width // 4), generator=generator)
    return (torch.nn.functional.interpolate(coarse, (height, width)) * 255).to(torch.uint8)


def reference(transform, image, seed):
    """What torchvision makes of one image; its draws come from the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transform(image)


POLICIES = {
    "rand": (lambda clip, draw: rand_augment(clip, 2, 9, draw), v2.RandAugment(num_ops=2, magnitude=9)),
    "rand, strong": (lambda clip, draw: rand_augment(clip, 3, 30, draw), v2.RandAugment(num_ops=3, magnitude=30)),
    "trivial": (trivial_augment, v2.TrivialAugmentWide()),
}


@pytest.mark.parametrize("name", POLICIES)
def test_each_frame_is_what_torchvision_makes_of_it(name):
    policy, theirs = POLICIES[name]
    clip, changed = make_clip(), 0
    for seed in range(60):
        augmented = policy(clip, torch.Generator().manual_seed(seed))
        assert augmented.dtype == torch.uint8
        assert augmented.shape == clip.shape
        for frame, own in zip(clip, augmented, strict=True):
            assert torch.equal(own, reference(theirs, frame, seed))
        changed += not torch.equal(augmented, clip)
    assert changed > 40


def test_the_operations_are_torchvisions():
    assert (
        list(OPERATIONS) == list(v2.RandAugment._AUGMENTATION_SPACE) == list(v2.TrivialAugmentWide._AUGMENTATION_SPACE)
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_clip_of_one_frame_again_and_again_stays_one(name):
    still = make_clip(1).expand(4, -1, -1, -1)
    magnitude = {"Posterize": 4.0, "TranslateX": 7.0, "TranslateY": 7.0, "Rotate": 20.0}.get(name, 0.3)
    augmented = OPERATIONS[name](still, magnitude)
    assert torch.equal(augmented, augmented[:1].expand_as(augmented))
    assert torch.equal(augmented, still) == (name == "Identity")


def test_draws_come_from_the_generator_alone():
    clip = make_clip()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    results = [rand_augment(clip, 2, 9, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*results)
    assert torch.equal(torch.get_rng_state(), state)
