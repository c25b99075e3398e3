from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from datamodules.transforms.draws import Box, draw_box, draw_uniform
from datamodules.transforms.pixels import colour_jitter, erase, resized_crop


def make_clip(num_frames=3, height=24, width=36):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (num_frames, 3, height, width), generator=generator, dtype=torch.uint8)


def draw(seed):
    return torch.Generator().manual_seed(seed)


def test_a_crop_is_torchvisions_on_each_frame():
    clip = make_clip()
    for own, frame in zip(resized_crop(clip, Box(3, 5, 17, 21), (16, 16)), clip, strict=True):
        assert torch.equal(own, F.resized_crop(frame, 3, 5, 17, 21, [16, 16], antialias=True))


def test_colours_are_torchvisions_on_each_frame():
    clip = make_clip()
    for seed in range(10):
        augmented, twin = colour_jitter(clip, 0.4, 0.3, 0.2, 0.1, draw(seed)), draw(seed)
        assert augmented.dtype == torch.uint8
        factors = [draw_uniform(1 - strength, 1 + strength, twin) for strength in (0.4, 0.3, 0.2)]
        shift = draw_uniform(-0.1, 0.1, twin)
        for own, frame in zip(augmented, clip, strict=True):
            expected = F.adjust_brightness(frame, factors[0])
            expected = F.adjust_contrast(expected, factors[1])
            expected = F.adjust_saturation(expected, factors[2])
            assert torch.equal(own, F.adjust_hue(expected, shift))


def test_no_strength_draws_nothing():
    clip, generator = make_clip(), draw(0)
    assert torch.equal(colour_jitter(clip, 0, 0, 0, 0, generator), clip)
    assert torch.equal(generator.get_state(), draw(0).get_state())


def holes(clip, erased):
    """The box of the blackened pixels of each frame, None where there are none."""
    boxes = []
    for frame, own in zip(clip, erased, strict=True):
        black = (own == 0).all(0)
        assert torch.equal(own[:, ~black], frame[:, ~black])  # all else is untouched
        rows, columns = black.any(1).nonzero().flatten().tolist(), black.any(0).nonzero().flatten().tolist()
        if not rows:
            boxes.append(None)
            continue
        box = Box(rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
        assert black.sum() == box.height * box.width  # a whole rectangle
        boxes.append(box)
    return boxes


@pytest.mark.parametrize("each_frame", [False, True])
def test_erasing_takes_one_rectangle_of_the_asked_size(each_frame):
    clip = make_clip(4, 60, 80)
    tubes = 0
    for seed in range(40):
        erased = erase(clip, (0.1, 0.3), (0.5, 2.0), each_frame, draw(seed))
        assert erased.dtype == torch.uint8
        boxes = holes(clip, erased)
        for box in boxes:
            assert 0.09 < box.height * box.width / (60 * 80) < 0.31
            assert 0.46 < box.width / box.height < 2.2
        tubes += len(set(boxes)) == 1
        assert each_frame or torch.equal(erased, F.erase(clip, *boxes[0], v=torch.zeros((), dtype=torch.uint8)))
    assert tubes == (0 if each_frame else 40)
    assert (clip > 0).all()  # the clip that came in is untouched


def test_a_rectangle_that_fits_nowhere_erases_nothing():
    clip = make_clip(2, 4, 400)
    assert draw_box(4, 400, (1.0, 1.0), (0.5, 2.0), draw(0)) is None
    assert torch.equal(erase(clip, (1.0, 1.0), (0.5, 2.0), False, draw(0)), clip)
