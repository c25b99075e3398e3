"""The checks of an inspection: each of its doubts arises where it should, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from temporal_attn.inference import LoadedClassifier
from temporal_attn.keyframes import inspect_video, inspect_videos
from temporal_attn.keyframes.conditions import check_measured, parse_condition
from temporal_attn.keyframes.game import FrameScores
from temporal_attn.keyframes.report import render_report
from temporal_attn.keyframes.scores import METHODS, Method
from temporal_attn.types import FrameFeatures, ModelOutput, UserError
from tests.test_inspect import COLOURS, colour_classifier, colour_video, spec


class Learned(nn.Module):
    """Colours by a layer: with the weights of the class it tells them apart, shuffled it tells something else."""

    mixes_time = False

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def encode_frames(self, video: Tensor, *, maps: bool = False) -> FrameFeatures:
        return FrameFeatures(video.float().mean((-2, -1)) / 255)

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        assert mask is not None
        said = (tokens * mask[..., None]).sum(1)
        return ModelOutput(torch.stack([said @ row for row in self.weight], 1), mask.float())


def learned(weight: Tensor, frames: int = 8) -> LoadedClassifier:
    return LoadedClassifier(Learned(weight).eval(), COLOURS, spec(frames), "learned.ckpt")  # type: ignore[arg-type]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return colour_video(tmp_path / "clip.mp4", "rg-bbr-g")


@pytest.fixture
def longer(tmp_path: Path) -> Path:
    return colour_video(tmp_path / "longer.mp4", "rg-bbr-grb--rg")


def test_an_exact_score_has_no_halves_and_a_head_of_its_own(clip):
    found = inspect_video(learned(4 * torch.eye(3)), clip).faithfulness
    assert found.split_half_tau is None, "256 coalitions of 8 frames are all of them"
    assert -1 <= found.random_head_tau < 0.5
    assert found.reliable


def test_where_something_is_sampled_two_halves_are_compared(longer):
    for method in ("auto", "shapley"):
        found = inspect_video(learned(4 * torch.eye(3), 12), longer, method=method).faithfulness
        assert found.split_half_tau is not None, method
    assert inspect_video(learned(torch.eye(3), 12), longer, method="loo").faithfulness.split_half_tau is None


def test_halves_that_disagree_are_a_doubt(clip, monkeypatch):
    def drawn(game, budget, seed):
        return FrameScores(torch.randn(len(game), generator=torch.Generator().manual_seed(seed)))

    how = Method(drawn, "", True, True, "drawn at random", sampled=True)
    monkeypatch.setitem(METHODS, "drawn", how)
    found = inspect_video(learned(4 * torch.eye(3)), clip, method="drawn", classes=0).faithfulness
    assert found.split_half_tau < 0.5
    assert any("halves of the budget disagree" in doubt for doubt in found.doubts)


def test_scores_that_any_head_gets_are_a_doubt(clip, monkeypatch):
    how = Method(lambda game, budget, seed: FrameScores(game.tokens[0, :, 0]), "", True, True, "how red a frame is")
    monkeypatch.setitem(METHODS, "redness", how)
    found = inspect_video(learned(4 * torch.eye(3)), clip, method="redness", classes=0).faithfulness
    assert found.random_head_tau == pytest.approx(1)
    assert any("shuffled head" in doubt for doubt in found.doubts)


def test_scores_that_do_not_add_up_are_a_doubt(clip, monkeypatch):
    exact = METHODS["exact"]
    more = replace(exact, score=lambda *asked: FrameScores(exact.score(*asked).values + 1))
    monkeypatch.setitem(METHODS, "exact", more)
    found = inspect_video(learned(4 * torch.eye(3)), clip, method="exact", classes=0).faithfulness
    assert any("do not sum" in doubt for doubt in found.doubts)


def test_a_head_without_anything_to_shuffle_is_not_held_against_the_scores(clip):
    found = inspect_video(colour_classifier(), clip).faithfulness
    assert found.random_head_tau is None
    assert found.reliable


def test_scores_that_are_all_equal_have_no_order_to_agree_in(tmp_path):
    grey = colour_video(tmp_path / "grey.mp4", "--------")
    found = inspect_video(learned(4 * torch.eye(3)), grey)
    assert found.faithfulness.random_head_tau is None
    found.save(tmp_path / "out", ["json"])


def test_stretches_of_a_long_video_are_checked_too(tmp_path):
    video = colour_video(tmp_path / "long.mp4", "--rr--gg--bb--rrgg--bbrr--gg--bb--rr--gg--bb--rrgg--bbrr--gg", fps=1)
    found = inspect_video(learned(4 * torch.eye(3)), video, max_step_s=1, regions="none", classes=0)
    assert len(found.stretches) > 9, "so many that stretches are sampled"
    assert found.faithfulness.split_half_tau is not None
    assert found.faithfulness.random_head_tau is not None
    page = render_report(found)
    assert "Stretches taken in the order of" in page
    assert "Without the top stretch the class" in page


def test_a_backbone_that_mixes_time_is_shuffled_as_a_whole(tmp_path):
    class Mixing(Learned):
        mixes_time = True

    loaded = LoadedClassifier(Mixing(4 * torch.eye(3)).eval(), COLOURS, spec(4), "mixing.ckpt")  # type: ignore[arg-type]
    found = inspect_video(loaded, colour_video(tmp_path / "clip.mp4", "rgb-"), regions="none", classes=0)
    assert found.faithfulness.random_head_tau is not None


@pytest.mark.parametrize("method", ["loo", "exact", "captum_ig"])
def test_a_condition_that_a_method_can_never_meet_is_refused(method, tmp_path):
    with pytest.raises(UserError, match=f"fail_if: split_half_tau .*{method} draws none.*auto, shapley"):
        inspect_videos(["x.mp4"], "no.ckpt", tmp_path, method=method, fail_if="split_half_tau<0.5")
    check_measured(parse_condition("split_half_tau<0.5"), "shapley")
    check_measured(parse_condition("doubts>0"), method)
