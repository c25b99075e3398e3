"""Batch normalisation of one value a channel, and that nothing else is changed."""

from __future__ import annotations

import torch
from mechanisms import maps, randomise

from temporal_attn.attention.norm import BatchNorm2d


def test_one_value_takes_its_running_statistics():
    norm = randomise(BatchNorm2d(6))
    x = maps(1, 6, 1, 1)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    trained = norm.train()(x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert torch.equal(trained, norm.eval()(x))


def test_more_values_are_torchs():
    ours, theirs = randomise(BatchNorm2d(6)), torch.nn.BatchNorm2d(6)
    theirs.load_state_dict(ours.state_dict())
    for shape in ((2, 6, 1, 1), (1, 6, 1, 2), (3, 6, 4, 4)):
        assert torch.equal(ours(maps(*shape)), theirs(maps(*shape)))
    assert torch.equal(ours.running_var, theirs.running_var)
