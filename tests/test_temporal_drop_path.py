"""Stochastic depth: whole clips skip a branch, more often higher up, and the expectation stays."""

from __future__ import annotations

import pytest
import torch

from temporal_attn.temporal import build
from temporal_attn.temporal.drop_path import DropPath

DIM, HEADS = 16, 4


def test_drop_path_skips_whole_clips_and_keeps_the_expectation():
    skip = DropPath(0.25).train()
    torch.manual_seed(0)
    branch = torch.ones(4000, 3, DIM)
    out = skip(branch)
    assert {round(value, 4) for value in out.unique().tolist()} == {0.0, round(1 / 0.75, 4)}
    assert torch.equal(out.amax((1, 2)), out.amin((1, 2)))
    assert float(out.mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(skip.eval()(branch), branch)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_branch_that_nobody_takes_is_refused(rate: float):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        build("transformer", DIM, HEADS, drop_path=rate)


@pytest.mark.parametrize("name", ["transformer", "gru", "tcn"])
def test_drop_path_grows_with_depth(name: str):
    rates = [block.drop_path.rate for block in build(name, DIM, HEADS, depth=4, drop_path=0.2).blocks]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2])
