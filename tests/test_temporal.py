"""Temporal models by name: what they start as, what padding and shifts may not change, and attention against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from temporal_attn.attention import record_attention
from temporal_attn.temporal import AttentionPool, MeanPool, TemporalEncoder, build, names
from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.temporal.directions import DIRECTIONS
from temporal_attn.temporal.encoder import POOLS
from temporal_attn.temporal.positions import POSITIONS

DIM, HEADS = 16, 4

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in names()},
    **{f"transformer {position}": ("transformer", {"position": position}) for position in POSITIONS},
    **{
        f"transformer {direction} {window}": ("transformer", {"direction": direction, "window": window})
        for direction in DIRECTIONS
        for window in (None, 2)
    },
    **{f"transformer {pool}": ("transformer", {"pool": pool}) for pool in POOLS},
    "relative causal": ("transformer", {"position": "relative", "direction": "causal", "window": 3}),
    "gru causal": ("gru", {"direction": "causal", "pool": "attention_pool"}),
    "tcn causal": ("tcn", {"direction": "causal", "kernel_size": 2}),
    "squeeze_excitation gated": ("squeeze_excitation", {"pool": "gated", "reduction": 4}),
}
"""Every name with its defaults, and every further option at least once."""


def make(variant: str) -> TemporalEncoder:
    name, chosen = VARIANTS[variant]
    return build(name, DIM, HEADS, **chosen)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Parameters as after some training, so that nothing stays zero or the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


def clip(batch: int = 2, frames: int = 5, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and seconds of clips whose frames stand at uneven times."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, frames, DIM, generator=generator)
    pts = torch.rand(batch, frames, generator=generator).cumsum(1)
    return tokens, torch.ones(batch, frames, dtype=torch.bool), pts


@pytest.fixture(params=VARIANTS)
def encoder(request: pytest.FixtureRequest) -> TemporalEncoder:
    module = randomise(make(request.param))
    assert isinstance(module, TemporalEncoder)
    return module


# --- what it starts as ---------------------------------------------------------------------------------------------


def test_block_starts_as_the_identity():
    tokens, mask, pts = clip()
    block = SelfAttentionBlock(DIM, HEADS, dropout=0.5, drop_path=0.5)
    assert torch.equal(block(tokens, mask, pts), tokens)


def test_attention_pool_starts_as_the_mean():
    tokens, mask, _ = clip()
    mask[0, 3:] = False
    feature, weights = AttentionPool(DIM, HEADS)(tokens, mask)
    expected, uniform = MeanPool()(tokens, mask)
    torch.testing.assert_close(feature, expected)
    torch.testing.assert_close(weights, uniform)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "max" not in name and "power" not in name])
def test_every_encoder_starts_as_the_masked_mean_of_normalised_tokens(variant: str):
    """But for the maximum, which is none of its frames' mean however its parameters stand, and the mean's powers."""
    tokens, mask, pts = clip()
    mask[1, 2:] = False
    feature, weights = make(variant).eval()(tokens, mask, pts)
    for row, real, got, weight in zip(tokens, mask, feature, weights, strict=True):
        frames = row[real].numpy()
        frames = (frames - frames.mean(1, keepdims=True)) / np.sqrt(frames.var(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(got.detach().numpy(), frames.mean(0), atol=1e-5)
        np.testing.assert_allclose(weight[real].detach().numpy(), 1 / len(frames), atol=1e-6)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "power_mean"])  # it has none
def test_gradient_reaches_every_parameter_after_two_steps(variant: str):
    torch.manual_seed(0)
    module = make(variant).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(3):  # zeroed output maps let what is below them wait
        optimiser.zero_grad()
        feature, _ = module(*clip())
        (feature * torch.randn(feature.shape, generator=torch.Generator().manual_seed(5))).sum().backward()
        optimiser.step()
    for name, parameter in module.named_parameters():
        if name.endswith("key.bias"):  # softmax does not see what is common to all scores
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["mean", "attention_pool", "transformer"])
def test_checkpoints_keep_their_keys(name: str):
    blocks = ["norm1", "qkv", "out", "norm2", "mlp.0", "mlp.3"] if name == "transformer" else []
    layers = [f"blocks.{block}.{layer}" for block in range(2) for layer in blocks] + ["norm"]
    layers += [] if name == "mean" else ["pool.key", "pool.value", "pool.out"]
    keys = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert set(build(name, DIM, HEADS).state_dict()) == keys | (set() if name == "mean" else {"pool.query"})


# --- what must not matter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filler", [float("nan"), 1e4, float("inf")])
def test_padding_has_no_influence(encoder: TemporalEncoder, filler: float):
    tokens, mask, pts = clip(frames=5)
    expected, weights = encoder(tokens, mask, pts)
    padded = torch.full((2, 9, DIM), filler)
    at = [0, 2, 3, 5, 8]  # real frames with padding between them
    padded[:, at] = tokens
    times = torch.full((2, 9), filler)
    times[:, at] = pts
    real = torch.zeros(2, 9, dtype=torch.bool)
    real[:, at] = True
    got, padded_weights = encoder(padded, real, times)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded_weights[:, at], weights, atol=1e-5, rtol=1e-5)
    assert (padded_weights[~real] == 0).all()


def test_what_padding_holds_changes_nothing_at_all(encoder: TemporalEncoder):
    tokens, mask, pts = clip()
    mask[:, 3:] = False
    first = encoder(tokens, mask, pts)
    tokens[:, 3:] = 1e4
    second = encoder(tokens, mask, pts)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("shift", [1000.0, -3.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shift_in_time_has_no_influence(encoder: TemporalEncoder, shift: float, dtype: torch.dtype):
    tokens, mask, pts = clip()
    pts = (pts * 1024).round() / 1024  # times that both clocks can hold exactly
    one, other = encoder(tokens, mask, pts.to(dtype)), encoder(tokens, mask, pts.to(dtype) + shift)
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one[1], other[1], atol=1e-5, rtol=1e-5)


def test_double_precision_seconds_are_not_rounded_before_the_shift():
    module = randomise(build("transformer", DIM, HEADS))
    tokens, mask, pts = clip()
    pts = (pts * 1024).round().double() / 1024
    one, other = module(tokens, mask, pts), module(tokens, mask, pts + 2.0**30)
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-5)


def test_times_do_matter_to_the_transformer():
    module = randomise(build("transformer", DIM, HEADS))
    tokens, mask, pts = clip()
    assert (module(tokens, mask, pts)[0] - module(tokens, mask, pts * 3)[0]).abs().max() > 1e-3


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)), st.sampled_from(list(VARIANTS)))
def test_frames_are_a_set_of_tokens_with_times(order: list[int], variant: str):
    module = randomise(make(variant))
    tokens, mask, pts = clip(frames=6)
    mask[0, 4:] = False
    feature, weights = module(tokens, mask, pts)
    permuted, permuted_weights = module(tokens[:, order], mask[:, order], pts[:, order])
    torch.testing.assert_close(permuted, feature, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(permuted_weights, weights[:, order], atol=1e-5, rtol=1e-5)


def test_block_permutes_with_its_frames():
    block = randomise(SelfAttentionBlock(DIM, HEADS))
    tokens, mask, pts = clip(frames=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        block(tokens[:, order], mask[:, order], pts[:, order]), block(tokens, mask, pts)[:, order], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("frames", [1, 2, 33])
def test_any_number_of_frames(encoder: TemporalEncoder, frames: int):
    feature, weights = encoder(*clip(3, frames))
    assert feature.shape == (3, DIM)
    assert weights.shape == (3, frames)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4), st.sampled_from(list(VARIANTS))
)
def test_weights_are_a_distribution_over_real_frames(masks: list[list[bool]], variant: str):
    mask = torch.tensor(masks)
    tokens, _, pts = clip(len(mask), 6)
    _, weights = randomise(make(variant))(tokens, mask, pts)
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()
    torch.testing.assert_close(weights.sum(1), mask.any(1).float())


def test_clips_do_not_see_each_other(encoder: TemporalEncoder):
    tokens, mask, pts = clip(3)
    together = encoder(tokens, mask, pts)[0]
    alone = torch.cat([encoder(tokens[i : i + 1], mask[:1], pts[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_clip_without_frames_is_finite_and_so_are_its_gradients(encoder: TemporalEncoder):
    tokens, mask, pts = clip()
    tokens[0] = float("nan")
    pts[0] = float("nan")
    mask[0] = False
    tokens.requires_grad_()
    feature, weights = encoder(tokens, mask, pts)
    (feature.square().sum() + weights.square().sum()).backward()
    assert feature.isfinite().all()
    assert (weights[0] == 0).all()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()
    assert (tokens.grad[0] == 0).all()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


# --- against loops -------------------------------------------------------------------------------------------------


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def test_attention_pool_is_the_loop_over_heads_and_frames():
    pool = randomise(AttentionPool(DIM, HEADS)).double()
    tokens, mask, _ = clip(3, 5)
    mask[1, 2:] = False
    mask[2, 0] = False
    x = tokens.double()
    feature, weights = pool(x, mask)
    width = DIM // HEADS
    state = {name: value.detach().numpy() for name, value in pool.state_dict().items()}
    for b in range(3):
        real = [t for t in range(5) if mask[b, t]]
        heads, mean = [], np.zeros(5)
        for h in range(HEADS):
            part = slice(h * width, (h + 1) * width)
            frames = {t: x[b, t].numpy() for t in real}
            keys = {t: state["key.weight"][part] @ f + state["key.bias"][part] for t, f in frames.items()}
            values = {t: state["value.weight"][part] @ f + state["value.bias"][part] for t, f in frames.items()}
            share = softmax([float(state["query"][h] @ keys[t]) / math.sqrt(width) for t in real])
            heads.append(sum(w * values[t] for w, t in zip(share, real, strict=True)))
            for w, t in zip(share, real, strict=True):
                mean[t] += w / HEADS
        expected = state["out.weight"] @ np.concatenate(heads) + state["out.bias"]
        np.testing.assert_allclose(feature[b].detach().numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(weights[b].detach().numpy(), mean, atol=1e-6)


def test_attention_pool_equals_torch_multihead_attention():
    pool = randomise(AttentionPool(DIM, HEADS))
    assert isinstance(pool, AttentionPool)
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((torch.eye(DIM), pool.key.weight, pool.value.weight)))
        theirs.in_proj_bias.copy_(torch.cat((torch.zeros(DIM), pool.key.bias, pool.value.bias)))
        theirs.out_proj.load_state_dict(pool.out.state_dict())
    tokens, mask, _ = clip(3, 6)
    mask[0, 4:] = False
    query = pool.query.reshape(1, 1, DIM).expand(3, 1, DIM)
    expected, weights = theirs(query, tokens, tokens, key_padding_mask=~mask)
    got, ours = pool(tokens, mask)
    torch.testing.assert_close(got, expected[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours, weights[:, 0], atol=1e-5, rtol=1e-5)


def test_block_is_the_loop_over_heads_and_frames():
    block = randomise(SelfAttentionBlock(DIM, HEADS))
    assert isinstance(block, SelfAttentionBlock)
    tokens, mask, pts = clip(2, 4)
    mask[1, 3] = False
    width = DIM // HEADS
    with torch.no_grad():
        got = block(tokens, mask, pts)
        q, k, v = block.qkv(block.norm1(tokens)).split(DIM, dim=-1)
        frequency = block.rotary.frequency

        def turned(part: Tensor, at: Tensor) -> Tensor:
            z = torch.complex(part[: width // 2], part[width // 2 :]) * torch.polar(
                torch.ones(width // 2), at * frequency
            )
            return torch.cat((z.real, z.imag))

        for b in range(2):
            real = [t for t in range(4) if mask[b, t]]
            for t in real:
                mixed = []
                for h in range(HEADS):
                    part = slice(h * width, (h + 1) * width)
                    query = turned(q[b, t, part], pts[b, t])
                    share = softmax([float(query @ turned(k[b, s, part], pts[b, s])) / math.sqrt(width) for s in real])
                    mixed.append(sum(w * v[b, s, part] for w, s in zip(share, real, strict=True)))
                x = tokens[b, t] + block.out(torch.cat(mixed))
                expected = x + block.mlp(block.norm2(x))
                torch.testing.assert_close(got[b, t], expected, atol=1e-4, rtol=1e-4)


# --- on demand and compiled ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if VARIANTS[variant][0] == "transformer"])
def test_fused_attention_equals_its_explicit_weights(variant: str):
    module = randomise(make(variant))
    tokens, mask, pts = clip(2, 6)
    mask[0, 4:] = False
    with torch.no_grad(), record_attention(module) as recorded:
        module(tokens, mask, pts)
        block = module.blocks[0]
        assert isinstance(block, SelfAttentionBlock)
        weights = recorded["blocks.0"]
        seconds = torch.where(mask, pts - pts[:, :1], 0).double()
        x = torch.where(mask[..., None], tokens, 0)
        *_, values = block.project(x, mask, seconds)
        torch.testing.assert_close(block.finish(x, weights @ values)[mask], block(x, mask, seconds)[mask])
    torch.testing.assert_close(weights.sum(-1), mask[:, None].expand(-1, HEADS, -1).float())
    assert (weights.transpose(-1, -2)[~mask[:, None].expand(-1, HEADS, -1)] == 0).all()  # nobody looks at padding


def assert_compiles(variant: str, whole: bool) -> None:
    """Results and gradients are those of the module itself."""
    module = randomise(make(variant))
    tokens, mask, pts = clip(2, 5)
    mask[0, 3:] = False
    tokens.requires_grad_()
    found = []
    torch.compiler.reset()
    for call in (torch.compile(module, fullgraph=whole, backend="aot_eager", dynamic=False), module):
        feature, weights = call(tokens, mask, pts)
        wanted = [tokens, *(p for p in module.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad(feature.square().sum() + weights.square().sum(), wanted, allow_unused=True)
        found.append((feature, weights, *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", [*names(), "transformer learned", "relative causal", "gru causal", "tcn causal"])
def test_compiles_as_one_graph(variant: str):
    """Every name, and what has most branches. torch's compiler takes a GRU only where it is told to."""
    with torch._dynamo.config.patch(allow_rnn="gru" in variant):
        assert_compiles(variant, whole=True)


def test_a_gru_compiles_in_parts_where_nobody_allows_it():
    """What `torch.compile` of a model does without further settings: it runs the GRU itself as it is."""
    assert_compiles("gru", whole=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_that_a_net_is_cast_to(encoder: TemporalEncoder, dtype: torch.dtype):
    tokens, mask, pts = clip()
    mask[0, 3:] = False
    expected = encoder(tokens, mask, pts)[0]
    got, weights = encoder.to(dtype)(tokens.to(dtype), mask, pts)
    assert got.dtype == dtype
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    size = float(expected.detach().abs().max())
    torch.testing.assert_close(got.float(), expected, atol=(0.05 if dtype == torch.bfloat16 else 0.01) * size, rtol=0)
    assert encoder.train()(tokens.to(dtype), mask, pts)[0].isfinite().all()
