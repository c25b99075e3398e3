"""What is read from a head against autograd on attention that is written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.reading import read_attention, read_pool
from temporal_attn.keyframes.scores import score_frames
from temporal_attn.model import VideoClassifier
from tests.white_box import padded_clip, trained_classifier


def written_out(
    model: VideoClassifier, tokens: Tensor, mask: Tensor, pts: Tensor
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The head with explicit softmax matrices: logits, A of each layer (heads, T, T), pool weights (heads, T)."""
    x, matrices = model.project(tokens), []
    x = torch.where(mask[..., None], x, 0)
    seconds = torch.where(mask, pts - pts.masked_fill(~mask, torch.inf).amin(1, keepdim=True), 0).float()
    for block in model.temporal.blocks:
        batch, frames, dim = x.shape
        q, k, v = block.qkv(block.norm1(x)).view(batch, frames, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
        angles = block.rotary.angles(seconds)
        q, k = block.rotary(q, angles), block.rotary(k, angles)
        a = (
            (q @ k.transpose(-1, -2) / np.sqrt(dim // block.heads))
            .masked_fill(~mask[:, None, None], -torch.inf)
            .softmax(-1)
        )
        a.retain_grad()
        matrices.append(a)
        x = x + block.out((a @ v).transpose(1, 2).reshape(batch, frames, dim))
        x = x + block.mlp(block.norm2(x))
    x, pool = model.temporal.norm(x), model.temporal.pool
    weights = pool.head_weights(x, mask)
    weights.retain_grad()
    values = pool.value(x).view(*x.shape[:2], pool.heads, -1)
    pooled = torch.einsum("bht,bthd->bhd", weights, values).flatten(1)
    return model.head(pool.out(pooled)), matrices, weights


@pytest.fixture(scope="module")
def reference():
    model = trained_classifier()
    tokens, mask, pts = padded_clip(model)
    logits, matrices, weights = written_out(model, tokens, mask, pts)
    game = FrameGame(model, tokens, mask, pts, target=2)
    torch.testing.assert_close(logits.detach(), game.full.logits, atol=1e-5, rtol=1e-5)
    game.worth(logits)[0].backward()
    return game, matrices, weights


def test_attention_and_its_gradient_are_those_of_the_written_out_head(reference):
    game, matrices, weights = reference
    pool, layers = read_attention(game)
    assert len(layers) == 2
    real = game.real
    for layer, matrix in zip(layers, matrices, strict=True):
        torch.testing.assert_close(layer.weights[:, real], matrix[0][:, real].detach(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(layer.gradient[:, :, real], matrix.grad[0][:, :, real], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(pool.weights, weights[0].detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(pool.of_weights[:, real], weights.grad[0][:, real], atol=1e-6, rtol=1e-4)


def test_chefer_and_rollout_by_loops_over_matrices(reference):
    game, matrices, weights = reference
    relevance = rollout = np.eye(6)
    for matrix in matrices:
        a, gradient = matrix[0].detach().double().numpy(), matrix.grad[0].double().numpy()
        relevance = relevance + np.maximum(a * gradient, 0).mean(0) @ relevance
        rollout = (a.mean(0) + np.eye(6)) / 2 @ rollout
    w, gradient = weights[0].detach().double().numpy(), weights.grad[0].double().numpy()
    chefer = (np.maximum(w * gradient, 0).mean(0) @ relevance)[:5]
    assert score_frames(game, "chefer").values.numpy() == pytest.approx(chefer, abs=1e-5)
    rolled = score_frames(game, "rollout_pool").values
    assert rolled.numpy() == pytest.approx((w.mean(0) @ rollout)[:5], abs=1e-6)
    assert rolled.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_pools_gradient_is_that_of_its_scores(reference):
    """By a finite difference of the log of each weight before the softmax."""
    game, _, _ = reference
    pool = read_pool(game)
    logs, step = pool.weights.double().clamp(min=1e-30).log(), 1e-4
    for player, position in enumerate(game.players.tolist()):
        worth = []
        for sign in (1, -1):
            moved = logs.clone()
            moved[:, position] += sign * step
            worth.append((moved.softmax(-1) * pool.of_weights.double()).sum())
        expected = float((worth[0] - worth[1]) / (2 * step))
        assert score_frames(game, "grad_pool").values[player].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("spatial_tokens", [1, 2])
@pytest.mark.parametrize("temporal", ["mean", "attention_pool", "transformer"])
@pytest.mark.parametrize("target", [1, (2, 0)])
def test_the_logit_is_the_sum_of_its_shares(temporal, target, spatial_tokens):
    model = trained_classifier(temporal, spatial_tokens=spatial_tokens)
    game = FrameGame(model, *padded_clip(model), target=target)
    shares = score_frames(game, "logit").values
    assert shares.sum().item() == pytest.approx(game.v_full - game.v_empty, abs=1e-5)


def test_a_frames_scores_are_those_of_its_cells():
    """One frame of four cells is what four frames of the same second are to the encoder."""
    model = trained_classifier(spatial_tokens=2)
    tokens, mask, pts = padded_clip(model)
    game = FrameGame(model, tokens, mask, pts, target=2)
    cells = model.project(tokens).view(1, 24, -1)

    apart = trained_classifier()
    apart.project = torch.nn.Identity()
    apart.temporal.load_state_dict(model.temporal.encoder.state_dict())
    apart.head.load_state_dict(model.head.state_dict())
    other = FrameGame(apart, cells.detach(), mask.repeat_interleave(4, 1), pts.repeat_interleave(4, 1), target=2)
    torch.testing.assert_close(game.full.logits, other.full.logits)
    for method in ("attn_pool", "rollout_pool", "grad_pool", "logit", "chefer"):
        expected = score_frames(other, method).values.view(5, 4).sum(1)
        torch.testing.assert_close(score_frames(game, method).values, expected, atol=1e-5, rtol=1e-4)


def test_without_mixing_shares_of_the_mean_pool_are_what_frames_say_alone():
    model = trained_classifier("mean")
    tokens, mask, pts = padded_clip(model)
    game = FrameGame(model, tokens, mask, pts, target=0)
    alone = score_frames(game, "loi").values
    torch.testing.assert_close(score_frames(game, "logit").values, alone / 5, atol=1e-5, rtol=1e-5)


def test_integrated_gradients_sum_to_the_distance_from_the_mean_frame():
    model = trained_classifier()
    game = FrameGame(model, *padded_clip(model), target=1)
    everywhere_mean = game.under("mean").v_empty
    assert score_frames(game, "ig").values.sum().item() == pytest.approx(game.v_full - everywhere_mean, abs=1e-3)


def test_gradient_times_token_would_vanish_before_the_normalisation():
    """Why it is no method: the sum over channels of token times gradient is 0 whatever the frame shows."""
    model = trained_classifier()
    tokens, mask, pts = padded_clip(model)
    game = FrameGame(model, tokens, mask, pts, target=1)
    given = tokens.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(game.answer(given).sum(), given)
    assert (given * gradient).sum(-1).abs().max() < 1e-3 * (given * gradient).abs().sum(-1).max()
