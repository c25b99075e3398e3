"""Captum and pytorch-grad-cam as scorers, for whoever knows and wants them. Extra: ``temporal-attn[captum]``.

Captum replaces what it removes by a baseline, so its scores are those of the removal ``mean``: asked the same
questions, it gives the same answers as our own methods, one coalition at a time.

Captum: https://captum.ai, Kokhlikyan et al., 2020, https://arxiv.org/abs/2009.07896; pytorch-grad-cam: Gildenblat et
al., https://github.com/jacobgil/pytorch-grad-cam.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from temporal_attn.keyframes.game import FrameGame, FrameScores
from temporal_attn.keyframes.gradients import STEPS
from temporal_attn.keyframes.reading import gradients_on
from temporal_attn.model import VideoClassifier
from temporal_attn.types import UserError

__all__ = ["captum_ablation", "captum_integrated_gradients", "captum_shapley", "grad_cam_library"]

Permutations = Callable[[int, int], Iterable[list[int]]]
"""(players, samples) -> orders; the form of Captum's own generator."""


def captum_shapley(game: FrameGame, budget: int, seed: int, permutations: Permutations | None = None) -> FrameScores:
    """``ShapleyValueSampling`` over frames, with the mean frame as baseline.

    Args:
        game: The clip and the question.
        budget: Evaluations; an order takes one a player.
        seed: Source of the orders.
        permutations: Orders to take instead of random ones.

    Raises:
        UserError: Captum is not installed.
    """
    sampler = _captum("ShapleyValueSampling")(game.answer)
    if permutations is not None:
        sampler.permutation_generator = permutations
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shares = sampler.attribute(**_question(game), n_samples=max(1, budget // len(game)), perturbations_per_eval=1)
    return FrameScores(shares[0, game.players, 0].float().cpu())


def captum_ablation(game: FrameGame, budget: int, seed: int) -> FrameScores:
    """``FeatureAblation`` over frames: leave-one-out, with the mean frame in the place of the one left out.

    Raises:
        UserError: Captum is not installed.
    """
    with torch.no_grad():
        lost = _captum("FeatureAblation")(game.answer).attribute(**_question(game))
    return FrameScores(lost[0, game.players, 0].float().cpu())


def captum_integrated_gradients(game: FrameGame, budget: int, seed: int) -> FrameScores:
    """``IntegratedGradients`` on tokens, from the mean frame.

    Raises:
        UserError: Captum is not installed.
    """
    with gradients_on():
        question = {name: value.clone() for name, value in _question(game).items() if name != "feature_mask"}
        shares = _captum("IntegratedGradients")(game.answer).attribute(**question, n_steps=STEPS)
    return FrameScores(game.of_players(shares[0].sum(-1)))


def grad_cam_library(game: FrameGame, video: Tensor, cam: str = "GradCAM") -> Tensor:
    """Maps by a class of pytorch-grad-cam on the backbone's last maps, before its scaling frame by frame.

    Args:
        game: The clip and the question, on the tokens of a `VideoClassifier`.
        video: (1, T, 3, H, W) the same clip.
        cam: Name of a class, e.g. ``GradCAM``, ``GradCAMPlusPlus``, ``HiResCAM`` or ``LayerCAM``.

    Returns:
        (P, h, w) float32 CPU, on one scale for the clip.

    Raises:
        UserError: pytorch-grad-cam is not installed or has no such class, or the model is no `VideoClassifier`.
    """
    make = getattr(_library("pytorch_grad_cam", "grad-cam"), cam, None)
    if make is None:
        raise UserError(
            f"regions: pytorch-grad-cam has no {cam!r}; take GradCAM, GradCAMPlusPlus, HiResCAM or LayerCAM"
        )
    net = _FromMaps(game)
    with torch.no_grad():
        maps = net.model.backbone.maps(video[0, game.players.to(video.device)])
    with gradients_on(), make(net, [net.maps]) as engine:
        maps = maps.clone().requires_grad_()
        torch.autograd.grad(net(maps).sum(), maps)
        caught = engine.activations_and_grads
        raw = engine.get_cam_image(
            maps, net.maps, [], caught.activations[0].numpy(), caught.gradients[0].numpy(), eigen_smooth=False
        )
    return torch.as_tensor(raw).float()


class _FromMaps(nn.Module):
    """What comes after the maps, as that library sees it: a net with a place to listen at."""

    def __init__(self, game: FrameGame) -> None:
        super().__init__()
        if not isinstance(game.model, VideoClassifier):
            raise UserError(
                f"regions: need the maps of a VideoClassifier, and the model is a {type(game.model).__name__}"
            )
        self.game, self.model, self.maps = game, game.model, nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        tokens = self.model.pool_maps(self.maps(maps))
        return self.game.answer((self.game.copies.T.to(tokens) @ tokens)[None])


def _question(game: FrameGame) -> dict[str, Tensor]:
    """Captum's arguments: tokens, the mean frame as baseline, and which tokens are one player."""
    player = game.copies.float().argmax(0).to(game.tokens.device)
    # Padding goes with the first player: nobody sees it.
    return {
        "inputs": game.tokens,
        "baselines": game.mean_frame().expand(game.tokens.shape).contiguous(),
        "feature_mask": player[None, :, None].expand(game.tokens.shape).contiguous(),
    }


def _captum(name: str) -> Any:  # noqa: ANN401 - a class of an optional library
    return getattr(_library("captum.attr", "captum"), name)


def _library(module: str, package: str) -> Any:  # noqa: ANN401
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"method: needs {package}, which is not installed ({error}); pip install 'temporal-attn[captum]'"
        ) from None
