"""What insertion refuses or must make way for, and that a refused net is as it was."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import timm
import torch
from nets import Two, disturb, hooks, images, make
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from temporal_attn.attention import CBAM, build, insert_attention, remove_attention


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
        ({"at": "stage", "stages": 3}, r"stages=3 is not a list of stage numbers from 1, such as \(3, 4\)"),
        ({"at": ["layer1", "layer1"]}, "twice"),
        ({"at": ["layer9"]}, "layer9"),
        (
            {"at": ["fc"]},
            r"'fc' does not return.*shape \(1, 5\); name modules whose output is a map, or use at='stage'",
        ),
        ({"name": "sebam"}, "choose one of"),
        ({"name": "se", "reduction": 0}, "reduction"),
        ({"name": CBAM}, "must be a name"),
        ({"gate": "tanh"}, "choose one of"),
        ({"image_size": 64}, r"image_size=64 is not a height and a width, such as \(224, 224\)"),
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
        insert_attention(net, "test_insertion_refusals.Picky", gate=None)
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
    with pytest.raises(ValueError, match=r"Sequential has no inserted attention; it is in the net inside: \.0"):
        remove_attention(nn.Sequential(net))


def test_a_normalisation_that_makes_a_part_of_the_branch_is_refused():
    net = timm.create_model("ghostnet_050", num_classes=5)
    with pytest.raises(ValueError, match=r"cheap_operation\.1, which makes 6144 of the block's 12288.*at='block'"):
        insert_attention(net, "se", at="norm")
    assert not hooks(net)


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
