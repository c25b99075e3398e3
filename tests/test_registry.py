"""Mechanisms by name, by the entry points of other packages, and by the path of a class."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import Tensor, nn

from temporal_attn.attention import CBAM, build, insert_attention, names, registry
from temporal_attn.attention.registry import ENTRY_POINTS, find


class Half(nn.Module):
    """A mechanism of another package, which knows no gate."""

    def __init__(self, channels: int, share: float = 0.5) -> None:
        super().__init__()
        self.channels, self.share = channels, share

    def forward(self, x: Tensor) -> Tensor:
        return x * self.share

    class Inner(nn.Identity):
        pass


class First(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.width = channels * widths[0]


def function(channels: int) -> nn.Module:
    return nn.Identity(channels)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another package is installed that registers mechanisms."""
    values = {
        "half": "test_registry:Half",
        "inner": "test_registry:Half.Inner",
        "cbam": "test_registry:Half",
        "absent": "no_such_package:Thing",
        "misspelt": "test_registry:Hafl",
        "function": "test_registry:function",
    }

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, ENTRY_POINTS) for name, value in values.items() if group == ENTRY_POINTS]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._registered_elsewhere.cache_clear()
    yield
    registry._registered_elsewhere.cache_clear()


def test_names_are_sorted_and_each_is_built():
    known = names()
    assert known == sorted(set(known))
    assert {"cbam", "se", "eca"} <= set(known)
    x = torch.randn(1, 16, 8, 8)
    for name in known:
        assert build(name, 16).eval()(x).shape == x.shape, name


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_its_mechanisms():
    assert {"half", "inner", "cbam"} <= set(names())
    module = build("half", 8, share=0.25)
    assert type(module).__qualname__ == "Half"
    assert (module.channels, module.share) == (8, 0.25)
    assert type(build("inner", 8)).__qualname__ == "Half.Inner"


@pytest.mark.usefixtures("installed")
def test_an_installed_package_cannot_take_a_name_of_ours():
    assert find("cbam") is CBAM
    assert names().count("cbam") == 1


@pytest.mark.usefixtures("installed")
def test_an_installed_mechanism_goes_into_a_net():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    net, x = Net(), torch.randn(1, 3, 4, 4)
    expected = net(x) * 0.25
    with pytest.raises(ValueError, match=r"'half': it knows no gate.*gate=None.*it takes: share"):
        insert_attention(net, "half", ["conv"])
    torch.testing.assert_close(insert_attention(net, "half", ["conv"], gate=None, share=0.25)(x), expected)


def test_a_class_is_found_by_its_path():
    assert find("test_registry.Half").__qualname__ == "Half"
    assert build("test_registry.Half", 8, share=0.75).share == 0.75
    assert find("temporal_attn.attention.CBAM") is CBAM
    assert find("temporal_attn.attention:CBAM") is CBAM
    assert find("test_registry:Half.Inner") is Half.Inner


def test_no_gate_is_that_of_the_class():
    assert build("test_registry:Half", 8, gate=None).share == 0.5
    assert build("cbam", 8, gate=None).channel_gate.kind == build("cbam", 8).channel_gate.kind == "sigmoid"
    assert build("cbam", 8, gate="identity").channel_gate.kind == "identity"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cbam", {"reduction": "eight"}),
        ("eca", {"kernel_size": [3]}),
        ("aspp", {"rates": 3}),
        ("test_registry.First", {"widths": ()}),
    ],
)
def test_options_of_a_wrong_type_are_one_line(name: str, options: dict[str, object]):
    with pytest.raises(ValueError, match=f"attention {name!r}: .*{next(iter(options))}=") as caught:
        build(name, 8, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sebam", r"'sebam' is not known; choose one of: .*cbam.*path of a class"),
        ("..", r"'\.\.' is not known; choose one of"),
        ("a..b", "choose one of"),
        (":", "choose one of"),
        ("a:b:c", "choose one of"),
        ("torch.nn:", "choose one of"),
        ("torch.nn:NoSuchThing", "cannot be imported"),
        ("absent", "cannot be imported from 'no_such_package:Thing'"),
        ("misspelt", "cannot be imported from 'test_registry:Hafl'"),
        ("no_such_package.Thing", "cannot be imported"),
        ("torch.nn.NoSuchThing", "cannot be imported"),
        ("function", "must be a class of torch.nn.Module"),
        ("os.system", "must be a class of torch.nn.Module"),
        ("torch.nn", "must be a class of torch.nn.Module"),
    ],
)
def test_what_is_no_mechanism_is_named(name: str, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        build(name, 8)
    assert "\n" not in str(caught.value)


def test_options_that_a_class_does_not_take_are_named():
    with pytest.raises(ValueError, match=r"'cbam': .*colour.*it takes: reduction, kernel_size, order, gate"):
        build("cbam", 8, colour="red")
    with pytest.raises(ValueError, match=r"'test_registry.Half': .*colour.*it takes: share"):
        build("test_registry.Half", 8, colour="red")
