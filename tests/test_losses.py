"""Losses against torch, sklearn and their equations in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from temporal_attn import losses

K = 5
WEIGHTS = [0.5, 2.0, 1.0, 0.1, 3.0]
COUNTS = [100, 40, 5, 1, 300]
NAMES = losses.names()


def batch(size: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(size, K, generator=generator), torch.randint(K, (size,), generator=generator)


def mixed(size: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, two labels a clip, and the share of the first."""
    logits, one = batch(size)
    _, other = batch(size, seed=1)
    return logits, one, other, torch.rand(size, generator=torch.Generator().manual_seed(2))


def soften(one: torch.Tensor, other: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    return lam[:, None] * F.one_hot(one, K) + (1 - lam[:, None]) * F.one_hot(other, K)


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs(smoothing: float, weights: list[float] | None) -> None:
    logits, label = batch()
    given_weights = None if weights is None else torch.tensor(weights)
    expected = F.cross_entropy(logits, label, given_weights, label_smoothing=smoothing)
    assert torch.allclose(losses.CrossEntropy(smoothing, weights)(logits, label), expected, rtol=1e-5)


def test_cross_entropy_of_shares_is_torchs() -> None:
    logits, one, other, lam = mixed()
    label = soften(one, other, lam)
    expected = F.cross_entropy(logits, label, label_smoothing=0.1)
    assert torch.allclose(losses.CrossEntropy(0.1)(logits, label), expected, rtol=1e-5)


def test_cross_entropy_is_sklearns_log_loss() -> None:
    logits, label = batch()
    weights = np.array(WEIGHTS)[label.numpy()]
    expected = log_loss(label.numpy(), logits.double().softmax(1).numpy(), labels=range(K), sample_weight=weights)
    assert float(losses.CrossEntropy(class_weights=WEIGHTS)(logits, label)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_index_means_its_one_hot_row(name: str) -> None:
    logits, label = batch()
    loss = losses.build(name, K, 0.1, WEIGHTS, COUNTS)
    assert torch.allclose(loss(logits, label), loss(logits, F.one_hot(label, K).float()), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_mixed_label_costs_the_mean_of_both_losses(name: str) -> None:
    """The mixing loss of mixup: lam · L(z, a) + (1 - lam) · L(z, b), clip by clip."""
    logits, one, other, lam = mixed()
    loss = losses.build(name, K, 0.1, None, COUNTS)
    each = [
        torch.stack([loss(logits[i : i + 1], label[i : i + 1]) for i in range(len(logits))]) for label in (one, other)
    ]
    expected = (lam * each[0] + (1 - lam) * each[1]).mean()
    assert torch.allclose(loss(logits, soften(one, other, lam)), expected, rtol=1e-5)


def test_balanced_softmax_is_its_equation() -> None:
    """Ren et al. 2020, equation 3: p_k = n_k exp(z_k) / Σ_j n_j exp(z_j)."""
    logits, label = batch()
    z, n = logits.double().numpy(), np.array(COUNTS)
    p = n * np.exp(z) / (n * np.exp(z)).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(len(z)), label]).mean()
    assert float(losses.BalancedSoftmax(COUNTS)(logits, label)) == pytest.approx(expected, rel=1e-5)


def test_balanced_softmax_of_equal_counts_is_cross_entropy() -> None:
    logits, label = batch()
    assert torch.allclose(losses.BalancedSoftmax([9] * K, 0.1)(logits, label), losses.CrossEntropy(0.1)(logits, label))


def test_balanced_softmax_learns_the_balanced_answer() -> None:
    """Where two classes look alike and one has nine times the videos, the logits stay equal; cross-entropy's do not."""
    label = torch.tensor([0] * 9 + [1])
    gap = {}
    for name in ("cross_entropy", "balanced_softmax"):
        logits = torch.zeros(2, requires_grad=True)
        loss = losses.build(name, 2, class_counts=[9, 1])
        optimizer = torch.optim.LBFGS([logits], max_iter=50)

        def closure(logits=logits, loss=loss, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(logits.expand(10, 2), label)
            value.backward()
            return value

        optimizer.step(closure)
        gap[name] = float(logits.detach().diff().neg())
    assert gap["cross_entropy"] == pytest.approx(np.log(9), abs=1e-3)
    assert gap["balanced_softmax"] == pytest.approx(0, abs=1e-3)


def test_a_class_without_videos_keeps_the_loss_finite() -> None:
    logits, label = batch()
    for name, weights in (("balanced_softmax", None), ("cross_entropy", "balanced")):
        loss = losses.build(name, K, 0.1, weights, [0, 3, 4, 5, 6])(logits, label)
        assert torch.isfinite(loss)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_its_equation(gamma: float) -> None:
    """Lin et al. 2017, equation 5: FL = -α (1 - p_t)^γ log p_t."""
    logits, label = batch()
    log_p = log_softmax(logits.double().numpy())[np.arange(len(label)), label]
    alpha = np.array(WEIGHTS)[label.numpy()]
    expected = (alpha * (1 - np.exp(log_p)) ** gamma * -log_p).sum() / alpha.sum()
    found = float(losses.FocalLoss(gamma, class_weights=WEIGHTS)(logits, label))
    assert found == pytest.approx(expected, rel=1e-4)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, label = batch()
    found = losses.FocalLoss(0.0, 0.1, WEIGHTS)(logits, label)
    assert torch.allclose(found, losses.CrossEntropy(0.1, WEIGHTS)(logits, label))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_certain_answer_has_finite_gradients(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    losses.FocalLoss(gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_binary_is_its_equation() -> None:
    logits, _ = batch()
    label = torch.randint(2, (7, K), generator=torch.Generator().manual_seed(3)).float()
    z, y = logits.double().numpy(), 0.8 * label.double().numpy() + 0.1
    p, v = 1 / (1 + np.exp(-z)), np.array(WEIGHTS)
    expected = -(v * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(losses.BinaryCrossEntropy(0.2, WEIGHTS)(logits, label)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    logits, one, other, lam = mixed(3)
    loss = losses.build(name, K, 0.1, WEIGHTS, COUNTS).double()
    label = soften(one, other, lam.double())
    double = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, label), [double])


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 20), st.integers(0, 1000))
def test_distillation_is_its_equation(temperature: float, seed: int) -> None:
    student, _ = batch(seed=seed)
    teacher, _ = batch(seed=seed + 1)
    own = log_softmax(student.double().numpy() / temperature)
    wanted = log_softmax(teacher.double().numpy() / temperature)
    expected = temperature**2 * (np.exp(wanted) * (wanted - own)).sum(1).mean()
    found = losses.distillation_loss(student, teacher, temperature)
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    # probabilities that were stored say the same as the logits they came from
    stored = losses.distillation_loss(student, teacher.softmax(1).log(), temperature)
    assert float(stored) == pytest.approx(float(found), rel=1e-3, abs=1e-5)


def test_distillation_pulls_towards_the_teacher_and_stops_there() -> None:
    teacher, _ = batch()
    student = teacher.clone().requires_grad_()
    losses.distillation_loss(student, teacher, 3.0).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


def test_distillation_at_high_temperature_matches_centred_logits() -> None:
    """Hinton et al., equation 4: as T grows, the gradient becomes that of half the squared difference, over K."""
    student, teacher = batch()[0], batch(seed=1)[0]
    student.requires_grad_()
    losses.distillation_loss(student, teacher, 1e3).backward()
    difference = student.detach() - teacher
    centred = difference - difference.mean(1, keepdim=True)
    assert student.grad is not None
    assert torch.allclose(student.grad, centred / K / len(student), atol=2e-3)


def test_counts_and_balanced_weights() -> None:
    label = [0, 0, 0, 1, 2, 2]
    counts = losses.count_classes([*label, None], 3)
    assert counts == [3, 1, 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=label)
    assert losses.balanced_weights(counts) == pytest.approx(expected)
    assert losses.count_classes([(0, 2), (), (2,)], 4) == [1, 0, 2, 0]


def test_weights_are_no_part_of_a_checkpoint() -> None:
    for name in NAMES:
        assert not losses.build(name, K, 0.1, WEIGHTS, COUNTS).state_dict()


def test_a_batch_that_weighs_nothing_costs_nothing() -> None:
    logits, _ = batch(2)
    loss = losses.CrossEntropy(class_weights=[0.0, 1.0, 1.0, 1.0, 1.0])
    assert float(loss(logits, torch.zeros(2, dtype=torch.long))) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "hinge"}, "choose one of: cross_entropy"),
        ({"name": "focal", "focal_gamma": -1.0}, "gamma"),
        ({"name": "focal", "label_smoothing": 1.0}, "label_smoothing"),
        ({"name": "balanced_softmax"}, "training videos of each of the 5 classes"),
        ({"name": "focal", "class_weights": "balanced"}, "training videos of each of the 5 classes"),
        ({"name": "focal", "class_weights": "even", "class_counts": COUNTS}, "'balanced', a list, or null"),
        ({"name": "focal", "class_weights": [1.0]}, "must be 5 numbers"),
        ({"name": "focal", "class_weights": [1.0, 1.0, 1.0, 1.0, -1.0]}, "none of them negative"),
        ({"name": "binary", "class_weights": [1.0, 1.0, 1.0, 1.0, math.nan]}, "none of them negative"),
        ({"name": "focal", "class_weights": [1.0, 1.0, 1.0, 1.0, math.inf]}, "or infinite"),
        ({"name": "focal", "focal_gamma": math.nan}, "got nan"),
    ],
)
def test_wrong_settings_say_what_is_wrong(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses.build(num_classes=K, **options)
