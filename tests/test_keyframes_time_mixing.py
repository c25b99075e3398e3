"""Backbones that mix time are found, and answered by the whole model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from temporal_attn.keyframes.scores import score_frames
from temporal_attn.keyframes.time_mixing import encode_clip, mixes_time
from temporal_attn.model import VideoClassifier
from temporal_attn.types import FrameFeatures, ModelOutput, UserError


class Frames(nn.Module):
    """Tokens are mean colours, the logits their sum over the frames that are seen."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self.eval()

    def encode_frames(self, video: Tensor, *, maps: bool = False) -> FrameFeatures:
        self.passes += 1
        return FrameFeatures(self.mix(video.float().mean((-2, -1)) / 255))

    def mix(self, tokens: Tensor) -> Tensor:
        return tokens

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        return ModelOutput((tokens * mask[..., None]).sum(1), mask.float())


class Shifted(Frames):
    """Each token takes half of what the frame before shows: a temporal shift."""

    def mix(self, tokens: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)
        return tokens + before / 2


def clip(frames: int = 5, floats: bool = False) -> Tensor:
    video = torch.randint(0, 256, (1, frames, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return video.float() / 128 - 1 if floats else video


def play_clip(model, video, mask=None, pts=None, *, target=None, removal="drop", evaluations=544, warn):
    encoded = encode_clip(model, video, evaluations=evaluations, warn=warn)
    return encoded.play(mask, pts, target=target, removal=removal)


@pytest.mark.parametrize("floats", [False, True])
def test_mixing_is_found(floats):
    assert mixes_time(Shifted(), clip(floats=floats))
    assert not mixes_time(Frames(), clip(floats=floats))
    assert not mixes_time(Shifted(), clip(1)), "one frame has nothing to mix with"


def test_even_a_video_without_any_change_shows_it():
    assert mixes_time(Shifted(), torch.zeros_like(clip()))
    assert mixes_time(Shifted(), torch.zeros_like(clip(floats=True)))


def test_our_backbones_do_not_mix():
    torch.manual_seed(0)
    model = VideoClassifier(3, "test_resnet", attention="cbam", dim=8, heads=2).eval()
    assert not mixes_time(model, torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8))


def test_a_model_that_says_so_is_believed():
    model = Frames()
    model.mixes_time = True
    assert mixes_time(model, clip())
    assert model.passes == 0


def test_a_motion_cue_takes_the_slow_way():
    torch.manual_seed(0)
    model = VideoClassifier(3, "test_resnet", attention=None, dim=8, heads=2, motion="shift").eval()
    said = []
    video = torch.randint(0, 256, (1, 3, 3, 32, 32), dtype=torch.uint8)
    game = play_clip(model, video, target=0, warn=said.append)
    assert "mixes time" in said[0]
    with torch.no_grad():
        alone = model(video[:, [0, 2]], pts=torch.tensor([[0.0, 2.0]])).logits
    assert game.value(torch.tensor([[True, False, True]])).item() == pytest.approx(game.worth(alone).item(), abs=1e-4)


def test_separable_frames_take_the_fast_way():
    model, said = Frames(), []
    game = play_clip(model, clip(), target=0, warn=said.append)
    passes = model.passes
    score_frames(game, "shapley")
    assert model.passes == passes == 2, "one to encode, one to find out"
    assert not said


def test_the_slow_way_is_announced_with_its_cost_and_sees_only_kept_frames():
    model, video, said = Shifted(), clip(), []
    game = play_clip(model, video, target=1, evaluations=32, warn=said.append)
    assert len(said) == 1
    assert "mixes time" in said[0]
    assert "32 passes" in said[0]
    for kept in ([0, 1, 2, 3, 4], [0, 2, 3], [4], [1, 4]):
        coalition = torch.zeros(1, 5, dtype=torch.bool)
        coalition[0, kept] = True
        alone = model.classify(model.encode_frames(video[:, kept]).tokens).logits
        assert game.value(coalition).item() == pytest.approx(game.worth(alone).item(), abs=1e-5)


def test_cached_tokens_would_have_been_wrong():
    """The frame after a removed one still shows it: what the slow way is for."""
    from temporal_attn.keyframes.game import FrameGame

    model, video = Shifted(), clip()
    slow = score_frames(play_clip(model, video, target=1, warn=lambda _: None), "exact").values
    fast = score_frames(FrameGame(model, model.encode_frames(video).tokens, target=1), "exact").values
    assert (slow - fast).abs().max() > 0.01


@pytest.mark.parametrize("removal", ["nearest", "mean"])
def test_other_removals_change_the_frames_themselves(removal):
    model, video = Shifted(), clip()
    game = play_clip(model, video, target=1, removal=removal, warn=lambda _: None)
    shown = video.clone()
    shown[0, 3:] = video[0, 2] if removal == "nearest" else video[0].float().mean(0).round().to(torch.uint8)
    worth = game.worth(model.classify(model.encode_frames(shown).tokens).logits).item()
    assert game.value(torch.tensor([[True, True, True, False, False]])).item() == pytest.approx(worth, abs=1e-5)


def test_padding_and_seconds_are_handed_on():
    class Timed(Shifted):
        def classify(self, tokens, mask=None, pts=None):
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
            return ModelOutput((tokens * (mask * pts)[..., None]).sum(1), mask.float())

    video, mask = clip(), torch.tensor([[True, True, True, False, False]])
    pts = torch.tensor([[1.0, 2.0, 4.0, 0.0, 0.0]])
    model = Timed()
    game = play_clip(model, video, mask, pts, target=0, warn=lambda _: None)
    alone = model.classify(model.encode_frames(video[:, [0, 2]]).tokens, None, pts[:, [0, 2]]).logits
    assert game.value(torch.tensor([[True, False, True]])).item() == pytest.approx(game.worth(alone).item(), abs=1e-5)


def test_what_reads_the_head_is_refused_on_the_slow_way():
    game = play_clip(Shifted(), clip(), target=0, warn=lambda _: None)
    with pytest.raises(UserError, match="shapley"):
        score_frames(game, "logit")


def test_integrated_gradients_say_that_none_comes_through():
    torch.manual_seed(0)
    model = VideoClassifier(3, "test_resnet", "none", None, dim=16, heads=2, motion="shift").eval()
    game = play_clip(model, torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8), warn=lambda text: None)
    with pytest.raises(UserError, match=r"ig needs gradients.*shapley"):
        score_frames(game, "ig")
