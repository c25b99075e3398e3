"""Attention in nets that exist already: names, places, removal, copies."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
import torchvision
from torch import Tensor, nn

from temporal_attn.attention import CBAM, attention_maps, insert_attention, remove_attention
from temporal_attn.attention.insertion import stage_names

timm = pytest.importorskip("timm")

NETS: dict[str, tuple[str, str | list[str], int]] = {
    # name: (library, at, number of places)
    "resnet18": ("timm", "block", 8),
    "test_resnet": ("timm", "stage", 4),
    "tf_efficientnet_lite0": ("timm", "block", 16),
    "mobilenetv3_small_050": ("timm", "block", 12),
    "regnety_002": ("timm", "stage", 4),
    "convnext_atto": ("timm", "stage", 4),
    "densenet121": ("timm", ["features.denseblock1", "features.denseblock4"], 2),
    "tv_resnet18": ("torchvision", "block", 8),
}


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    if NETS.get(name, ("timm",))[0] == "torchvision":
        net = getattr(torchvision.models, name.removeprefix("tv_"))(weights=None, num_classes=5)
    else:
        net = timm.create_model(name, num_classes=5)
    for module in net.modules():  # statistics as of a net that saw data
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.uniform_(-0.2, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)  # timm starts the last one of a branch at zero
    return net.eval()


def images(n: int = 2, side: int = 64) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(3))


def disturb(net: nn.Module) -> None:
    """Attention that does something: no gate stays at its start."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "frame_attention" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)


@pytest.mark.parametrize("name", NETS)
def test_insertion_keeps_names_and_outputs_and_can_be_undone(name: str):
    _, at, count = NETS[name]
    net = make(name)
    x = images()
    state = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    with torch.no_grad():
        before = net(x)

    assert insert_attention(net, "cbam", at, gate="identity") is net
    assert [m.training for n, m in net.named_modules() if "frame_attention" not in n] == modes
    for key, value in state.items():
        assert torch.equal(net.state_dict()[key], value), key
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    new = {key for key in net.state_dict() if key.startswith("frame_attention.")}
    # torch fills in a counter that an old file lacks and does not call it missing
    assert set(missing) == {key for key in new if not key.endswith("num_batches_tracked")}
    gates = attention_maps(net, x)
    assert len(gates) == 2 * count
    with torch.no_grad():
        torch.testing.assert_close(net(x), before, atol=1e-6, rtol=1e-6)
        disturb(net)
        assert not torch.allclose(net(x), before, atol=1e-4)

    remove_attention(net)
    assert list(net.state_dict()) == list(state)
    with torch.no_grad():
        assert torch.equal(net(x), before)
    assert not attention_maps(net, x)


@pytest.mark.parametrize("name", ["resnet18", "tv_resnet18"])
def test_block_is_on_the_branch_before_the_shortcut(name: str):
    net = make(name)
    insert_attention(net, "cbam", "block", stages=[2], gate="sigmoid")
    disturb(net)
    block = net.get_submodule("layer2.0")
    attention = next(m for n, m in net.named_modules() if n.startswith("frame_attention.layer2_0") and type(m) is CBAM)
    first, second, shortcut = block.conv1, block.conv2, block.downsample
    x = torch.randn(2, 64, 16, 16, generator=torch.Generator().manual_seed(1))

    def normalised(norm: nn.Module, z: Tensor) -> Tensor:
        return nn.functional.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    with torch.no_grad():
        branch = normalised(block.bn2, second(normalised(block.bn1, first(x)).relu()))
        expected = (attention(branch) + shortcut(x)).relu()
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_stage_is_behind_the_stage():
    net = make("test_resnet")
    insert_attention(net, "cbam", "stage", stages=[3], gate="sigmoid")
    disturb(net)
    attention = next(module for module in net.frame_attention.modules() if type(module) is CBAM)
    stage = net.get_submodule("layer3")
    x = torch.randn(2, stage[0].conv1.in_channels, 8, 8)
    with torch.no_grad():
        plain = x
        for block in stage:
            plain = block(plain)
        torch.testing.assert_close(stage(x), attention(plain))


def test_only_the_stages_asked_for():
    net = insert_attention(make("resnet18"), at="stage", stages=[2, 4])
    assert sorted(net.frame_attention) == ["layer2", "layer4"]


def test_stage_names_of_unknown_layouts():
    assert stage_names(make("regnety_002")) == ["s1", "s2", "s3", "s4"]
    with pytest.raises(ValueError, match="name the modules"):
        stage_names(nn.Sequential(nn.Conv2d(3, 3, 1)))


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_whole_and_independent(way: str):
    net = insert_attention(make("test_resnet"), gate="sigmoid")
    disturb(net)
    x = images()
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
        assert torch.equal(net(x), before)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


def test_compiled_equals_eager():
    net = Two().eval()
    x = images(side=16)
    with torch.no_grad():
        before = net(x)
        insert_attention(net, at=["first", "second"], gate="sigmoid")
        disturb(net)
        compiled = torch.compile(net, backend="eager", fullgraph=True)(x)
        assert torch.equal(compiled, net(x))
        assert not torch.allclose(compiled, before)


def test_new_modules_live_where_the_net_lives():
    net = insert_attention(make("test_resnet").double())
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}


def test_gradients_reach_inserted_attention():
    net = insert_attention(make("test_resnet")).train()
    net(images(4)).square().sum().backward()
    ups = [p for n, p in net.named_parameters() if n.endswith("channel.up.weight")]
    assert len(ups) == 4
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ups)


def test_maps_of_a_net_have_the_size_of_their_stage():
    net = insert_attention(make("resnet18"), at="stage")
    shapes = {name: tuple(weight.shape) for name, weight in attention_maps(net, images()).items()}
    for stage, (channels, side) in {"layer1": (64, 16), "layer2": (128, 8), "layer4": (512, 2)}.items():
        assert shapes[f"frame_attention.{stage}.attention.channel_gate"] == (2, channels, 1, 1)
        assert shapes[f"frame_attention.{stage}.attention.spatial_gate"] == (2, 1, side, side)


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
        ({"at": "layer"}, "use 'stage', 'block'"),
        ({"at": "stage", "stages": [0, 5]}, r"\[0, 5\] do not exist"),
        ({"at": "stage", "stages": [1, 1]}, "twice"),
        ({"at": ["layer1", "layer1"]}, "twice"),
        ({"at": ["layer9"]}, "layer9"),
        ({"at": ["fc"]}, "does not return a"),
        ({"name": "sebam"}, "choose one of"),
        ({"gate": "tanh"}, "choose one of"),
    ],
)
def test_wrong_places_are_named_and_leave_the_net_as_it_was(arguments: dict[str, object], words: str):
    net = make("test_resnet")
    with torch.no_grad():
        before = net(images())
    with pytest.raises(ValueError, match=words):
        insert_attention(net, **arguments)  # type: ignore[arg-type]
    assert not hasattr(net, "frame_attention")
    assert not any(module._forward_hooks for module in net.modules())
    with torch.no_grad():
        assert torch.equal(net(images()), before)


def test_a_module_that_the_net_does_not_use_is_refused():
    with pytest.raises(ValueError, match=r"'spare'.*not used"):
        insert_attention(WithUnused(), at=["spare"])


def test_a_bare_chain_is_refused():
    with pytest.raises(ValueError, match="wrap it in a module"):
        insert_attention(nn.Sequential(nn.Conv2d(3, 4, 1)), at=["0"])


def test_blocks_without_a_norm_at_the_end_are_refused():
    with pytest.raises(ValueError, match="use at='stage'"):
        insert_attention(make("convnext_atto"), at="block")


def test_twice_is_refused_and_so_is_removing_nothing():
    net = insert_attention(make("test_resnet"))
    with pytest.raises(ValueError, match="remove_attention"):
        insert_attention(net)
    remove_attention(net)
    with pytest.raises(ValueError, match="no inserted attention"):
        remove_attention(net)
    insert_attention(net)  # and there is a way back


def test_stages_and_module_names_do_not_go_together():
    with pytest.raises(ValueError, match="leave them out"):
        insert_attention(timm.create_model("test_resnet"), at=["layer1"], stages=(1,))
