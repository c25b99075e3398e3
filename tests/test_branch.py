"""Selective kernels and split attention against timm with the papers' arguments, and against the equations."""

from __future__ import annotations

import pytest
import torch
from mechanisms import maps, randomise
from torch import nn

from temporal_attn.attention import SelectiveKernel, SplitAttention, attention_maps
from temporal_attn.attention.branch import BranchWeights, weighted_sum


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Weights and statistics of one net into another that declares the same layers in the same order."""
    theirs, ours = source.state_dict(), target.state_dict()
    assert [value.shape for value in theirs.values()] == [value.shape for value in ours.values()]
    target.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("sizes", [(3, 5), (3, 5, 7)], ids=str)
def test_selective_kernel_equals_timm_with_the_papers_arguments(sizes: tuple[int, ...], training: bool):
    layers = pytest.importorskip("timm.layers")
    theirs = layers.SelectiveKernel(64, 64, list(sizes), groups=32, rd_divisor=32, split_input=False)
    randomise(theirs).train(training)
    ours = SelectiveKernel(64, sizes).train(training)
    copy_in_order(theirs, ours)
    x = maps(3, 64, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("radix", "groups"), [(1, 1), (2, 1), (2, 2), (4, 1), (1, 2)])
def test_split_attention_equals_timm_with_batch_norm(radix: int, groups: int, training: bool):
    layers = pytest.importorskip("timm.layers")
    theirs = layers.SplitAttn(32, radix=radix, groups=groups, norm_layer=nn.BatchNorm2d)
    randomise(theirs).train(training)
    ours = SplitAttention(32, radix=radix, groups=groups).train(training)
    copy_in_order(theirs, ours)
    x = maps(3, 32, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_selective_kernel_is_the_papers_equation():
    sk = randomise(SelectiveKernel(8, groups=4)).eval()
    x = maps(2, 8, 6, 6)
    u = [branch(x) for branch in sk.branches]
    down, norm, up = sk.select.down.weight[:, :, 0, 0], sk.select.norm, sk.select.up.weight[:, :, 0, 0]
    s = (u[0] + u[1]).sum((2, 3)) / 36
    z = (s @ down.T - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    e = [(z.clamp(min=0) @ part.T).exp() for part in (up[:8], up[8:])]  # A and B of the paper
    a = e[0] / (e[0] + e[1])
    torch.testing.assert_close(sk(x), a[..., None, None] * u[0] + (1 - a)[..., None, None] * u[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attention_maps(sk, x)["select"][:, 0, :, 0, 0], a)


def test_a_large_kernel_is_a_dilated_small_one():
    sk = SelectiveKernel(32, (3, 5, 7))
    assert [branch[0].kernel_size for branch in sk.branches] == [(3, 3)] * 3  # type: ignore[index]
    impulse = torch.zeros(1, 32, 15, 15)
    impulse[..., 7, 7] = 1
    for branch, size in zip(sk.branches, (3, 5, 7), strict=True):
        reach = branch[0](impulse).abs().sum((0, 1)).nonzero()  # type: ignore[index]
        assert int(reach.max() - reach.min()) + 1 == size


@pytest.mark.parametrize("module", [SelectiveKernel(16), SplitAttention(16, radix=4)], ids=["sk", "split"])
def test_shares_sum_to_one(module: nn.Module):
    weights = attention_maps(randomise(module).eval(), maps(3, 16, 5, 5))["select"]
    assert weights.shape == (3, 2 if isinstance(module, SelectiveKernel) else 4, 16, 1, 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, 16, 1, 1))
    assert weights.std() > 0.05


def test_groups_decide_by_themselves():
    """With cardinality 2, what one half of the channels shows does not touch the shares of the other."""
    weights = randomise(BranchWeights(8, 2, 32, groups=2)).eval()
    first = [maps(1, 8, 4, 4, seed=seed) for seed in (1, 2)]
    second = [each.clone() for each in first]
    second[0][:, :4] += 5
    before, after = weights(first), weights(second)
    assert torch.equal(before[:, :, 4:], after[:, :, 4:])
    assert not torch.allclose(before[:, :, :4], after[:, :, :4])


def test_weighted_sum_is_a_loop_and_takes_gradients():
    branches = [maps(2, 3, 4, 4, seed=seed).double().requires_grad_() for seed in range(3)]
    weights = maps(2, 3, 3, 1, 1, seed=9).double().requires_grad_()
    expected = sum(branch * weights[:, m] for m, branch in enumerate(branches))
    torch.testing.assert_close(weighted_sum(branches, weights), expected)
    run = lambda weights, *branches: weighted_sum(branches, weights)  # noqa: E731
    assert torch.autograd.gradcheck(run, (weights, *branches), fast_mode=True)


@pytest.mark.parametrize("channels", [24, 40, 112, 7])
def test_default_groups_fit_any_width(channels: int):
    x = maps(2, channels, 5, 5)
    assert SelectiveKernel(channels)(x).shape == x.shape


def test_starts_as_the_paper_says():
    sk = SelectiveKernel(256)
    assert [branch[0].groups for branch in sk.branches] == [32, 32]  # type: ignore[index]
    for layer in (sk.select.down, sk.select.up):
        assert layer.bias is None
        assert abs(layer.weight.std().item() - 0.01) < 1e-3
    assert (sk.select.down.out_channels, SelectiveKernel(1024).select.down.out_channels) == (32, 64)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SelectiveKernel(24, groups=32), "groups=32 does not divide the 24 channels"),
        (lambda: SelectiveKernel(32, (3, 4)), r"odd and at least 3, got \[3, 4\]"),
        (lambda: SelectiveKernel(32, ()), "odd and at least 3"),
        (lambda: SelectiveKernel(0), "positive"),
        (lambda: SplitAttention(7), r"2 does not divide the 7 channels"),
        (lambda: SplitAttention(8, kernel_size=2), "must be odd, got 2"),
        (lambda: SplitAttention(8, radix=0), "positive"),
        (lambda: BranchWeights(9, 2, 32, groups=3), "must divide the 9 channels and the 32 hidden"),
    ],
)
def test_wrong_options_are_named(make: object, words: str):
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]
