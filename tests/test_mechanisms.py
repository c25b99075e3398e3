"""What every mechanism in the registry promises, whatever its paper: one battery, and the registry itself."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from mechanisms import maps, randomise, tiny
from torch import Tensor, nn

from temporal_attn.attention import CBAM, attention_maps, build, names
from temporal_attn.attention.gates import GATES
from temporal_attn.attention.registry import find

NAMES = names()
# A spatial transformer starts as the identity in any form, and all it does is exact only up to its grid's rounding.
RESAMPLES = {"stn"}
# Context at several rates, but every place and channel counts alike: there are no weights to show.
WITHOUT_WEIGHTS = {"aspp"}

every = pytest.mark.parametrize("name", NAMES)
training_or_not = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def assert_equal(name: str, one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-3 if name in RESAMPLES else 1e-5, rtol=1e-5)


@every
@training_or_not
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 5)], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_shape_is_kept(name: str, training: bool, size: tuple[int, int], batch: int):
    x = maps(batch, 16, *size)
    y = tiny(name).train(training)(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


@every
def test_an_empty_batch_stays_empty(name: str):
    assert tiny(name).eval()(maps(0, 16, 4, 5)).shape == (0, 16, 4, 5)


@every
@training_or_not
def test_blank_maps_give_numbers(name: str, training: bool):
    module = tiny(name).train(training)
    x = torch.zeros(2, 16, 4, 4, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


@every
def test_both_memory_layouts_are_kept_and_equal(name: str):
    module = randomise(tiny(name), scale=0.2).eval()
    outputs, gradients = [], []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = maps(2, 16, 6, 5).to(memory_format=layout).requires_grad_()
        outputs.append(module(x))
        assert outputs[-1].is_contiguous(memory_format=layout)
        gradients.append(torch.autograd.grad((outputs[-1] * maps(2, 16, 6, 5, seed=2)).sum(), x)[0])
    assert_equal(name, *outputs)
    assert_equal(name, *gradients)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_is_kept(name: str, dtype: torch.dtype):
    y = tiny(name).to(dtype).eval()(maps(2, 16, 4, 4).to(dtype))
    assert y.dtype == dtype


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_keeps_dtype_and_meaning(name: str, dtype: torch.dtype):
    module = tiny(name).eval()
    x = maps(2, 16, 6, 6).to(dtype)
    exact = module(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    # In half precision it stays; float32 may leave as what autocast computes in where the map itself is made anew.
    assert y.dtype in (dtype, torch.bfloat16)
    assert (y.float() - exact).norm() < 0.02 * exact.norm()


@every
@training_or_not
def test_gradient_is_that_of_finite_differences(name: str, training: bool):
    module = randomise(tiny(name, channels=8), scale=0.3).double().train(training)
    parameters = dict(module.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (x,))
        return out

    x = maps(2, 8, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


@every
@training_or_not
def test_identity_gate_starts_as_the_identity(name: str, training: bool):
    module = tiny(name, gate="identity").train(training)
    x = maps(4, 16, 8, 6) * 100
    if name in RESAMPLES:
        torch.testing.assert_close(module(x), x, atol=2e-4 * 100, rtol=0)
    else:
        assert torch.equal(module(x), x)


@every
@pytest.mark.parametrize("gate", GATES)
def test_every_gate_does_something(name: str, gate: str):
    module = tiny(name, gate=gate).eval()
    if gate == "identity" or name in RESAMPLES:
        randomise(module)
    x = maps(2, 16, 6, 6)
    assert (module(x) - x).abs().max() > 1e-3


@every
def test_same_input_same_output(name: str):
    x = maps(3, 16, 5, 5)
    first, second = randomise(tiny(name)).eval(), randomise(tiny(name)).eval()
    assert torch.equal(first(x), first(x))
    assert torch.equal(first(x), second(x))


@every
def test_a_map_does_not_depend_on_its_batch(name: str):
    module = randomise(tiny(name), scale=0.2).eval()
    x = maps(3, 16, 5, 5)
    assert_equal(name, module(x)[1:2], module(x[1:2]))


@every
def test_state_dict_round_trip(name: str):
    trained, fresh = randomise(tiny(name)).eval(), tiny(name).eval()
    fresh.load_state_dict(trained.state_dict())
    x = maps(2, 16, 5, 5)
    assert torch.equal(fresh(x), trained(x))
    assert torch.equal(copy.deepcopy(trained)(x), trained(x))


@every
@pytest.mark.parametrize("gate", GATES)
def test_gradient_reaches_every_parameter(name: str, gate: str):
    module = tiny(name, gate=gate)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):  # zeroed last layers let the ones below wait for one step
        optimiser.zero_grad()
        (module(maps(4, 16, 8, 8)) * maps(4, 16, 8, 8, seed=2)).sum().backward()
        optimiser.step()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 1e-6, key  # above rounding: a bias that a normalisation removes gets less


@every
@pytest.mark.parametrize("gate", GATES)
def test_printing_shows_the_gate(name: str, gate: str):
    assert gate in repr(tiny(name, gate=gate))


@every
def test_compiles_in_one_graph(name: str):
    module = randomise(tiny(name), scale=0.2).eval()
    x = maps(2, 16, 6, 5)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=False)
    assert_equal(name, compiled(x), module(x))


@every
def test_exports_for_batches_of_any_size(name: str):
    module = randomise(tiny(name), scale=0.2).eval()
    program = torch.export.export(module, (maps(2, 16, 6, 5),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = maps(3, 16, 6, 5)
    assert_equal(name, program.module()(x), module(x))


@every
def test_weights_can_be_read(name: str):
    module = randomise(tiny(name)).eval()
    x = maps(3, 16, 5, 4).requires_grad_()
    weights = attention_maps(module, x)
    assert bool(weights) != (name in WITHOUT_WEIGHTS)
    for key, weight in weights.items():
        assert weight.shape[0] == 3, key
        assert weight.isfinite().all(), key
        assert weight.requires_grad, key  # a loss may ask for them
    assert not any(child._forward_hooks for child in module.modules())  # listening leaves no trace


@every
def test_says_paper_equation_and_place(name: str):
    text = inspect.getdoc(find(name)) or ""
    for key in ("Paper:", "Equation:", "Place:", "Args:", "Shape:", "Raises:"):
        assert f"\n{key}" in text, key


@every
def test_wrong_arguments_are_named_in_one_line(name: str):
    for arguments, words in (({"channels": 0}, "positive"), ({"channels": 16, "gate": "tanh"}, "choose one of")):
        with pytest.raises(ValueError, match=words) as caught:
            find(name)(**arguments)
        assert "\n" not in str(caught.value)


@every
def test_every_mechanism_takes_a_gate(name: str):
    assert inspect.signature(find(name)).parameters["gate"].default in GATES
    assert isinstance(build(name, 64), nn.Module)


def test_build_by_name():
    module = build("cbam", 32, gate="identity", order="sc", reduction=4)
    assert isinstance(module, CBAM)
    assert module.order == "sc"
    assert module.channel_gate.kind == "identity"


def test_build_names_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"choose one of: .*\bcbam\b.*path of a class"):
        build("sebam", 8)
    with pytest.raises(ValueError, match=r"cbam.*colour.*it takes: reduction"):
        build("cbam", 8, colour="red")
