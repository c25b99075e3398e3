"""Coordinate attention against timm and a loop in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mechanisms import maps, randomise

from temporal_attn.attention import CoordAttention, attention_maps
from temporal_attn.attention.coordinate import line_means


def test_equals_timm():
    layers = pytest.importorskip("timm.layers.coord_attn")
    theirs = randomise(layers.CoordAttn(64, rd_channels=max(8, 64 // 32), bias=True)).eval()
    ours = CoordAttention(64).eval()
    ours.norm.load_state_dict(theirs.bn1.state_dict())
    with torch.no_grad():
        for mine, other in ((ours.rows, theirs.conv_h), (ours.columns, theirs.conv_w)):
            mine.weight.copy_(other.weight.flatten(1))
            mine.bias.copy_(other.bias)
        ours.reduce.weight.copy_(theirs.conv1.weight.flatten(1))
        ours.norm.running_mean.sub_(theirs.conv1.bias)  # what a bias before the normalisation comes to
    x = maps(3, 64, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_equals_a_loop_in_numpy():
    module = randomise(CoordAttention(6, reduction=2)).double().eval()
    weight = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    x = maps(2, 6, 4, 3).double()

    def squeezed(average: np.ndarray) -> np.ndarray:
        z = weight["reduce.weight"] @ average
        z = (z - weight["norm.running_mean"]) / np.sqrt(weight["norm.running_var"] + module.norm.eps)
        z = z * weight["norm.weight"] + weight["norm.bias"]
        return z * np.clip(z + 3, 0, 6) / 6

    def weights(part: str, average: np.ndarray) -> np.ndarray:
        z = weight[f"{part}.weight"] @ squeezed(average) + weight[f"{part}.bias"]
        return 1 / (1 + np.exp(-z))

    expected = np.empty(x.shape)
    for n, image in enumerate(x.numpy()):
        for i in range(4):
            for j in range(3):
                row = weights("rows", image[:, i, :].mean(1))
                column = weights("columns", image[:, :, j].mean(1))
                expected[n, :, i, j] = row * column * image[:, i, j]
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-12)


def test_statistics_are_those_of_rows_and_columns_together():
    module = randomise(CoordAttention(8)).train()
    module.norm.momentum = 1.0
    x = maps(3, 8, 5, 4)
    module(x)
    averages = torch.cat((x.mean(3), x.mean(2)), dim=2)  # (B, C, H + W)
    reduced = torch.einsum("oc,bcp->bop", module.reduce.weight, averages)
    torch.testing.assert_close(module.norm.running_mean, reduced.mean((0, 2)))


def test_means_of_lines_are_the_same_in_both_layouts():
    x = maps(2, 8, 5, 4)
    expected = torch.cat((x.mean(3), x.mean(2)), dim=2).transpose(1, 2)
    torch.testing.assert_close(line_means(x), expected)
    torch.testing.assert_close(line_means(x.to(memory_format=torch.channels_last)), expected)


def test_one_weight_for_each_row_and_each_column():
    weights = attention_maps(CoordAttention(8), maps(2, 8, 5, 4))
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "row_gate": (2, 8, 5, 1),
        "column_gate": (2, 8, 1, 4),
    }


def test_bottleneck_has_at_least_eight_channels():
    assert CoordAttention(64).reduce.out_features == 8
    assert CoordAttention(512).reduce.out_features == 16
