"""The non-local block against timm, and against its equation in numpy."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from allocations import largest_tensor
from mechanisms import maps, randomise

from temporal_attn.attention import NonLocal, attention_maps
from temporal_attn.attention.fused import attend


def copied_from(theirs: torch.nn.Module, ours: NonLocal) -> NonLocal:
    """timm's weights; the bias before its normalisation moves into the running mean, where it has no effect at all."""
    with torch.no_grad():
        ours.query.load_state_dict(theirs.t.state_dict())
        for name in ("weight", "bias"):
            getattr(ours.key_value, name).copy_(torch.cat([getattr(theirs.p, name), getattr(theirs.g, name)]))
        ours.out.weight.copy_(theirs.z.weight)
        ours.norm.load_state_dict(theirs.norm.state_dict())
        ours.norm.running_mean -= theirs.z.bias
    return ours


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("side", [5, 13])
def test_equals_timm_with_copied_weights(training: bool, use_scale: bool, side: int):
    timm_layer = pytest.importorskip("timm.layers.non_local_attn").NonLocalAttn
    theirs = randomise(timm_layer(64, use_scale=use_scale), scale=0.2).train(training)
    ours = NonLocal(64, reduction=8, sub_sample=False, scale=64**-0.5 if use_scale else 1.0)
    ours = copied_from(theirs, ours).train(training)
    x = maps(2, 64, side, side)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(one), theirs(other)
    torch.testing.assert_close(y, expected, atol=2e-5, rtol=1e-5)
    upstream = maps(*x.shape, seed=2)
    (y * upstream).sum().backward()
    (expected * upstream).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)], ids=str)
def test_equals_a_literal_loop_with_pooled_keys(scale: float | None, size: tuple[int, int]):
    channels, (height, width) = 6, size
    module = randomise(NonLocal(channels, scale=scale, gate="residual")).double().eval()
    x = maps(2, channels, height, width).double()
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    used = 3**-0.5 if scale is None else scale

    def project(name: str, place: np.ndarray) -> np.ndarray:
        return state[f"{name}.weight"][:, :, 0, 0] @ place + state[f"{name}.bias"]

    expected = x.numpy().copy()
    for n, image in enumerate(x.numpy()):
        seen = [
            project("key_value", image[:, i : i + 2, j : j + 2].max((1, 2)))
            for i in range(0, height, 2)
            for j in range(0, width, 2)
        ]
        for i in range(height):
            for j in range(width):
                query = project("query", image[:, i, j])
                weights = np.exp([used * query @ both[:3] for both in seen])
                mixed = sum(w * both[3:] for w, both in zip(weights / weights.sum(), seen, strict=True))
                z = state["out.weight"][:, :, 0, 0] @ mixed
                z = (z - state["norm.running_mean"]) / np.sqrt(state["norm.running_var"] + module.norm.eps)
                expected[n, :, i, j] += state["norm.weight"] * z + state["norm.bias"]
    torch.testing.assert_close(module(x), torch.from_numpy(expected))


def test_shown_weights_are_over_the_pooled_places_and_those_that_were_used():
    module = randomise(NonLocal(8)).double().eval()
    x = maps(2, 8, 5, 4).double()
    weights = attention_maps(module, x)[""]
    assert weights.shape == (2, 1, 20, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 20).double())
    mixed = (weights @ module.project(x)[2])[:, 0].mT.reshape(2, 4, 5, 4)
    torch.testing.assert_close(x + module.norm(module.out(mixed)), module(x))


def test_the_paper_starts_as_the_identity_and_learns_from_there():
    module, x = NonLocal(8), maps(2, 8, 4, 4)
    assert torch.equal(module(x), x)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    (module(x) * maps(2, 8, 4, 4, seed=2)).sum().backward()
    optimiser.step()
    assert not torch.equal(module(x), x)


@pytest.mark.parametrize("gate", ["sigmoid", "residual"])
def test_a_fresh_block_that_may_speak_says_little_before_it_has_statistics(gate: str):
    torch.manual_seed(0)
    module, x = NonLocal(64, gate=gate), maps(4, 64, 14, 14)

    def change(training: bool) -> float:
        return ((module.train(training)(x) - x).norm() / x.norm()).item()

    assert 1e-3 < change(training=False) < 1e-2  # first: training moves the statistics
    assert 0.05 < change(training=True) < 0.2


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bfloat16"])
def test_shown_weights_are_those_that_half_precision_used(autocast: bool):
    module = randomise(NonLocal(32)).eval()
    x = maps(2, 32, 8, 8)
    if not autocast:
        module, x = module.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        shown = attention_maps(module, x)[""]
        q, k, v = module.project(x)
    assert q.dtype == torch.bfloat16
    torch.testing.assert_close(shown, (q.float() @ k.float().mT).softmax(-1))
    torch.testing.assert_close(attend(q, k, v).float(), shown @ v.float(), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("sub_sample", [False, True])
def test_memory_grows_with_places(sub_sample: bool):
    def peak(side: int) -> int:
        return largest_tensor(NonLocal(16, sub_sample=sub_sample), maps(2, 16, side, side).requires_grad_())

    assert peak(32) <= 4.1 * peak(16)


@pytest.mark.parametrize("arguments", [{"channels": 0}, {"channels": 8, "reduction": 0}, {"channels": 8, "gate": "x"}])
def test_wrong_arguments_are_named(arguments: dict):
    with pytest.raises(ValueError, match=r"positive, got|choose one of"):
        NonLocal(**arguments)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_by_inductor_takes_maps_of_many_sizes_in_training():
    torch._dynamo.reset()  # what other tests compiled of this code decides which sizes count as varying
    module = randomise(NonLocal(16), scale=0.3).train()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True)
    for size in ((8, 8), (7, 9), (5, 4)):  # the second makes sizes variables, the third is one
        one, other = (maps(2, 16, *size).requires_grad_() for _ in range(2))
        y, expected = compiled(one), module(other)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
        y.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)
