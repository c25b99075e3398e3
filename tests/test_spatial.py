"""Spatial gates against a loop over places, and CBAM's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mechanisms import maps, randomise

from temporal_attn.attention import CBAM, CBAMSpatialGate, Conv1x1Gate


def test_conv1x1_equals_a_loop_over_places():
    module = randomise(Conv1x1Gate(6)).double()
    w, b = module.logits.weight.detach().numpy().ravel(), module.logits.bias.item()
    x = maps(2, 6, 3, 4).double()
    expected = np.empty(x.shape)
    for n, image in enumerate(x.numpy()):
        for i in range(3):
            for j in range(4):
                expected[n, :, i, j] = image[:, i, j] / (1 + np.exp(-(w @ image[:, i, j] + b)))
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-12)


def test_conv1x1_sees_nothing_but_the_place_itself():
    module = randomise(Conv1x1Gate(6))
    x = maps(1, 6, 4, 4)
    changed = x.clone()
    changed[:, :, 2, 3] += 1
    differs = (module(changed) - module(x)).abs().amax((0, 1)) > 0
    assert differs.nonzero().tolist() == [[2, 3]]


def test_cbam_spatial_is_the_spatial_half_of_cbam():
    ours, cbam = randomise(CBAMSpatialGate(8)).eval(), CBAM(8, order="s").eval()
    cbam.load_state_dict({name.replace("logits.", "spatial."): value for name, value in ours.state_dict().items()})
    x = maps(2, 8, 6, 5)
    torch.testing.assert_close(ours(x), cbam(x))


def test_cbam_spatial_reaches_as_far_as_its_kernel():
    module = randomise(CBAMSpatialGate(4, kernel_size=3)).eval()
    x = maps(1, 4, 9, 9)
    changed = x.clone()
    changed[:, :, 4, 4] += 1
    differs = (module(changed) - module(x)).abs().amax((0, 1)) > 0
    assert differs.nonzero().tolist() == [[i, j] for i in (3, 4, 5) for j in (3, 4, 5)]


@pytest.mark.parametrize("kernel_size", [-1, 0, 4])
def test_a_kernel_that_has_no_centre_is_named(kernel_size: int):
    with pytest.raises(ValueError, match=f"odd and positive, got {kernel_size}"):
        CBAMSpatialGate(8, kernel_size=kernel_size)
