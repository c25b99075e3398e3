from __future__ import annotations

import pytest
import torch

from temporal_attn.backbones import FrameBackbone
from temporal_attn.model import VideoClassifier
from temporal_attn.two_stream import TwoStreamBackbone
from temporal_attn.types import UserError

NET = "test_resnet"


def pairs(*shape, seed=0):
    return torch.randint(256, (*shape, 6, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def both(freeze, **options):
    """The same net with one stream and with two."""
    one = FrameBackbone(NET, attention=None, freeze=freeze, **options).eval()
    two = TwoStreamBackbone(NET, attention=None, freeze=freeze, **options).eval()
    two.load_state_dict(one.state_dict())
    return one, two


@pytest.mark.parametrize("freeze", ["none", "stem", "layer2", "all"])
@torch.no_grad()
def test_streams_are_the_frame_and_the_difference_to_the_later_one(freeze):
    one, two = both(freeze)
    video = pairs(3)
    frame, later = one.normalise(video[:, :3]), one.normalise(video[:, 3:])
    expected = torch.cat([one.maps(frame), one.maps(2 * (later - frame))], 1)
    maps = two.maps(video)
    torch.testing.assert_close(maps, expected)
    tokens = torch.cat([one.pool(one.maps(frame)), one.pool(one.maps(2 * (later - frame)))], 1)
    torch.testing.assert_close(two.pool(maps), tokens)
    assert (two.width, two.channels) == (tokens.shape[1], maps.shape[1])


@pytest.mark.parametrize("freeze", ["stem", "layer2", "all"])
@torch.no_grad()
def test_what_lies_below_the_cut_can_be_stored(freeze):
    _, two = both(freeze)
    video = pairs(2)
    below = two.below_cut(video)
    assert len(below) == 2
    again = below if freeze == "all" else two.pool(two.above_cut(below))
    torch.testing.assert_close(again, two.pool(two.maps(video)))


@torch.no_grad()
def test_floats_are_taken_as_normalised():
    _, two = both("none")
    video = pairs(2)
    normalised = torch.cat([FrameBackbone.normalise(two, half) for half in video.split(3, 1)], 1)
    torch.testing.assert_close(two.maps(normalised), two.maps(video))


def test_a_still_video_has_no_motion():
    _, two = both("none")
    still = pairs(2)[:, :3].repeat(1, 2, 1, 1)
    normalised = two.normalise(still)
    assert normalised[:, :3].abs().sum() > 0
    assert normalised[:, 3:].abs().sum() == 0


def test_frames_alone_are_refused():
    with pytest.raises(UserError, match=r"clip\.lag"):
        TwoStreamBackbone(NET, attention=None).maps(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("freeze", ["none", "layer3", "all"])
@torch.no_grad()
def test_pairs_stay_separable_and_padding_changes_nothing(freeze):
    attention = None if freeze == "all" else "cbam"
    model = VideoClassifier(3, NET, attention=attention, freeze=freeze, dim=16, heads=2, two_stream=True).eval()
    for parameter in model.parameters():
        parameter.normal_(std=0.1)
    video = pairs(2, 4)
    tokens = model.encode_frames(video).tokens
    each = torch.cat([model.encode_frames(video[:, [t]]).tokens for t in range(4)], 1)
    torch.testing.assert_close(tokens, each)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    noise = torch.where(mask[..., None, None, None], video, pairs(2, 4, seed=1))
    torch.testing.assert_close(model(noise, mask).logits, model(video, mask).logits)
    assert not model.mixes_time


def test_both_streams_train_the_net():
    model = VideoClassifier(3, NET, freeze="layer3", dim=16, heads=2, two_stream=True)
    for zero in (model.head[1].weight,):
        torch.nn.init.normal_(zero)
    model(pairs(2, 3)).logits.square().sum().backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert any(name.startswith("backbone.net.layer4") for name in trained)
    assert any(name.startswith("backbone.net.frame_attention") for name in trained)
