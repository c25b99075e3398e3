"""Global context against timm, a loop in numpy, and what its softmax makes of places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mechanisms import maps, randomise

from temporal_attn.attention import GlobalContext, attention_maps


def test_equals_timm():
    layers = pytest.importorskip("timm.layers")
    theirs = randomise(layers.GlobalContext(64, fuse_add=True, fuse_scale=False, rd_channels=4)).eval()
    theirs.mlp_add.norm.eps = 1e-5  # the authors'; its own is 1e-6
    ours = GlobalContext(64, gate="sigmoid")
    with torch.no_grad():
        ours.places.score.weight.copy_(theirs.conv_attn.weight)  # its bias makes no difference
        for mine, other in ((ours.down, theirs.mlp_add.fc1), (ours.up, theirs.mlp_add.fc2)):
            mine.weight.copy_(other.weight.flatten(1))
            mine.bias.copy_(other.bias)
    ours.norm.load_state_dict(theirs.mlp_add.norm.state_dict())
    x = maps(3, 64, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_equals_a_loop_in_numpy():
    module = randomise(GlobalContext(8, reduction=2)).double()
    weight = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    x = maps(2, 8, 3, 4).double()
    for image, out in zip(x.numpy(), module(x).detach().numpy(), strict=True):
        places = [image[:, i, j] for i in range(3) for j in range(4)]
        scores = np.exp([weight["places.score.weight"].ravel() @ place for place in places])
        context = sum(score * place for score, place in zip(scores, places, strict=True)) / scores.sum()
        z = weight["down.weight"] @ context + weight["down.bias"]
        z = (z - z.mean()) / np.sqrt(z.var() + module.norm.eps) * weight["norm.weight"] + weight["norm.bias"]
        shift = weight["up.weight"] @ np.maximum(z, 0) + weight["up.bias"]
        np.testing.assert_allclose(out, image + shift[:, None, None], atol=1e-12)


def test_weights_of_places_sum_to_one():
    (weights,) = attention_maps(randomise(GlobalContext(8)), maps(3, 8, 5, 4)).values()
    assert weights.shape == (3, 1, 5, 4)
    torch.testing.assert_close(weights.sum((1, 2, 3)), torch.ones(3))


def test_every_place_gets_the_same_addition():
    x = maps(2, 8, 5, 4)
    added = randomise(GlobalContext(8))(x) - x
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added))
    assert added.abs().max() > 0.1


def test_bottleneck_leaves_layer_norm_something_to_tell():
    assert GlobalContext(16).down.out_features == 4
