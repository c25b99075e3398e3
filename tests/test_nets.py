"""Nets side by side: each sees what it would see alone, and what does not fit together is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from temporal_attn import VideoClassifier
from temporal_attn.backbones import FrameBackbone
from temporal_attn.nets import make_net
from temporal_attn.types import UserError

BOTH = "test_efficientnet+mobilenetv2_035"


def pictures(n: int = 2, side: int = 64) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_channels_of_each_net_are_those_that_it_makes_alone():
    net = make_net(BOTH, "none").eval()
    x = pictures()
    with torch.no_grad():
        maps = net.forward_features(x)
        alone = [own.forward_features(x) for own in net.nets]
        torch.testing.assert_close(maps, torch.cat(alone, 1))
        pooled = [own.forward_head(part, pre_logits=True) for own, part in zip(net.nets, alone, strict=True)]
        torch.testing.assert_close(net(x), torch.cat(pooled, 1))
    assert net.num_features == maps.shape[1]
    assert net.head_hidden_size == net(x).shape[1]
    assert "mobilenetv2_035" in repr(net)


def test_a_net_that_widens_its_tokens_behind_the_pooling_keeps_them():
    backbone = FrameBackbone("mobilenetv3_small_050+mobilenetv3_small_050", attention=None).eval()
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = backbone.maps(frames)
        assert maps.shape[1] == backbone.channels
        assert backbone.pool(maps).shape == (2, backbone.width)
    assert backbone.width != backbone.channels


@pytest.mark.parametrize("two_stream", [False, True])
def test_a_classifier_of_two_nets_trains_and_its_frozen_part_can_be_cached(two_stream: bool):
    video = torch.randint(0, 256, (2, 3, 6 if two_stream else 3, 64, 64), dtype=torch.uint8)
    options = {"attention": None, "two_stream": two_stream, "dim": 16, "depth": 1, "heads": 2}
    frozen = VideoClassifier(3, BOTH, freeze="all", **options).eval()
    with torch.no_grad():
        torch.testing.assert_close(frozen(video).logits, frozen(features=frozen.below_cut(video)).logits)
    trained = VideoClassifier(3, BOTH, gradient_checkpointing=True, **options)
    trained(video).logits.sum().backward()
    for net in trained.backbone.net.nets:
        assert all(parameter.grad is not None for name, parameter in net.named_parameters() if "conv" in name)


def test_weights_of_a_file_hold_all_nets(tmp_path: Path):
    source = make_net(BOTH, "none")
    path = tmp_path / "both.safetensors"
    save_file(source.state_dict(), path)
    loaded = make_net(BOTH, str(path))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in source.state_dict().items())
    save_file(source.nets[0].state_dict(), path)
    with pytest.raises(UserError, match=r"keys are missing \(nets\.0"):
        make_net(BOTH, str(path))


def test_what_does_not_fit_together_is_named():
    with pytest.raises(UserError, match="'nonsense' cannot be made"):
        make_net("test_efficientnet+nonsense", "none")
    with pytest.raises(UserError, match=r"pypi.* not for test_efficientnet"):
        make_net(BOTH, "pypi")
    with pytest.raises(UserError, match=r"normalise by a different mean \(test_resnet by"):
        make_net("test_resnet+test_efficientnet", "none")
    with pytest.raises(UserError, match="freeze='layer1' is not a part"):
        FrameBackbone(BOTH, attention=None, freeze="layer1")
    flat = make_net("test_resnet+test_vit", "none").eval()
    with torch.no_grad(), pytest.raises(UserError, match=r"maps .* of one size, and these make test_resnet"):
        flat.forward_features(pictures(1, 160))
