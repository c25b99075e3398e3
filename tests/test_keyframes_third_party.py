"""Other libraries as scorers: the same questions have the same answers."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.regions import grad_cam, hires_cam, region_maps
from temporal_attn.keyframes.scores import score_frames
from temporal_attn.keyframes.shapley import marginal_contributions
from temporal_attn.keyframes.third_party import captum_shapley, grad_cam_library
from temporal_attn.model import VideoClassifier
from temporal_attn.types import UserError
from tests.white_box import padded_clip, random_video, trained_classifier


@pytest.fixture(scope="module")
def game() -> FrameGame:
    model = trained_classifier()
    tokens, mask, pts = padded_clip(model, frames=8)
    index = torch.tensor([[0, 1, 1, 2, 3, 4, 5, 6]])
    tokens = tokens[:, index[0]]
    return FrameGame(model, tokens, mask, pts, index, target=2, removal="mean")


def game_of(model: VideoClassifier, video: Tensor) -> FrameGame:
    with torch.inference_mode():
        return FrameGame(model, model.encode_frames(video).tokens, target=1)


def test_captum_gives_the_same_values_for_the_same_orders(game):
    pytest.importorskip("captum", reason="the extra 'captum' is not installed")
    orders = torch.stack([torch.randperm(len(game), generator=torch.Generator().manual_seed(s)) for s in range(5)])
    theirs = captum_shapley(game, 5 * len(game), 0, lambda players, samples: iter(orders.tolist())).values
    ours = marginal_contributions(game, orders).mean(0).float()
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-3)


def test_captum_comes_to_the_exact_values_within_sampling_error(game):
    pytest.importorskip("captum", reason="the extra 'captum' is not installed")
    theirs = score_frames(game, "captum_shapley", budget=40 * len(game), seed=1).values
    exact = score_frames(game, "exact").values
    assert (theirs - exact).norm() < 0.35 * exact.norm()
    assert theirs.sum().item() == pytest.approx(exact.sum().item(), abs=1e-3)


def test_captums_ablation_is_leave_one_out_over_the_mean_frame(game):
    pytest.importorskip("captum", reason="the extra 'captum' is not installed")
    theirs, ours = (score_frames(game, method).values for method in ("captum_ablation", "loo"))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def test_integrated_gradients_are_captums(game):
    pytest.importorskip("captum", reason="the extra 'captum' is not installed")
    theirs, ours = (score_frames(game, method).values for method in ("captum_ig", "ig"))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("cam", "ours"), [("HiResCAM", hires_cam), ("GradCAM", grad_cam)])
def test_maps_are_those_of_pytorch_grad_cam(cam, ours):
    pytest.importorskip("pytorch_grad_cam", reason="the extra 'captum' is not installed")
    model, video = trained_classifier(), random_video(4)
    played = game_of(model, video)
    theirs = grad_cam_library(played, video, cam)
    expected = ours(played, video)
    torch.testing.assert_close(theirs.clamp(min=0), expected.clamp(min=0), atol=1e-5, rtol=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


def test_a_frozen_backbone_has_maps_too():
    pytest.importorskip("pytorch_grad_cam", reason="the extra 'captum' is not installed")
    torch.manual_seed(0)
    model = VideoClassifier(3, "test_resnet", attention=None, freeze="all", dim=8, heads=2).eval()
    torch.nn.init.normal_(model.head[1].weight)
    video = random_video(3)
    played = game_of(model, video)
    assert region_maps(played, video, "pytorch_grad_cam").shape == hires_cam(played, video).shape
    assert hires_cam(played, video).any()


def test_an_unknown_class_of_maps_names_some():
    pytest.importorskip("pytorch_grad_cam", reason="the extra 'captum' is not installed")
    video = random_video(3)
    with pytest.raises(UserError, match="LayerCAM"):
        grad_cam_library(game_of(trained_classifier(), video), video, "NoCAM")


@pytest.mark.parametrize("method", ["captum_shapley", "captum_ablation", "captum_ig"])
def test_without_the_library_the_extra_is_named(game, method, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"temporal-attn\[captum\]"):
        score_frames(game, method)
