"""docs/temporal.md: every model has its row, and what the row says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from temporal_attn.temporal import PowerMeanPool, build, names, options
from temporal_attn.temporal.encoder import POOLS, TemporalEncoder
from temporal_attn.temporal.positions import POSITIONS
from temporal_attn.temporal.streaming import StreamingClassifier

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "temporal.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 7 and cells[0].startswith("`")
}
_, _, PARAMETERS, MIXES, SAFE, STREAMS = range(6)


class Head(nn.Module):
    """As much of a classifier as a stream asks for."""

    mixes_time = False

    def __init__(self, temporal: TemporalEncoder) -> None:
        super().__init__()
        self.temporal, self.project, self.head = temporal, nn.Identity(), nn.Identity()


def says(condition: bool) -> str:
    return "yes" if condition else "no"


def test_every_model_has_its_row():
    assert list(ROWS) == names()


@pytest.mark.parametrize("name", names())
def test_the_row_says_what_the_code_does(name: str):
    row, dim = ROWS[name], 256
    torch.manual_seed(0)
    encoder = build(name, dim).eval()
    assert row[PARAMETERS] == f"{sum(parameter.numel() for parameter in encoder.parameters()):,}"
    x, pts, mask = torch.randn(1, 4, dim), torch.arange(4.0)[None], torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        feature, _ = encoder(x, mask, pts)
        assert row[SAFE] == says(torch.allclose(feature, encoder.norm(x).mean(1), atol=1e-5))
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        assert row[MIXES] == says(_mixes(encoder, x, mask, pts))


def _mixes(encoder: TemporalEncoder, x: torch.Tensor, mask: torch.Tensor, pts: torch.Tensor) -> bool:
    """Whether clips of two frames tell more than each of their frames does.

    A pool of frames as they are has score and value of each frame by itself; then the weights' odds between two frames
    are the same whatever stands beside them. A maximum takes each channel from a frame as it is, and what knows the
    mean only gives every frame the same weight.
    """
    if encoder.blocks:
        return True
    if isinstance(encoder.pool, PowerMeanPool):
        return not torch.allclose(encoder(x, mask, pts)[0], encoder.pool.finish(encoder.norm(x).mean(1)))
    if not hasattr(encoder.pool, "head_weights"):
        return not torch.equal(encoder(x, mask, pts)[0], encoder.norm(x).amax(1))
    heads = encoder.pool.head_weights(encoder.norm(x), mask)
    pair = encoder.pool.head_weights(encoder.norm(x[:, :2]), mask[:, :2])
    return not torch.allclose(heads[..., 0] / heads[..., 1], pair[..., 0] / pair[..., 1], rtol=1e-3)


@pytest.mark.parametrize("name", names())
def test_streams_are_those_that_it_names(name: str):
    causal = {key: value for key, value in (("direction", "causal"), ("window", 4)) if key in options(name)}
    possible = {"no": [], "yes": [{}], "causal": [causal]}[ROWS[name][STREAMS]]
    for chosen in ({}, causal):
        model = Head(build(name, 16, **chosen)).eval()
        if chosen in possible:
            StreamingClassifier(model)  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match=r"take|stream"):
                StreamingClassifier(model)  # type: ignore[arg-type]


def test_options_and_their_values_are_all_named():
    for name in names():
        for option in options(name):
            assert f"`{option}`" in PAGE, option
    values = re.findall(r"`([a-z_]+)`", "".join(line for line in PAGE.splitlines() if line.startswith("| `po")))
    assert set(values) >= {*POSITIONS, *POOLS}
