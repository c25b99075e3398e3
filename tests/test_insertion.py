"""Attention in nets that exist already: names, outputs, layouts, removal, copies, compilers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS, Two, disturb, hooks, images, make
from torch import Tensor, nn

from temporal_attn.attention import attention_maps, insert_attention, remove_attention
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
