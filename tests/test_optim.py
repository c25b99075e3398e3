"""Parameter groups and the schedule against direct formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from temporal_attn.chain import parts_above
from temporal_attn.model import VideoClassifier
from temporal_attn.nets import make_net
from temporal_attn.optim import adamw, parameter_groups, warmup_cosine
from temporal_attn.types import UserError

pytest.importorskip("timm")


@pytest.fixture(scope="module", params=["none", "layer2", "all"])
def model(request: pytest.FixtureRequest) -> VideoClassifier:
    attention = None if request.param == "all" else "cbam"
    return VideoClassifier(3, "test_resnet", attention=attention, freeze=request.param, dim=16, heads=2, depth=1)


def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one(model: VideoClassifier):
    groups = parameter_groups(model, 1e-3, 1e-4, 0.05)
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len({id(parameter) for parameter in listed}) == len(listed)
    assert {id(parameter) for parameter in listed} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len({group["name"] for group in groups}) == len(groups)


def test_rate_and_decay_of_every_parameter(model: VideoClassifier):
    owner = {
        id(parameter): (module, name.rsplit(".", 1)[-1], name)
        for path, module in model.named_modules()
        for name, parameter in ((f"{path}.{own}", p) for own, p in module.named_parameters(recurse=False))
    }
    for group in parameter_groups(model, 1e-3, 1e-4, 0.05):
        for parameter in group["params"]:
            module, kind, name = owner[id(parameter)]
            pretrained = name.startswith("backbone.net.") and "frame_attention" not in name
            matrix = kind == "weight" and isinstance(module, (nn.Linear, nn.Conv2d))
            assert group["lr"] == (1e-4 if pretrained else 1e-3), name
            assert group["weight_decay"] == (0.05 if matrix else 0.0), name
            assert group["name"].startswith("backbone" if pretrained else "head"), name


def test_adamw_steps_only_what_trains():
    model = VideoClassifier(3, "test_resnet", freeze="layer1", dim=16, heads=2, depth=1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = adamw(model, 1e-2, 1e-2, 0.0)
    model(torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)).logits.square().sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "head.1.weight" in moved


def expected(step: int, warmup: int, total: int, final: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    if step >= total:
        return final
    return final + (1 - final) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10), st.integers(1, 25), st.sampled_from([0.0, 0.01, 0.5]))
def test_schedule_is_its_formula(warmup: int, rest: int, final: float):
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.4}, {"params": [second], "lr": 0.1}])
    scheduler = warmup_cosine(optimizer, warmup, warmup + rest, final)
    rates = []
    for step in range(warmup + rest + 3):
        rates.append(optimizer.param_groups[0]["lr"])
        assert rates[-1] == pytest.approx(0.4 * expected(step, warmup, warmup + rest, final))
        assert optimizer.param_groups[1]["lr"] == pytest.approx(rates[-1] / 4)
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.4)  # the full rate is reached
    assert rates[-1] == pytest.approx(0.4 * final)


def test_training_shorter_than_its_warmup_is_all_warmup():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = warmup_cosine(optimizer, 5, 3)
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.2, 0.4, 0.6])


def test_what_will_unfreeze_is_in_the_groups_too() -> None:
    model = VideoClassifier(3, "test_resnet", freeze="layer1", dim=16, heads=2, depth=1)
    grouped = {id(p) for group in parameter_groups(model, 1e-3, 1e-4, 0.05, frozen=True) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters()}


# -- layer-wise rates and parts that train later ---------------------------------------------------------------------


def test_each_part_learns_slower_than_the_one_above_it() -> None:
    model = VideoClassifier(3, "test_resnet", attention="cbam", dim=16, heads=2, depth=1)
    parts = list(model.backbone.parts)
    assert parts == ["stem", "layer1", "layer2", "layer3", "layer4"]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 1.0, 0.1, 0.05, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert len({group["name"] for group in groups}) == len(groups)
    seen = set()
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            first = name.removeprefix("backbone.net.").split(".")[0]
            pretrained = name.startswith("backbone.net.") and first != "frame_attention"
            part = first if first.startswith("layer") else "stem"
            distance = {"layer4": 0, "layer3": 1, "layer2": 2, "layer1": 3, "stem": 4}[part]
            assert group["lr"] == pytest.approx(0.1 * 0.5**distance if pretrained else 1.0), name
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 and name.endswith("weight") else 0.0), name
            assert group["name"].startswith(f"backbone.{part}" if pretrained else "head"), name
            seen.add(part if pretrained else "head")
    assert seen == {"head", *parts}


def test_a_chain_of_blocks_counts_them_from_the_top() -> None:
    model = VideoClassifier(3, "test_efficientnet", attention=None, temporal="mean", dim=0)
    parts = list(model.backbone.parts)
    assert parts[0] == "stem"
    assert parts[-1] == "head"
    found = parts_above(model.backbone.net)
    assert found.keys() == {name for name, _ in model.backbone.net.named_parameters()}
    for above, part in enumerate(reversed(parts)):
        for module in model.backbone.parts[part]:
            assert {own for name, own in found.items() if name.startswith(f"{module}.")} == {above}


def test_blocks_of_a_transformer_learn_slower_than_those_above_them() -> None:
    model = VideoClassifier(3, "test_vit", attention="se", attention_at="block", temporal="mean", dim=0)
    assert not model.backbone.parts
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 1.0, 0.1, 0.05, layer_decay=0.5)
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates.keys() == set(names.values())
    top = rates["backbone.net.blocks.5.attn.qkv.weight"]
    for name, rate in rates.items():
        where = name.removeprefix("backbone.net.").split(".")
        if not name.startswith("backbone.") or where[0] == "frame_attention":
            assert rate == 1, name
        elif where[0] == "blocks":
            assert rate == pytest.approx(top * 0.5 ** (5 - int(where[1]))), name
        elif where[0] in ("cls_token", "reg_token", "pos_embed", "patch_embed"):
            assert rate == pytest.approx(top * 0.5**6), name
        else:
            assert top <= rate <= 0.1, name  # norms behind the last block
    assert max(rate for name, rate in rates.items() if rate < 1) == 0.1
    assert len({group["name"] for group in groups}) == len(groups)
    assert {"backbone.0_below_top", "backbone.6_below_top", "head"} <= {group["name"] for group in groups}


def test_nets_side_by_side_count_their_own_parts() -> None:
    net = make_net("test_efficientnet+mobilenetv2_035", "none")
    found = parts_above(net)
    assert found.keys() == {name for name, _ in net.named_parameters()}
    for number, own in enumerate(net.nets):
        assert {name: found[f"nets.{number}.{name}"] for name in parts_above(own)} == parts_above(own)


def test_layer_wise_rates_need_layers() -> None:
    model = VideoClassifier(3, "test_resnet", attention=None, temporal="mean", dim=0)
    model.backbone.net = nn.Sequential(nn.Conv2d(3, 8, 1))
    with pytest.raises(UserError, match=r"layer_decay .* Sequential"):
        parameter_groups(model, 1e-3, 1e-4, 0.05, layer_decay=0.7)
    assert parameter_groups(model, 1e-3, 1e-4, 0.05)  # one rate for all needs none


def test_queries_and_positions_are_not_decayed() -> None:
    model = VideoClassifier(3, "test_resnet", attention=None, temporal="attention_pool", dim=16, heads=2)
    model.register_parameter("position", nn.Parameter(torch.zeros(4, 16)))
    decay = {
        id(p): group["weight_decay"] for group in parameter_groups(model, 1e-3, 1e-4, 0.05) for p in group["params"]
    }
    assert decay[id(model.get_parameter("position"))] == 0
    assert decay[id(model.get_parameter("temporal.pool.query"))] == 0
    assert decay[id(model.get_parameter("head.1.weight"))] == 0.05


def test_what_trains_later_warms_up_when_it_is_freed() -> None:
    model = VideoClassifier(3, "test_resnet", attention=None, freeze="layer2", dim=16, heads=2, depth=1)
    optimizer = adamw(model, 1.0, 0.1, 0.0, frozen=True)
    later = [group["name"] for group in optimizer.param_groups if group["later"]]
    assert later == ["backbone_later", "backbone_no_decay_later"]
    scheduler = warmup_cosine(optimizer, 4, 40, 0.01, freed_at=20)
    for step in range(42):
        for group in optimizer.param_groups:
            full = 0.1 if group["name"].startswith("backbone") else 1.0
            since = step - 20 if group["later"] else step
            total = 20 if group["later"] else 40
            share = expected(since, 4, total, 0.01) if since >= 0 else 0.0
            assert group["lr"] == pytest.approx(full * share), (group["name"], step)
        optimizer.step()
        scheduler.step()
