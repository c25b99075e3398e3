"""Several stages at once: what is weighed, at which size, and against the equations in plain operations."""

from __future__ import annotations

import pytest
import torch
from mechanisms import maps, randomise
from torch import Tensor, nn

from temporal_attn.attention import MultiScaleFusion, PyramidFeatureAttention, attention_maps, record_attention

CHANNELS = (8, 12, 16)


def stages(batch: int = 2, sizes: tuple[tuple[int, int], ...] = ((9, 7), (5, 4), (3, 2))) -> list[Tensor]:
    """C3, C4 and C5 of an image with odd sides."""
    return [maps(batch, c, *size, seed=c) for c, size in zip(CHANNELS, sizes, strict=True)]


def up(x: Tensor, size: tuple[int, int]) -> Tensor:
    return nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("weights", ["shared", "selective"])
def test_fusion_starts_as_the_plain_mean(weights: str):
    fusion = MultiScaleFusion(CHANNELS, width=6, weights=weights).eval()
    levels = stages()
    same = [up(lateral(x), (9, 7)) for lateral, x in zip(fusion.lateral, levels, strict=True)]
    torch.testing.assert_close(fusion(levels), torch.stack(same).mean(0))


def test_shared_weights_are_a_softmax_over_scales():
    fusion = randomise(MultiScaleFusion(CHANNELS, width=6)).eval()
    levels = stages()
    share = fusion.weights.logits.exp() / fusion.weights.logits.exp().sum()
    assert share.std() > 0.05
    same = [up(lateral(x), (9, 7)) for lateral, x in zip(fusion.lateral, levels, strict=True)]
    torch.testing.assert_close(fusion(levels), sum(w * x for w, x in zip(share, same, strict=True)))
    with record_attention(fusion) as shown:
        fusion(levels)
    torch.testing.assert_close(shown["weights"], share.view(1, 3, 1, 1, 1).expand(2, -1, -1, -1, -1))


def test_selective_weights_differ_by_image_and_channel():
    fusion = randomise(MultiScaleFusion(CHANNELS, width=6, weights="selective")).eval()
    levels = stages()
    with record_attention(fusion) as shown:
        out = fusion(levels)
    share = shown["weights"]
    assert share.shape == (2, 3, 6, 1, 1)
    torch.testing.assert_close(share.sum(1), torch.ones(2, 6, 1, 1))
    assert share.std(0).min() > 0
    same = torch.stack([up(lateral(x), (9, 7)) for lateral, x in zip(fusion.lateral, levels, strict=True)], 1)
    torch.testing.assert_close(out, (share * same).sum(1), atol=1e-5, rtol=1e-5)


def test_pyramid_feature_attention_gates_the_fine_map_by_all_levels():
    pfa = randomise(PyramidFeatureAttention(CHANNELS, width=4, out_channels=6), scale=0.3).eval()
    levels = stages()
    context = torch.cat(
        [up(branch(x), (9, 7)) for x, level in zip(levels, pfa.context.levels, strict=True) for branch in level], 1
    )
    assert context.shape[1] == 3 * 4 * 4  # levels, convolutions, width
    high = pfa.high(context * pfa.context.channel.gate(pfa.context.channel.logits(context)))
    with record_attention(pfa) as shown:
        out = pfa(levels)
    place = shown["space.gate"]
    assert place.shape == (2, 1, 9, 7)
    torch.testing.assert_close(out, torch.cat((place * pfa.low(levels[0]), high), 1), atol=1e-5, rtol=1e-4)


def test_coarse_maps_decide_where_to_look_on_the_fine_one():
    pfa = randomise(PyramidFeatureAttention(CHANNELS, width=4, out_channels=6), scale=0.5).eval()
    first = stages()
    second = [first[0], first[1], first[2] + 3]
    with record_attention(pfa) as before:
        pfa(first)
    with record_attention(pfa) as after:
        pfa(second)
    assert (before["space.gate"] - after["space.gate"]).abs().max() > 1e-3


def test_identity_gate_weighs_all_places_alike_at_the_start():
    pfa = PyramidFeatureAttention(CHANNELS, width=4, out_channels=6, gate="identity").eval()
    levels = stages()
    assert torch.equal(pfa(levels)[:, :6], pfa.low(levels[0]))


@pytest.mark.parametrize("make", [MultiScaleFusion, PyramidFeatureAttention])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_one_image_tiny_maps_and_both_layouts(make: type[nn.Module], training: bool):
    module = make(CHANNELS).train(training)
    assert module(stages(1, ((1, 1),) * 3)).isfinite().all()
    levels = stages()
    last = [x.to(memory_format=torch.channels_last) for x in levels]
    module.eval()
    assert module(last).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(module(last), module(levels), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [MultiScaleFusion, PyramidFeatureAttention])
def test_wrong_maps_and_options_are_named(make: type[nn.Module]):
    module = make(CHANNELS)
    with pytest.raises(ValueError, match=r"\[8, 12, 16\] channels, from the finest .* got \[16, 12, 8\]"):
        module(stages()[::-1])
    with pytest.raises(ValueError, match=r"got \[8, 12\]"):
        module(stages()[:2])
    with pytest.raises(ValueError, match=r"positive|at least one"):
        make([])


def test_unknown_weights_name_the_choices():
    with pytest.raises(ValueError, match="shared, selective"):
        MultiScaleFusion(CHANNELS, weights="mean")


def test_attention_maps_read_lists_too():
    assert set(attention_maps(MultiScaleFusion(CHANNELS), stages())) == {"weights"}  # type: ignore[arg-type]
