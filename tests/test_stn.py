"""The spatial transformer against the paper's sum in loops, what it starts as, and one transform for a clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mechanisms import maps
from torch import Tensor, nn

from temporal_attn.attention import SpatialTransformer, attention_maps, insert_attention
from temporal_attn.attention.gates import GATES


def moving(seed: int = 0, size: float = 0.05, channels: int = 4, **options: object) -> SpatialTransformer:
    """A transformer that has been trained away from the identity, and answers differently to different maps."""
    torch.manual_seed(seed)
    stn = SpatialTransformer(channels, **options)  # type: ignore[arg-type]
    nn.init.normal_(stn.localisation.last.weight, std=size)
    return stn.eval()


def paper(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Σ_nm x_nm max(0, 1 − |x_s − m|) max(0, 1 − |y_s − n|) for each cell, with sources held inside the map."""
    _, height, width = x.shape
    y = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            target = np.array([(2 * j + 1) / width - 1, (2 * i + 1) / height - 1, 1])
            source = theta @ target
            column = np.clip(((source[0] + 1) * width - 1) / 2, 0, width - 1)
            row = np.clip(((source[1] + 1) * height - 1) / 2, 0, height - 1)
            for n in range(height):
                for m in range(width):
                    y[:, i, j] += x[:, n, m] * max(0, 1 - abs(column - m)) * max(0, 1 - abs(row - n))
    return y


@pytest.mark.parametrize("transform", ["affine", "similarity", "attention"])
def test_equals_the_sum_of_the_paper(transform: str):
    stn = moving(transform=transform, size=0.5).double()
    x = maps(2, 4, 6, 5).double()
    theta = attention_maps(stn, x)["localisation"].detach()
    assert (theta - torch.tensor([[1, 0, 0], [0, 1, 0]])).abs().max() > 0.05
    expected = np.stack([paper(*pair) for pair in zip(x.numpy(), theta.numpy(), strict=True)])
    np.testing.assert_allclose(stn(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(224, 224), (97, 130), (7, 7), (1, 1)], ids=str)
def test_starts_as_the_identity_up_to_rounding(size: tuple[int, int]):
    x = maps(1, 3, *size)
    torch.testing.assert_close(SpatialTransformer(3).eval()(x), x, atol=2e-4, rtol=0)


def test_identity_gate_starts_exact_and_is_the_papers_form_later():
    x = maps(2, 3, 97, 130)
    torch.manual_seed(0)
    stn = SpatialTransformer(3, gate="identity")
    assert torch.equal(stn(x), x)
    trained, plain = moving(channels=3, gate="identity"), moving(channels=3)
    assert (trained(x) - x).abs().max() > 0.1
    torch.testing.assert_close(trained(x), plain(x), atol=2e-4, rtol=0)
    torch.testing.assert_close(moving(channels=3, gate="residual")(x), x + plain(x))


@pytest.mark.parametrize("gate", GATES)
def test_gradients_are_the_samplers_whatever_the_gate(gate: str):
    """No dead start: the localisation net learns from the first step, and x gets what passes through f and x."""
    stn, plain = SpatialTransformer(3, gate=gate), SpatialTransformer(3)
    plain.load_state_dict(stn.state_dict())
    x, other = maps(2, 3, 9, 8).requires_grad_(), maps(2, 3, 9, 8).requires_grad_()
    weight = maps(2, 3, 9, 8, seed=2)
    (stn(x) * weight).sum().backward()
    (plain(other) * weight).sum().backward()
    assert stn.localisation.last.bias.grad is not None
    assert stn.localisation.last.bias.grad.abs().min() > 1e-3
    torch.testing.assert_close(stn.localisation.last.bias.grad, plain.localisation.last.bias.grad)
    assert x.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(x.grad, other.grad + (weight if gate == "residual" else 0))


@pytest.mark.parametrize(("transform", "entries"), [("affine", 6), ("similarity", 4), ("attention", 3)])
def test_restricted_transforms_are_what_they_are_called(transform: str, entries: int):
    stn = moving(transform=transform, size=0.3)
    assert stn.localisation.last.out_features == entries
    height, width = 6, 11
    theta = attention_maps(stn, maps(5, 4, height, width))["localisation"].detach()
    assert theta.shape == (5, 2, 3)
    # in cells: what a step of one cell down and to the right of the output is in the input
    cells = theta[:, :, :2] * torch.tensor([[1, width / height], [height / width, 1]])
    gram = cells.transpose(1, 2) @ cells
    isotropic = torch.allclose(gram, gram[:, :1, :1] * torch.eye(2), atol=1e-5)
    turned = (theta[:, 0, 1].abs() > 1e-3).all()
    assert isotropic == (transform != "affine")
    assert turned == (transform != "attention")


def test_one_transform_a_clip():
    stn = moving(num_frames=4)
    x = maps(8, 4, 9, 9)
    theta = attention_maps(stn, x)["localisation"].unflatten(0, (2, 4))
    assert torch.equal(theta, theta[:, :1].expand_as(theta))
    assert (theta[0, 0] - theta[1, 0]).abs().max() > 1e-4  # clips differ
    alone = attention_maps(moving(), x)["localisation"].unflatten(0, (2, 4))
    torch.testing.assert_close(theta, alone.mean(1, keepdim=True).expand_as(theta))


def test_five_dimensional_clips_are_their_frames_in_turn():
    clips = maps(2, 4, 4, 9, 9)
    y = moving()(clips)
    assert y.shape == clips.shape
    torch.testing.assert_close(y.flatten(0, 1), moving(num_frames=4)(clips.flatten(0, 1)))


def test_smoothing_is_a_gaussian_mean_over_time():
    x = maps(2, 5, 4, 9, 9)
    each = attention_maps(moving(), x.flatten(0, 1))["localisation"].detach().unflatten(0, (2, 5)).numpy()
    smooth = attention_maps(moving(smoothing=1.5), x)["localisation"].detach().unflatten(0, (2, 5)).numpy()
    for clip in range(2):
        for t in range(5):
            weights = np.array([math.exp(-0.5 * ((t - s) / 1.5) ** 2) for s in range(5)])
            np.testing.assert_allclose(smooth[clip, t], np.tensordot(weights / weights.sum(), each[clip], 1), atol=1e-5)
    steps = [np.abs(np.diff(theta, axis=1)).mean() for theta in (each, smooth)]
    assert steps[1] < 0.5 * steps[0]


def test_frozen_motion_stays_motion():
    """What moves between the frames of a clip still moves when one transform is applied to all of them."""
    frame = maps(1, 4, 9, 9)
    still = frame.expand(6, -1, -1, -1)
    y = moving(num_frames=6)(still)
    assert torch.equal(y, y[:1].expand_as(y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_grid_stays_exact_under_autocast(dtype: torch.dtype):
    x = maps(1, 3, 224, 224).to(dtype)
    stn = SpatialTransformer(3).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention_maps(stn, x)["localisation"]
        y = stn(x)
    assert weights.dtype == torch.float32
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), x.float(), atol=2e-4, rtol=2**-8 if dtype == torch.bfloat16 else 0)


def test_padding_says_what_lies_outside():
    def shifted(padding: str) -> Tensor:
        stn = SpatialTransformer(1, padding=padding)
        with torch.no_grad():
            stn.localisation.last.bias.copy_(torch.tensor([1.0, 0, 1, 0, 1, 0]))  # half the map to the right
        out: Tensor = stn(torch.arange(1.0, 9)[None, None, None, :])
        return out.detach().flatten()

    torch.testing.assert_close(shifted("border"), torch.tensor([5.0, 6, 7, 8, 8, 8, 8, 8]), atol=1e-4, rtol=0)
    torch.testing.assert_close(shifted("zeros"), torch.tensor([5.0, 6, 7, 8, 0, 0, 0, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(shifted("reflection"), torch.tensor([5.0, 6, 7, 8, 8, 7, 6, 5]), atol=1e-4, rtol=0)


def test_follows_a_net_as_its_identity():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.stem(x)
            return out

    net, x = Net(), maps(4, 3, 16, 16)
    before = net(x)
    insert_attention(net, "stn", at=["stem"], num_frames=1)
    assert torch.equal(net(x), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": 0}, "positive"),
        ({"num_frames": 0}, "num_frames must be positive, got 0"),
        ({"transform": "projective"}, "choose one of: affine, similarity, attention"),
        ({"padding": "wrap"}, "choose one of: border, zeros, reflection"),
        ({"smoothing": 0.0}, "None gives one transform a clip"),
        ({"gate": "tanh"}, "choose one of"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        SpatialTransformer(8, **options)  # type: ignore[arg-type]


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"7 maps does not divide .* num_frames=4.*\(B, T, C, H, W\)"):
        SpatialTransformer(4, num_frames=4)(maps(7, 4, 5, 5))
