"""Attention where a block gives tokens or channels-last maps: what the mechanism sees, and what goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import timm
import torch
from nets import images, make
from torch import Tensor, nn

from temporal_attn.attention import insert_attention
from temporal_attn.attention.insertion import inserted
from temporal_attn.attention.places import places


class Seen(nn.Module):
    """Records the map that it is given, and changes it in a way that depends on the place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        self.map = x
        places = torch.arange(x.shape[2] * x.shape[3], dtype=x.dtype).view(x.shape[2:])
        return x * 2 + places


def cells(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    return ((i * width + j, i, j) for i, j in itertools.product(range(height), range(width)))


@pytest.mark.parametrize(
    ("name", "block", "prefix", "grid"),
    [
        ("timm vit", "blocks.1", 3, (4, 6)),  # class token and two registers; not square
        ("timm vit without class token", "blocks.1", 0, (4, 4)),
        ("timm deit", "blocks.1", 2, (4, 4)),  # class and distillation token
        ("timm eva", "blocks.1", 1, (4, 4)),
        ("tv vit", "encoder.layers.encoder_layer_1", 1, (4, 4)),
    ],
)
def test_tokens_are_a_map_and_those_in_front_stay(name: str, block: str, prefix: int, grid: tuple[int, int]):
    net, x = make(name), images(name)
    seen: list[Tensor] = []
    handle = net.get_submodule(block).register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        net(x)
        handle.remove()
        insert_attention(net, "test_insertion_layouts.Seen", [block], gate=None)
        net.get_submodule(block).register_forward_hook(lambda _m, _i, out: seen.append(out))
        net(x)
    before, after = seen
    attention = net.get_submodule("frame_attention." + block.replace(".", "_") + ".attention")
    assert before.shape[1] == prefix + grid[0] * grid[1]
    assert attention.map.shape == (2, before.shape[2], *grid)
    assert torch.equal(after[:, :prefix], before[:, :prefix])
    for cell, i, j in cells(*grid):
        assert torch.equal(attention.map[:, :, i, j], before[:, prefix + cell])
        torch.testing.assert_close(after[:, prefix + cell], before[:, prefix + cell] * 2 + cell)


@pytest.mark.parametrize("name", ["timm vit without class token", "timm vit", "tv vit"])
def test_tokens_keep_their_strides_so_that_identity_is_exact(name: str):
    net, x = make(name), images(name)
    strides: list[list[tuple[int, ...]]] = [[], []]
    with torch.no_grad():
        for i in range(2):
            blocks = [net.get_submodule(place) for place in places(net, "block")]
            handles = [
                block.register_forward_hook(lambda _m, _i, out, i=i: strides[i].append(out.stride()))
                for block in blocks
            ]
            answer = net(x)
            for handle in handles:
                handle.remove()
            if i == 0:
                before = answer
                insert_attention(net, "se", gate="identity")
    assert strides[0] == strides[1]
    assert torch.equal(answer, before)


def test_the_grid_follows_the_image_where_a_net_takes_any():
    torch.manual_seed(0)
    net = timm.models.vision_transformer.VisionTransformer(
        32, 8, embed_dim=16, depth=1, num_heads=2, dynamic_img_size=True
    ).eval()
    insert_attention(net, "test_insertion_layouts.Seen", gate=None)
    for height, width in ((16, 72), (24, 48), (48, 24), (32, 32)):
        net(torch.randn(1, 3, height, width))
        attention = net.get_submodule("frame_attention.blocks_0.attention")
        assert attention.map.shape == (1, 16, height // 8, width // 8)


def test_a_block_by_itself_takes_the_grid_that_the_net_was_made_for():
    net = insert_attention(make("timm vit"), "test_insertion_layouts.Seen", ["blocks.1"], gate=None)
    net.blocks[1](torch.randn(1, 3 + 24, 16))
    assert net.frame_attention.blocks_1.attention.map.shape == (1, 16, 4, 6)


def test_dropped_patches_are_found_out():
    net = timm.models.vision_transformer.VisionTransformer(
        32, 8, embed_dim=16, depth=1, num_heads=2, patch_drop_rate=0.5
    )
    insert_attention(net)
    net.eval()(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"'blocks.0'.*do not drop patches"):
        net.train()(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(("name", "block"), [("timm swin", "layers.1.blocks.0"), ("tv swin", "features.3.0")])
def test_channels_last_maps_are_turned_and_turned_back(name: str, block: str):
    net, x = make(name), images(name)
    seen: list[Tensor] = []
    handle = net.get_submodule(block).register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        net(x)
        handle.remove()
        insert_attention(net, "test_insertion_layouts.Seen", [block], gate=None)
        net.get_submodule(block).register_forward_hook(lambda _m, _i, out: seen.append(out))
        net(x)
    before, after = seen
    attention = net.get_submodule("frame_attention." + block.replace(".", "_") + ".attention")
    height, width = before.shape[1:3]
    assert attention.channels == before.shape[3]
    for cell, i, j in cells(height, width):
        assert torch.equal(attention.map[:, :, i, j], before[:, i, j])
        torch.testing.assert_close(after[:, i, j], before[:, i, j] * 2 + cell)


def test_a_square_of_as_many_channels_as_places_is_what_the_net_says_it_is():
    torch.manual_seed(0)
    net = timm.models.swin_transformer.SwinTransformer(
        64, window_size=2, embed_dim=16, depths=(1,), num_heads=(2,), num_classes=5
    )
    insert_attention(net, "test_insertion_layouts.Seen", gate=None)  # 16 × 16 places of 16 channels
    before = torch.randn(1, 16, 16, 16)
    after = next(iter(inserted(net).values()))
    torch.testing.assert_close(
        after.act(net, (), before), before * 2 + torch.arange(256.0).view(16, 16, 1), msg="channels were not last"
    )
