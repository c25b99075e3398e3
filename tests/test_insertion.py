"""Attention in nets that exist already: names, outputs, layouts, removal, copies, compilers."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS, images, make
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from temporal_attn.attention import CBAM, attention_maps, build, insert_attention, remove_attention
from temporal_attn.attention.insertion import _keys, inserted
from temporal_attn.attention.places import places

PLACES = [(name, "block") for name in NETS] + [
    ("timm resnet", "norm"),
    ("tv resnet", "conv"),
    ("timm efficientnet", "norm"),
    ("tv efficientnet", "conv"),
    ("timm mobilenetv3", "conv"),
    ("tv mobilenetv2", "norm"),
    ("timm regnet", "norm"),
    ("tv regnet", "stage"),
    ("tv convnext", "conv"),
    ("timm convnext", "stage"),
    ("tv densenet", "stage"),
    ("timm vit", "stage"),
    ("tv swin", "stage"),
]


def disturb(net: nn.Module) -> None:
    """Attention that does something: no gate stays at its start."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "frame_attention" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)


def hooks(net: nn.Module) -> list[object]:
    return [hook for module in net.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize(("name", "at"), PLACES)
def test_insertion_keeps_names_and_outputs_and_can_be_undone(name: str, at: str):
    net, x = make(name), images(name)
    state = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        before = net(x)
    chosen = places(net, at, (1, 2))

    assert insert_attention(net, "cbam", at, (1, 2)) is net
    assert list(inserted(net)) == chosen
    assert not any(module.training for module in net.modules())
    for key, value in state.items():
        assert torch.equal(net.state_dict()[key], value), key
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    new = {key for key in net.state_dict() if key.startswith("frame_attention.")}
    # torch fills in a counter that an old file lacks and does not call it missing
    assert set(missing) == {key for key in new if not key.endswith("num_batches_tracked")}
    assert set(net.state_dict()) == new | set(state)

    weights = attention_maps(net, x)
    keys = [place.replace(".", "_") for place in chosen]
    gates = ("channel_gate", "spatial_gate")
    assert list(weights) == [f"frame_attention.{key}.attention.{gate}" for key in keys for gate in gates]
    with torch.no_grad():
        torch.testing.assert_close(net(x), before, atol=1e-6, rtol=1e-6)
        disturb(net)
        assert not torch.allclose(net(x), before, atol=1e-4)

    assert remove_attention(net) is net
    assert list(net.state_dict()) == list(state)
    assert not hooks(net)
    assert not inserted(net)
    with torch.no_grad():
        assert torch.equal(net(x), before)
    assert not attention_maps(net, x)


@pytest.mark.parametrize("mechanism", ["se", "eca", "coord", "gc", "bam"])
@pytest.mark.parametrize("name", ["timm resnext", "tv densenet", "timm vit", "tv swin"])
def test_every_mechanism_starts_as_the_net_was(name: str, mechanism: str):
    net, x = make(name), images(name)
    with torch.no_grad():
        before = net(x)
        insert_attention(net, mechanism, "stage", (1, 2))
        torch.testing.assert_close(net(x), before, atol=1e-6, rtol=1e-6)
        disturb(net)
        assert not torch.allclose(net(x), before, atol=1e-4)


# -- what attention sees --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm resnet", "tv resnet"])
def test_norm_is_on_the_branch_before_the_shortcut(name: str):
    net = make(name)
    insert_attention(net, "cbam", "norm", stages=[2], gate="sigmoid")
    disturb(net)
    block = net.get_submodule("layer2.0")
    attention = net.get_submodule("frame_attention.layer2_0_bn2.attention")
    first, second, shortcut = block.conv1, block.conv2, block.downsample
    x = torch.randn(2, first.in_channels, 16, 16, generator=torch.Generator().manual_seed(1))

    def normalised(norm: nn.Module, z: Tensor) -> Tensor:
        return nn.functional.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    with torch.no_grad():
        branch = normalised(block.bn2, second(normalised(block.bn1, first(x)).relu()))
        expected = (attention(branch) + shortcut(x)).relu()
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at", ["stage", "block"])
def test_stage_and_block_are_behind_what_they_name(at: str):
    net = make("timm resnext")
    insert_attention(net, "cbam", at, stages=[3], gate="sigmoid")
    disturb(net)
    stage = net.get_submodule("layer3")
    x = torch.randn(2, stage[0].conv1.in_channels, 8, 8)
    twin = remove_attention(copy.deepcopy(net)).get_submodule("layer3")
    attention = [after.attention for after in inserted(net).values()]
    with torch.no_grad():
        expected = twin[0](x)
        if at == "block":
            expected = attention[0](expected)
        torch.testing.assert_close(stage(x), attention[-1](twin[1](expected)))


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
        insert_attention(net, "test_insertion.Seen", [block], gate=None)
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
    insert_attention(net, "test_insertion.Seen", gate=None)
    for height, width in ((16, 72), (24, 48), (48, 24), (32, 32)):
        net(torch.randn(1, 3, height, width))
        attention = net.get_submodule("frame_attention.blocks_0.attention")
        assert attention.map.shape == (1, 16, height // 8, width // 8)


def test_a_block_by_itself_takes_the_grid_that_the_net_was_made_for():
    net = insert_attention(make("timm vit"), "test_insertion.Seen", ["blocks.1"], gate=None)
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
        insert_attention(net, "test_insertion.Seen", [block], gate=None)
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
    insert_attention(net, "test_insertion.Seen", gate=None)  # 16 × 16 places of 16 channels
    before = torch.randn(1, 16, 16, 16)
    after = next(iter(inserted(net).values()))
    torch.testing.assert_close(
        after.act(net, (), before), before * 2 + torch.arange(256.0).view(16, 16, 1), msg="channels were not last"
    )


@pytest.mark.parametrize("name", ["timm resnet", "tv densenet", "timm convnext"])
def test_channels_last_memory_is_kept(name: str):
    net, x = make(name), images(name)
    net.to(memory_format=torch.channels_last)
    insert_attention(net, "cbam", "stage", gate="sigmoid")
    seen = {}
    for place in inserted(net):
        net.get_submodule(place).register_forward_hook(lambda _m, _i, out, place=place: seen.update({place: out}))
    with torch.no_grad():
        expected = net(x)
        plain = {place: out.clone() for place, out in seen.items()}
        outputs = net(x.contiguous(memory_format=torch.channels_last))
    for place, out in seen.items():
        assert out.is_contiguous(memory_format=torch.channels_last), place
        torch.testing.assert_close(out, plain[place], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-4)


# -- copies, compilers, training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("name", ["timm resnet", "timm vit"])
def test_copies_are_whole_and_independent(name: str, way: str):
    net, x = insert_attention(make(name), gate="sigmoid"), images(name)
    disturb(net)
    with torch.no_grad():
        before = net(x)
        if way == "deepcopy":
            twin = copy.deepcopy(net)
        elif way == "pickle":
            twin = pickle.loads(pickle.dumps(net))
        else:
            buffer = io.BytesIO()
            torch.save(net, buffer)
            buffer.seek(0)
            twin = torch.load(buffer, weights_only=False)
        assert torch.equal(twin(x), before)
        for parameter in twin.frame_attention.parameters():
            parameter.zero_()
        assert not torch.allclose(twin(x), before)
        assert torch.equal(net(x), before)
        remove_attention(twin)
        assert not hooks(twin)
        assert torch.equal(net(x), before)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


LAYOUTS = {
    "maps": (Two, ["first", "second"]),
    "channels last": (
        lambda: timm.models.swin_transformer.SwinTransformer(
            32, window_size=2, embed_dim=8, depths=(1,), num_heads=(2,), num_classes=5
        ),
        "block",
    ),
    "tokens": (
        lambda: timm.models.vision_transformer.VisionTransformer(
            32, 8, embed_dim=8, depth=1, num_heads=2, num_classes=5, global_pool="avg"
        ),
        "block",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_and_exported_equal_eager(layout: str):
    torch.manual_seed(0)
    net, at = LAYOUTS[layout]
    net = insert_attention(net(), "cbam", at, gate="sigmoid").eval()
    disturb(net)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(x)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
        exported = torch.export.export(net, (x,)).module()(x)
        bare = remove_attention(net)(x)
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exported, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(bare, expected, atol=1e-4)


@pytest.mark.parametrize("way", ["torch.compile(net)", "net.compile()"])
def test_nets_that_are_compiled_already_take_notice(way: str):
    net = Two().eval()
    if way == "net.compile()":
        net.compile(backend="eager")
    compiled = net if way == "net.compile()" else torch.compile(net, backend="eager")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = compiled(x)
        assert insert_attention(compiled, at=["first", "second"], gate="sigmoid") is compiled
        disturb(net)
        assert not torch.allclose(compiled(x), before, atol=1e-3)
        assert remove_attention(compiled) is compiled
        assert torch.equal(compiled(x), before)


def test_new_modules_live_where_the_net_lives():
    net = insert_attention(make("timm resnet").double())
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}


@pytest.mark.parametrize("training", [True, False])
def test_modes_stay_and_new_modules_take_up_that_of_the_net(training: bool):
    net = make("timm resnet").train(training)
    net.bn1.eval()
    modes = {name: module.training for name, module in net.named_modules()}
    statistics = copy.deepcopy(net.state_dict())
    insert_attention(net)
    for name, module in net.named_modules():
        assert module.training == modes.get(name, training), name
    for key, value in statistics.items():
        assert torch.equal(net.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["timm resnet", "timm swin", "tv vit"])
def test_gradients_reach_inserted_attention(name: str):
    net = insert_attention(make(name), stages=(1, 2), reduction=2).train()  # wide enough for some unit to live
    net(images(name, 4)).square().sum().backward()
    ups = [p for n, p in net.named_parameters() if n.endswith("channel.up.weight")]
    assert len(ups) == len(places(net, "block", (1, 2)))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ups)


def test_maps_of_a_net_have_the_size_of_their_stage():
    net = insert_attention(make("tv resnet"), at="stage")
    shapes = {name: tuple(weight.shape) for name, weight in attention_maps(net, images("tv resnet")).items()}
    for stage, (channels, side) in {"layer1": (64, 16), "layer2": (128, 8), "layer4": (512, 2)}.items():
        assert shapes[f"frame_attention.{stage}.attention.channel_gate"] == (2, channels, 1, 1)
        assert shapes[f"frame_attention.{stage}.attention.spatial_gate"] == (2, 1, side, side)


# -- names in the state dict ----------------------------------------------------------------------------------------


class Nested(nn.Module):
    """Two modules whose names differ only in what stands where the dot is, and one called like a method of a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.a_b, self.keys = nn.Module(), nn.Module(), nn.Conv2d(5, 6, 1)
        self.a.b_c, self.a_b.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.keys(self.a_b.c(self.a.b_c(x)))


def test_keys_are_those_of_the_places_and_never_clash():
    assert "frame_attention.layer3_0_bn3.attention.channel.up.weight" in (
        insert_attention(make("timm resnet"), at="norm").state_dict()
    )
    net = insert_attention(Nested(), at=["a.b_c", "a_b.c", "keys"], gate="sigmoid")
    up = "attention.channel.up.weight"
    sizes = {key: len(value) for key, value in net.state_dict().items() if key.endswith(up)}
    names = {"a/b_c": 4, "a_b/c": 5, "keys": 6}
    assert sizes == {f"frame_attention.{name}.{up}": channels for name, channels in names.items()}
    twin = insert_attention(Nested(), at=["keys", "a_b.c", "a.b_c"], gate="sigmoid")  # in whatever order
    twin.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(twin.eval()(x), net.eval()(x))


@given(st.sets(st.from_regex(r"[a_]{1,3}(\.[a_]{1,3}){0,2}", fullmatch=True), min_size=1))
def test_every_place_has_a_key_of_its_own(names: set[str]):
    keys = _keys(sorted(names))
    assert len(set(keys.values())) == len(names)
    assert not any("." in key for key in keys.values())
    plain = [name.replace(".", "_") for name in names]
    for name, key in keys.items():
        assert (key == name.replace(".", "_")) == (plain.count(name.replace(".", "_")) == 1 or "." not in name)


# -- what does not fit ----------------------------------------------------------------------------------------------


class WithUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Conv2d(3, 4, 1)
        self.spare = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x).mean((2, 3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"at": "layer"}, "is not known; use 'conv'"),
        ({"at": "stage", "stages": [0, 5]}, r"\[0, 5\] do not exist"),
        ({"at": ["layer1", "layer1"]}, "twice"),
        ({"at": ["layer9"]}, "layer9"),
        (
            {"at": ["fc"]},
            r"'fc' does not return.*shape \(1, 5\); name modules whose output is a map, or use at='stage'",
        ),
        ({"name": "sebam"}, "choose one of"),
        ({"name": "se", "reduction": 0}, "reduction"),
        ({"gate": "tanh"}, "choose one of"),
        ({"name": "torchvision.ops.SqueezeExcitation", "squeeze_channels": 4}, r"gate=None \(attention_gate: null\)"),
        ({"image_size": (2, 0)}, r"blank image \(1, 3, 2, 0\).*image_size=\(height, width\)"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_the_net_as_it_was(arguments: dict[str, object], words: str):
    net, x = make("timm resnet"), images("timm resnet")
    modes = [module.training for module in net.modules()]
    with torch.no_grad():
        before = net(x)
    with pytest.raises(ValueError, match=words) as caught:
        insert_attention(net, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not hasattr(net, "frame_attention")
    assert not hooks(net)
    assert [module.training for module in net.modules()] == modes
    with torch.no_grad():
        assert torch.equal(net(x), before)


class Picky(nn.Module):
    """Fits the first places of a net and not the last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels > 64:
            raise ValueError("too wide")


def test_a_mechanism_that_fits_only_some_places_leaves_no_trace():
    net = make("timm resnet")
    with pytest.raises(ValueError, match="too wide"):
        insert_attention(net, "test_insertion.Picky", gate=None)
    assert not hooks(net)
    assert not hasattr(net, "frame_attention")


def test_a_module_that_the_net_does_not_use_is_refused():
    with pytest.raises(ValueError, match=r"'spare'.*not used"):
        insert_attention(WithUnused(), at=["spare"])


class Children(nn.Module):
    """Runs its children in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


class Every(Children):
    """Returns what each child makes of the image."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(itertools.accumulate(self.children(), lambda x, child: child(x), initial=x))


class Unpacked(Children):
    """Counts its children."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.children()
        out: Tensor = second(first(x))
        return out


@pytest.mark.parametrize(
    ("make_net", "at"),
    [
        (Children, ["first"]),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), ["0"]),
        (lambda: timm.create_model("test_resnet", features_only=True), "block"),
        (lambda: IntermediateLayerGetter(make("tv resnet"), {"layer1": "a", "layer3": "b"}), ["layer1", "layer2"]),
    ],
    ids=["children", "chain", "features_only", "IntermediateLayerGetter"],
)
def test_nets_that_run_their_children_pass_through_the_new_modules(make_net: Callable[[], nn.Module], at: list[str]):
    torch.manual_seed(0)
    net, x = make_net().eval(), torch.randn(2, 3, 32, 32)

    def answers() -> list[Tensor]:
        answer = net(x)
        return list(answer.values()) if isinstance(answer, dict) else [*answer]

    with torch.no_grad():
        before = answers()
        insert_attention(net, at=at, gate="identity")
        torch.testing.assert_close(answers(), before, atol=1e-6, rtol=1e-6)
        disturb(net)
        assert not torch.allclose(answers()[-1], before[-1], atol=1e-4)
        remove_attention(net)
        assert all(map(torch.equal, answers(), before))


@pytest.mark.parametrize(("kind", "words"), [(Unpacked, "too many values"), (Every, "other shapes")])
def test_nets_that_cannot_have_another_child_are_refused_and_left_alone(kind: type[nn.Module], words: str):
    net = kind()
    with pytest.raises(ValueError, match=rf"{kind.__name__} does not run with attention 'cbam' inside.*{words}"):
        insert_attention(net, at=["first"])
    assert not hooks(net)
    assert not hasattr(net, "frame_attention")


@pytest.mark.parametrize("channels", [1, 4])
def test_the_blank_image_has_the_channels_that_the_net_takes(channels: int):
    net = insert_attention(timm.create_model("test_resnet", in_chans=channels, num_classes=5))
    assert net(torch.randn(2, channels, 64, 64)).shape == (2, 5)
    grouped = nn.Sequential(nn.Conv2d(channels, 8, 1, groups=channels))
    assert insert_attention(grouped, at=["0"])(torch.randn(2, channels, 4, 4)).shape == (2, 8, 4, 4)


class TwoInputs(Two):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


class Reordered(nn.Module):
    """Its first convolution is not the one that takes the image."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Conv2d(8, 4, 3), nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize(("kind", "words"), [(TwoInputs, "'y'"), (Reordered, "channels")])
def test_a_size_is_asked_for_only_where_it_may_be_wrong(kind: type[nn.Module], words: str):
    with pytest.raises(ValueError, match=rf"{words}.*one batch of images") as caught:
        insert_attention(kind(), at=["first"])
    assert "image_size" not in str(caught.value)


def test_twice_is_refused_and_so_is_removing_nothing():
    net = insert_attention(make("timm resnet"))
    with pytest.raises(ValueError, match="remove_attention"):
        insert_attention(net)
    remove_attention(net)
    with pytest.raises(ValueError, match="no inserted attention"):
        remove_attention(net)
    insert_attention(net)  # and there is a way back


def test_without_a_gate_argument_a_mechanism_has_that_of_its_paper():
    net = insert_attention(make("timm resnet"), "cbam", "stage", gate=None)
    kinds = {module.kind for module in net.frame_attention.modules() if hasattr(module, "kind")}
    assert kinds == {build("cbam", 8).channel_gate.kind} == {"sigmoid"}
    assert sum(type(module) is CBAM for module in net.modules()) == 4


def test_a_class_of_another_package_needs_no_gate():
    net, x = make("timm resnet"), images("timm resnet")
    with torch.no_grad():
        before = net(x)
        insert_attention(net, "torchvision.ops.SqueezeExcitation", "norm", gate=None, squeeze_channels=4)
        assert not torch.allclose(net(x), before)
        assert torch.equal(remove_attention(net)(x), before)
