"""The shared form: the product of the map with the weights that are shown, and joint logits in the map's layout."""

from __future__ import annotations

import pytest
import torch
from mechanisms import maps, randomise, tiny
from torch import nn

from temporal_attn.attention import attention_maps, names
from temporal_attn.attention.gates import GATES
from temporal_attn.attention.registry import find
from temporal_attn.attention.reweighting import Reweighting, joint_logits

ALL = [name for name in names() if isinstance(find(name), type) and issubclass(find(name), Reweighting)]


@pytest.mark.parametrize("name", ALL)
def test_weights_shown_are_the_weights_used(name: str):
    module = randomise(tiny(name)).eval()
    x = maps(3, 16, 5, 4)
    assert torch.equal(module(x), x * attention_maps(module, x)["gate"])


@pytest.mark.parametrize("gate", GATES)
def test_any_logits_make_a_mechanism(gate: str):
    last = nn.Conv2d(4, 4, 3, padding=1)
    module = Reweighting(nn.Sequential(nn.ReLU(), last), last, gate)
    x = maps(2, 4, 5, 5)
    weight = last(x.relu()).sigmoid()
    expected = {"sigmoid": weight * x, "residual": x + weight * x, "identity": x}[gate]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_joint_logits_lie_in_memory_as_the_map_does(layout: torch.memory_format):
    x = maps(2, 8, 6, 5).to(memory_format=layout)
    channel, spatial = maps(2, 8, 1, 1), maps(2, 1, 6, 5)
    joint = joint_logits(channel, spatial, x)
    assert joint.stride() == x.stride()
    assert torch.equal(joint, channel + spatial)
