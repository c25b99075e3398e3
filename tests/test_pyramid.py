"""ASPP against torchvision, pyramid feature attention against its equations, and what rates do on small maps."""

from __future__ import annotations

import pytest
import torch
from mechanisms import maps, randomise
from test_branch import copy_in_order
from torch import Tensor, nn

from temporal_attn.attention import ASPP, PFA, attention_maps
from temporal_attn.attention.pyramid import CrossGate


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_aspp_equals_torchvision(training: bool):
    from torchvision.models.segmentation.deeplabv3 import ASPP as TheirASPP

    theirs = randomise(TheirASPP(32, [1, 2, 3], 32)).train(training)
    theirs.project[3].p = 0.0
    ours = ASPP(32, rates=(1, 2, 3), reduction=1).train(training)
    copy_in_order(theirs, ours)
    x = maps(3, 32, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.state_dict()["image.1.running_var"], theirs.state_dict()["convs.4.2.running_var"])


def test_aspp_is_as_wide_as_the_paper_by_default():
    aspp = ASPP(2048)
    assert [branch[0].out_channels for branch in aspp.context] == [256] * 4  # type: ignore[index]
    assert aspp.project[0].in_channels == 5 * 256
    assert aspp.project[-1].p == 0


def response(aspp: ASPP, x: Tensor) -> Tensor:
    return torch.cat([branch[0](x) for branch in aspp.context[1:]])  # type: ignore[index, union-attr]


def test_a_rate_as_large_as_the_map_sees_only_its_centre():
    x = maps(1, 8, 7, 7)
    for rates, degenerate in (((1, 2, 3), False), ((7, 12, 18), True)):
        aspp = ASPP(8, rates=rates, reduction=1)
        centres = [nn.functional.conv2d(x, branch[0].weight[:, :, 1:2, 1:2]) for branch in aspp.context[1:]]  # type: ignore[index, union-attr]
        assert torch.allclose(response(aspp, x), torch.cat(centres), atol=1e-5) == degenerate


def test_every_default_rate_reaches_beyond_the_centre_of_a_small_map():
    x = torch.zeros(1, 8, 7, 7)
    x[..., 3, 3] = 1
    for branch in ASPP(8, reduction=1).context[1:]:  # type: ignore[union-attr]
        assert (branch[0](x)[0].abs().sum(0) > 0).sum() == 9  # type: ignore[index]


def test_aspp_drops_values_only_in_training():
    torch.manual_seed(0)
    aspp, x = ASPP(16, dropout=0.5), maps(4, 16, 8, 8)
    assert (aspp(x) == 0).float().mean() > (ASPP(16)(x) == 0).float().mean() + 0.1
    assert torch.equal(aspp.eval()(x), aspp(x))


def test_pfa_is_the_papers_equation():
    pfa = randomise(PFA(16, reduction=4, kernel_size=5), scale=0.3).eval()
    x = maps(2, 16, 9, 8)
    pyramid = torch.cat([branch(x) for branch in pfa.context.levels[0]], 1)  # type: ignore[union-attr]
    assert pyramid.shape[1] == 16
    state = pfa.context.channel.state_dict()
    down, up = (state[f"logits.mlp.{name}.weight"] for name in ("down", "up"))
    low, high = (state[f"logits.mlp.{name}.bias"] for name in ("down", "up"))
    assert down.shape == (4, 16)  # r = 4
    channel = torch.sigmoid((pyramid.mean((2, 3)) @ down.T + low).clamp(min=0) @ up.T + high)
    h = channel[:, :, None, None] * pyramid

    def pair(strips: nn.Module, first: tuple[int, int]) -> Tensor:
        layers = list(strips.children())
        assert layers[0].kernel_size == first
        assert layers[3].kernel_size == first[::-1]
        assert len(layers) == 5  # the paper's equation ends without a ReLU
        values = h
        for layer in layers:
            values = layer(values)
        return values

    weight = torch.sigmoid(pair(pfa.space.rows, (1, 5)) + pair(pfa.space.columns, (5, 1)))
    torch.testing.assert_close(pfa(x), weight * x, atol=1e-5, rtol=1e-4)
    shown = attention_maps(pfa, x)
    torch.testing.assert_close(shown["space.gate"], weight)
    torch.testing.assert_close(shown["context.channel.gate"][:, :, 0, 0], channel)


def test_final_relu_keeps_weights_above_a_half():
    x = maps(4, 8, 9, 9)
    closed, free = (randomise(CrossGate(8, final_relu=relu)).eval()(x) for relu in (True, False))
    assert closed.min() == 0.5
    assert free.min() < 0.4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ASPP(8, rates=(0, 1)), r"positive, got .*\[0, 1\]"),
        (lambda: ASPP(8, rates=()), "rates must name at least one dilation"),
        (lambda: PFA(8, rates=()), "rates must name at least one dilation"),
        (lambda: ASPP(8, reduction=0), "reduction must be positive"),
        (lambda: PFA(8, kernel_size=4), "must be odd, got 4"),
        (lambda: PFA(8, reduction=0), "reduction must be positive"),
        (lambda: PFA(8, final_relu=True, gate="identity"), "leave one out"),
        (lambda: CrossGate(0), "positive"),
    ],
)
def test_wrong_options_are_named(make: object, words: str):
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]
