"""Where attention goes in each family, and what is said of nets and places that do not fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nets import NETS, make
from torch import nn

from temporal_attn.attention.places import patch_convolution, places, stages_of

timm = pytest.importorskip("timm")

# ends of the stages; then, of the last stage asked for: number, blocks, end of the branch's spatial convolution, and of
# its normalisation, None where the family refuses
EXPECTED: dict[str, tuple[list[str], int, list[str], str | None, str | None]] = {
    "timm resnet": (["layer1", "layer2", "layer3", "layer4"], 3, ["layer3.0"], "layer3.0.conv2", "layer3.0.bn3"),
    "timm resnext": (
        ["layer1", "layer2", "layer3", "layer4"],
        3,
        ["layer3.0", "layer3.1"],
        "layer3.1.conv2",
        "layer3.1.bn3",
    ),
    "timm wide resnet": (["layer1", "layer2", "layer3", "layer4"], 1, ["layer1.0"], "layer1.0.conv2", "layer1.0.bn3"),
    "tv resnet": (["layer1", "layer2", "layer3", "layer4"], 4, ["layer4.0"], "layer4.0.conv2", "layer4.0.bn2"),
    "timm resnetv2": (
        [f"stages.{i}" for i in range(4)],
        3,
        ["stages.2.blocks.0", "stages.2.blocks.1"],
        "stages.2.blocks.1.conv2",
        None,
    ),
    "timm densenet": ([f"features.denseblock{i}" for i in (1, 2, 3)], 2, ["features.denseblock2"], None, None),
    "tv densenet": ([f"features.denseblock{i}" for i in (1, 2, 3)], 3, ["features.denseblock3"], None, None),
    "timm efficientnet": (
        [f"blocks.{i}" for i in range(5)],
        2,
        ["blocks.1.0"],
        "blocks.1.0.conv_exp",
        "blocks.1.0.bn2",
    ),
    "tv efficientnet": (
        ["features.1", "features.2"],
        2,
        ["features.2.0", "features.2.1"],
        "features.2.1.block.1.0",
        "features.2.1.block.3.1",
    ),
    "timm mobilenetv2": (
        [f"blocks.{i}" for i in range(7)],
        2,
        ["blocks.1.0", "blocks.1.1"],
        "blocks.1.1.conv_dw",
        "blocks.1.1.bn3",
    ),
    "tv mobilenetv2": (
        [f"features.{i}" for i in (1, 3, 6, 10, 13, 16, 17)],
        2,
        ["features.2", "features.3"],
        "features.3.conv.1.0",
        "features.3.conv.3",
    ),
    "timm mobilenetv3": (
        [f"blocks.{i}" for i in range(6)],
        2,
        ["blocks.1.0", "blocks.1.1"],
        "blocks.1.1.conv_dw",
        "blocks.1.1.bn3",
    ),
    "tv mobilenetv3": (
        [f"features.{i}" for i in (1, 3, 8, 11)],
        2,
        ["features.2", "features.3"],
        "features.3.block.1.0",
        "features.3.block.2.1",
    ),
    "timm convnext": (
        [f"stages.{i}" for i in range(4)],
        2,
        ["stages.1.blocks.0", "stages.1.blocks.1"],
        "stages.1.blocks.1.conv_dw",
        None,
    ),
    "timm convnext of maps": (
        [f"stages.{i}" for i in range(4)],
        2,
        ["stages.1.blocks.0", "stages.1.blocks.1"],
        "stages.1.blocks.1.conv_dw",
        None,
    ),
    "tv convnext": (
        ["features.1", "features.3"],
        2,
        ["features.3.0", "features.3.1"],
        "features.3.1.block.0",
        None,
    ),
    "timm regnet": (["s1", "s2", "s3", "s4"], 3, ["s3.b1", "s3.b2", "s3.b3"], "s3.b3.conv2.conv", "s3.b3.conv3.bn"),
    "tv regnet": (
        [f"trunk_output.block{i}" for i in (1, 2, 3, 4)],
        3,
        ["trunk_output.block3.block3-0", "trunk_output.block3.block3-1"],
        "trunk_output.block3.block3-1.f.b.0",
        "trunk_output.block3.block3-1.f.c.1",
    ),
    **{
        f"timm {name}": ([f"blocks.{i}" for i in (0, 1, 2, 4)], 4, ["blocks.3", "blocks.4"], None, None)
        for name in ("vit", "vit without class token", "deit", "eva")
    },
    "tv vit": (
        [f"encoder.layers.encoder_layer_{i}" for i in (0, 1, 2, 4)],
        4,
        ["encoder.layers.encoder_layer_3", "encoder.layers.encoder_layer_4"],
        None,
        None,
    ),
    "timm swin": (["layers.0", "layers.1"], 2, ["layers.1.blocks.0", "layers.1.blocks.1"], None, None),
    "tv swin": (["features.1", "features.3"], 2, ["features.3.0", "features.3.1"], None, None),
}


def test_every_family_has_its_row():
    assert set(EXPECTED) == set(NETS)


@pytest.mark.parametrize("name", NETS)
def test_places_of_every_family(name: str):
    ends, number, blocks, conv, norm = EXPECTED[name]
    net = make(name)
    assert places(net, "stage") == ends
    assert [stage.end for stage in stages_of(net)] == ends
    assert places(net, "stage", (number,)) == [ends[number - 1]]
    assert places(net, "block", (number,)) == blocks
    assert [block for stage in stages_of(net) for block in stage.blocks] == places(net, "block")
    for at, expected in (("conv", conv), ("norm", norm)):
        if expected is None:
            with pytest.raises(ValueError, match="use at='block'"):
                places(net, at, (number,))
        else:
            found = places(net, at, (number,))
            assert found[-1] == expected
            assert len(found) == len(blocks)


@pytest.mark.parametrize("name", [name for name, row in EXPECTED.items() if row[4] is not None])
def test_ends_of_a_branch_are_what_they_are_called(name: str):
    """By the modules themselves: no spatial convolution, and no normalisation, comes later; shortcuts do not count."""
    net = make(name)
    shortcuts = ("downsample", "shortcut", ".proj.")
    modules = {
        key: module
        for key, module in net.named_modules()
        if not any(word in f"{key}." for word in shortcuts) and ".se." not in f"{key}."
    }
    for block in places(net, "block"):
        inside = {key: module for key, module in modules.items() if key.startswith(f"{block}.")}
        spatial = [key for key, m in inside.items() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
        norms = [key for key, m in inside.items() if isinstance(m, nn.BatchNorm2d)]
        assert not spatial or spatial[-1] in places(net, "conv")
        assert norms[-1] in places(net, "norm")


def test_where_no_stage_is_asked_for_all_are():
    net = make("timm resnext")
    assert places(net, "block") == [place for i in (1, 2, 3, 4) for place in places(net, "block", [i])]
    assert places(net, "stage", (4, 2)) == ["layer4", "layer2"]


def test_blocks_without_a_spatial_convolution_are_passed_over():
    net = make("timm mobilenetv3")  # its last block only widens
    assert "blocks.5.0" in places(net, "block")
    assert not [place for place in places(net, "conv") if place.startswith("blocks.5")]
    with pytest.raises(ValueError, match=r"ConvBnAct.*no spatial convolution"):
        places(net, "conv", [6])


@pytest.mark.parametrize(
    ("name", "last", "later"),
    [
        ("timm resnetv2", "stages.0.blocks.0.norm3", "stages.0.blocks.0.conv3"),
        ("timm convnext of maps", "stages.0.blocks.0.norm", "stages.0.blocks.0.mlp.fc1"),
    ],
)
def test_a_normalisation_that_does_not_end_the_branch_is_refused(name: str, last: str, later: str):
    with pytest.raises(ValueError, match=rf"is {last}, but {later} comes after.*at='block' or name modules"):
        places(make(name), "norm")


def test_what_makes_the_tokens():
    assert patch_convolution(make("timm eva")) == "patch_embed.proj"
    assert patch_convolution(make("tv vit")) == "conv_proj"
    assert patch_convolution(make("timm resnet")) is None


@pytest.mark.parametrize("depth", [1, 3, 6, 12])
def test_groups_of_a_transformer_are_equal_to_a_block(depth: int):
    net = timm.models.vision_transformer.VisionTransformer(16, 8, embed_dim=8, depth=depth, num_heads=1)
    sizes = [len(stage.blocks) for stage in stages_of(net)]
    assert len(sizes) == min(4, depth)
    assert sum(sizes) == depth
    assert max(sizes) - min(sizes) <= 1


def test_names_are_taken_as_they_are():
    assert places(nn.Linear(1, 1), ("a.b", "c")) == ["a.b", "c"]


@pytest.mark.parametrize(
    ("at", "stages", "words"),
    [
        ("layer", None, "'conv', 'norm', 'block', 'stage' or a list"),
        ("stage", [0, 5], r"\[0, 5\] do not exist: ResNet has stages 1 to 4"),
        ("block", [2, 2], "twice"),
        ("stage", [], "at least one"),
        (["layer1", "layer1"], None, "twice"),
        ([], None, "at least one"),
        (["layer1"], [1], "leave them out"),
    ],
)
def test_wrong_places_are_named(at: str | list[str], stages: list[int] | None, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        places(make("timm resnet"), at, stages)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at", ["conv", "norm"])
@pytest.mark.parametrize("name", ["timm densenet", "tv densenet"])
def test_concatenated_maps_are_never_gated_again(name: str, at: str):
    with pytest.raises(ValueError, match=r"denseblock1.*concatenated.*at='block'"):
        places(make(name), at)


def test_branches_side_by_side_have_no_last_normalisation():
    net = timm.create_model("repvgg_a0", num_classes=5)
    with pytest.raises(ValueError, match=r"stages\.0\.0 \(RepVggBlock\).*side by side.*at='block'"):
        places(net, "norm")


def test_a_channels_last_normalisation_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"CNBlock.*LayerNorm.*channels are last; use at='block'"):
        places(make("tv convnext"), "norm")


class Plain(nn.Module):
    """Layers in a row, as in VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("wrap", "inside"), [(nn.DataParallel, "module"), (lambda net: nn.ModuleDict({"model": net}), "model")]
)
def test_a_wrapper_is_told_from_the_net_inside(wrap: Callable[[nn.Module], nn.Module], inside: str):
    with pytest.raises(ValueError, match=rf"is a wrapper; pass the net inside it: \.{inside}$"):
        places(wrap(make("timm resnet")), "block")


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Plain, r"Plain.*holds: features \(Sequential\), head \(Linear\).*at=\[\.\.\.\]"),
        (lambda: nn.Conv2d(3, 3, 1), "Conv2d is not built like.*holds: nothing"),
    ],
)
def test_unknown_nets_are_described(net, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        places(net(), "block")
    assert "\n" not in str(caught.value)
