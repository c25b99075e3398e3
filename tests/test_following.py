"""Attention stays behind a module of a net, whatever is put there after the insertion."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from nets import disturb, hooks, images, make
from timm.layers import convert_sync_batchnorm
from timm.utils.model import freeze_batch_norm_2d
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from temporal_attn.attention import attention_maps, insert_attention, remove_attention


def fuse(net: nn.Module) -> nn.Module:
    """Convolution and normalisation of one block made one convolution; PyTorch moves the hooks to it."""
    torch.ao.quantization.fuse_modules(net.eval(), [["layer3.1.conv2", "layer3.1.bn2"]], inplace=True)
    return net


# What replaces normalisations of a net that is made already.
CONVERSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch sync": nn.SyncBatchNorm.convert_sync_batchnorm,
    "timm sync": convert_sync_batchnorm,
    "frozen": freeze_batch_norm_2d,
    "fused": fuse,
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_converted_normalisations_keep_their_attention(conversion: str, compiled: bool):
    x = images("tv resnet")
    net = insert_attention(make("tv resnet"), "cbam", at="norm", gate="sigmoid")
    disturb(net)
    converted = CONVERSIONS[conversion](copy.deepcopy(net)).eval()
    with torch.no_grad():
        answer = (torch.compile(converted, backend="eager") if compiled else converted)(x)
        torch.testing.assert_close(answer, net(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(converted(x), net(x), atol=1e-5, rtol=1e-5)  # nothing acts twice from now on
        assert attention_maps(converted, x).keys() == attention_maps(net, x).keys()
        bare = remove_attention(converted)(x)
        torch.testing.assert_close(bare, make("tv resnet")(x), atol=1e-5, rtol=1e-5)
    assert not hooks(converted)


def test_gradients_reach_attention_behind_a_converted_normalisation():
    net = insert_attention(make("tv resnet"), "se", at="norm", gate="sigmoid")
    net = freeze_batch_norm_2d(net)
    net(images("tv resnet")).square().sum().backward()
    assert all(p.grad is not None for p in net.get_submodule("frame_attention").parameters())


def test_attention_moves_to_another_module_at_the_top_of_the_net():
    net = insert_attention(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "se", at=["1"], gate="sigmoid").eval()
    x = torch.randn(2, 3, 5, 5)
    net[1] = nn.Identity()
    torch.testing.assert_close(net(x), net.get_submodule("frame_attention.1.attention")(net[0](x)))


@pytest.mark.parametrize("at", ["norm", "block", "stage"])
def test_graphs_that_would_lose_attention_are_not_made(at: str):
    net = insert_attention(make("tv resnet"), "se", at=at)
    with pytest.raises(ValueError, match="make the graph, and insert attention into that") as caught:
        create_feature_extractor(net, ["layer4"])
    assert "\n" not in str(caught.value)


def test_attention_goes_into_a_graph_that_is_made_already():
    graph = create_feature_extractor(make("tv resnet"), ["layer4"]).eval()
    insert_attention(graph, "se", at="norm", gate="sigmoid")
    net = insert_attention(make("tv resnet"), "se", at="norm", gate="sigmoid")
    net.get_submodule("frame_attention").load_state_dict(graph.get_submodule("frame_attention").state_dict())
    seen = []
    net.get_submodule("layer4").register_forward_hook(lambda _m, _i, out: seen.append(out))
    x = images("tv resnet")
    net(x)
    torch.testing.assert_close(graph(x)["layer4"], seen[0])
