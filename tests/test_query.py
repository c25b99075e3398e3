"""Query–key–value attention: its stages one by one, each score by loops, torch's own multi-head attention."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from allocations import largest_tensor
from mechanisms import maps, randomise
from torch import Tensor, nn

from temporal_attn.attention import QueryKeyValue, attention_maps
from temporal_attn.attention.positions import RelativePosition, sincos
from temporal_attn.attention.query import POSITIONS
from temporal_attn.attention.scores import ADDITIVE_BLOCK, SCORES, AdditiveScore, CosineScore

every = pytest.mark.parametrize(("score", "position"), list(itertools.product(SCORES, POSITIONS)))


def attention(score: str = "scaled_dot", position: str = "none", heads: int = 2, **options) -> QueryKeyValue:
    module = QueryKeyValue(12, heads=heads, score=score, position=position, reach=3, **options)
    return randomise(module).double().eval()


@every
@pytest.mark.parametrize("size", [(2, 3), (9, 7)], ids=str)  # weights smaller than the values, and larger
def test_the_forward_pass_is_the_three_stages(score: str, position: str, size: tuple[int, int]):
    module = attention(score, position, reduction=2)
    x = maps(2, 12, *size).double()
    q, k, v = module.project(x)
    weights = module.normalise(module.score(q, k, module.bias(x)))
    mixed = module.weighted_sum(weights, v)
    expected = x + module.out(mixed.transpose(1, 2).flatten(2).mT.reshape(2, 6, *size))
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    torch.testing.assert_close(attention_maps(module, x)[""], weights)


def one_score(score: str, module: QueryKeyValue, head: int, q: np.ndarray, k: np.ndarray) -> float:
    if score == "additive":
        return float(module.scoring.weight[head].detach().numpy().ravel() @ np.tanh(q + k))
    if score == "cosine":
        temperature = min(100.0, module.scoring.log_temperature[head].exp().item())
        return temperature * float(q @ k) / math.sqrt((q @ q) * (k @ k))
    return float(q @ k) / (math.sqrt(len(q)) if score == "scaled_dot" else 1)


@pytest.mark.parametrize("score", SCORES)
def test_equals_a_literal_loop(score: str):
    module = attention(score)
    x = maps(1, 12, 2, 3).double()
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    places = x[0].flatten(1).T.numpy()
    projected = places @ state["query_key_value.weight"][:, :, 0, 0].T + state["query_key_value.bias"]
    mixed = np.zeros((6, 12))
    for head in range(2):
        q, k, v = (projected[:, start + 6 * head : start + 6 * head + 6] for start in (0, 12, 24))
        for i in range(6):
            weights = np.exp([one_score(score, module, head, q[i], k[j]) for j in range(6)])
            mixed[i, 6 * head : 6 * head + 6] = weights / weights.sum() @ v
    added = mixed @ state["out.weight"][:, :, 0, 0].T + state["out.bias"]
    torch.testing.assert_close(module(x), x + torch.from_numpy(added.T).view(1, 12, 2, 3))


@pytest.mark.parametrize("heads", [1, 4])
def test_equals_torch_multi_head_attention(heads: int):
    module = attention(heads=heads)
    theirs = nn.MultiheadAttention(12, heads, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(module.query_key_value.weight.flatten(1))
        theirs.in_proj_bias.copy_(module.query_key_value.bias)
        theirs.out_proj.weight.copy_(module.out.weight.flatten(1))
        theirs.out_proj.bias.copy_(module.out.bias)
    x = maps(2, 12, 5, 4).double()
    tokens = x.flatten(2).mT
    expected, weights = theirs(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(module(x) - x, expected.mT.reshape(x.shape))
    torch.testing.assert_close(attention_maps(module, x)[""], weights)


@every
def test_gradients(score: str, position: str):
    module = attention(score, position)
    x = maps(1, 12, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)


def test_blocks_of_the_additive_score_change_nothing():
    module = randomise(AdditiveScore(2, 3)).double()
    length = 2 * ADDITIVE_BLOCK + 5
    inputs = [torch.randn(2, 2, length, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    q, k, v = inputs
    bias = RelativePosition(2, 4).double()(1, length)
    whole = module(q, k, bias).softmax(-1) @ v
    blocks = module.mix(q, k, v, bias)
    torch.testing.assert_close(blocks, whole)
    wanted = [*inputs, module.weight]
    ours, expected = (torch.autograd.grad(mixed.square().sum(), wanted) for mixed in (blocks, whole))
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_temperature_of_cosine_is_bounded():
    score = CosineScore(1, 4).double()
    q = torch.randn(1, 1, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(score(q, q, None).amax(), torch.tensor(10.0).double())
    nn.init.constant_(score.log_temperature, 50.0)
    torch.testing.assert_close(score(q, q, None).amax(), torch.tensor(100.0).double())


@pytest.mark.parametrize("score", SCORES)
def test_only_positions_tell_places_apart(score: str):
    x = maps(1, 12, 3, 4).double()
    flipped = x.flip(2)
    for position in POSITIONS:
        module = attention(score, position)
        follows = torch.allclose(module(flipped), module(x).flip(2))
        assert follows == (position == "none")


def test_relative_bias_is_that_of_the_rows_and_columns_between():
    reach, height, width = 2, 4, 5
    module = randomise(RelativePosition(3, reach))
    left, right = module(height, width)
    bias = left @ right.mT
    for query, key in itertools.product(itertools.product(range(height), range(width)), repeat=2):
        down, along = (max(-reach, min(reach, b - a)) for a, b in zip(query, key, strict=True))
        expected = module.rows[:, down + reach] + module.columns[:, along + reach]
        torch.testing.assert_close(bias[:, query[0] * width + query[1], key[0] * width + key[1]], expected)


def test_sines_and_cosines_of_rows_and_columns():
    channels, height, width = 10, 3, 4  # channels that do not divide by four
    table = sincos(height, width, channels)
    assert table.shape == (12, channels)
    for row, column, channel in itertools.product(range(height), range(width), range(channels)):
        turn, level = channel % 4, channel // 4
        phase = (row if turn < 2 else column) / 10_000 ** (level / 3)
        expected = math.cos(phase) if turn % 2 else math.sin(phase)
        assert table[row * width + column, channel].item() == pytest.approx(expected, abs=1e-6)


def test_positions_join_queries_and_keys_but_not_values():
    plain, placed = attention(), attention(position="sincos")
    x = maps(1, 12, 3, 3).double()
    shifted = x + sincos(3, 3, 12).double().T.view(1, 12, 3, 3)
    for number, source in enumerate((shifted, shifted, x)):
        torch.testing.assert_close(placed.project(x)[number], plain.project(source)[number])


@every
def test_memory_grows_with_places(score: str, position: str):
    def peak(side: int) -> int:
        module = QueryKeyValue(8, heads=2, score=score, position=position)
        return largest_tensor(module, maps(1, 8, side, side).requires_grad_())

    assert peak(32) <= 4.1 * peak(16)


@pytest.mark.parametrize(("score", "position"), [("cosine", "relative"), ("additive", "sincos")])
def test_every_way_of_computing_compiles_and_exports(score: str, position: str):
    module = attention(score, position)
    x = maps(1, 12, 5, 6).double().requires_grad_()
    expected = module(x)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=False)(x)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(torch.autograd.grad(compiled.sum(), x), torch.autograd.grad(expected.sum(), x))
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), expected)


@every
def test_half_precision_stays_close(score: str, position: str):
    module = randomise(QueryKeyValue(12, heads=2, score=score, position=position), scale=0.2)
    x = maps(2, 12, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y: Tensor = module(x)
    assert y.dtype == x.dtype
    torch.testing.assert_close(y, module(x), atol=5e-2, rtol=5e-2)


@every
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16"])
def test_shown_weights_are_those_that_half_precision_used(score: str, position: str, autocast: bool):
    module = randomise(QueryKeyValue(32, heads=2, score=score, position=position)).eval()
    x = maps(2, 32, 8, 8)
    if not autocast:
        module, x = module.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        shown = attention_maps(module, x)[""].float()
        q, k, v = module.project(x)
        mixed = module.scoring.mix(q, k, v, module.bias(x))
        staged = module.weighted_sum(module.normalise(module.score(q, k, module.bias(x))), v)
    assert mixed.dtype == staged.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), shown @ v.float(), atol=3e-2, rtol=3e-2)
    torch.testing.assert_close(mixed, staged, atol=3e-2, rtol=3e-2)


def test_a_narrow_map_keeps_one_unit_a_head():
    for channels, heads, reduction in ((16, 1, 64), (16, 4, 8), (4, 2, 8)):
        module = QueryKeyValue(channels, heads=heads, reduction=reduction)
        assert module.out.in_channels == heads
        assert module(maps(1, channels, 3, 3)).shape == (1, channels, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 12, "heads": 5}, r"heads=5 does not divide the width 12 // 1 = 12"),
        ({"channels": 4, "reach": 0}, r"positive, got 4, 1, 1, 0"),
        ({"channels": 4, "score": "product"}, r"'product' is not known; choose one of: scaled_dot, dot"),
        ({"channels": 4, "position": "learned"}, r"'learned' is not known; choose one of: none, sincos, relative"),
        ({"channels": 4, "gate": "soft"}, r"gate 'soft' is not known"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        QueryKeyValue(**arguments)
