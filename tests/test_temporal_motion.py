"""Motion cues against loops over frames, and as parts of a classifier that mixes time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from temporal_attn.keyframes.time_mixing import encode_clip, mixes_time
from temporal_attn.model import VideoClassifier
from temporal_attn.temporal.motion import MOTION, TemporalDifference, TemporalShift, build_motion
from temporal_attn.types import UserError

pytest.importorskip("timm")


def maps(batch: int = 2, frames: int = 5, channels: int = 8) -> Tensor:
    return torch.randn(batch, frames, channels, 3, 4, generator=torch.Generator().manual_seed(0))


def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


MASK = torch.tensor([[True, True, False, True, True], [False, True, True, False, False]])


@pytest.mark.parametrize("name", MOTION)
def test_starts_as_the_identity(name: str):
    assert torch.equal(build_motion(name, 8)(maps(), torch.ones(2, 5, dtype=torch.bool)), maps())


@pytest.mark.parametrize("name", MOTION)
def test_padding_is_nobodys_neighbour(name: str):
    module = randomise(build_motion(name, 8))
    x = maps()
    x[~MASK] = float("nan")
    got = module(x, MASK)
    for row, real in enumerate(MASK):
        alone = module(x[row : row + 1, real], torch.ones(1, int(real.sum()), dtype=torch.bool))
        torch.testing.assert_close(got[row, real], alone[0])


@pytest.mark.parametrize("name", MOTION)
def test_a_frame_reaches_its_neighbours_and_nobody_else(name: str):
    module = randomise(build_motion(name, 8))
    x, every = maps(1), torch.ones(1, 5, dtype=torch.bool)
    changed = x.clone()
    changed[:, 2] += 1
    drift = (module(changed, every) - module(x, every)).abs().amax((0, 2, 3, 4))
    reached = [2, 3] if name == "difference" else [1, 2, 3]
    assert [t for t in range(5) if drift[t] > 1e-6] == reached


def test_shift_with_full_gamma_is_the_papers():
    module = TemporalShift(8)
    nn.init.ones_(module.gamma)
    x = maps()
    expected = x.clone()
    for t in range(5):
        expected[:, t, 0] = x[:, t + 1, 0] if t < 4 else 0  # an eighth of the channels each
        expected[:, t, 1] = x[:, t - 1, 1] if t > 0 else 0
    torch.testing.assert_close(module(x, torch.ones(2, 5, dtype=torch.bool)), expected)


def test_difference_is_the_loop_over_frames():
    module = randomise(TemporalDifference(8, reduction=2))
    assert isinstance(module, TemporalDifference)
    x = maps()
    got = module(x, torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(got[:, 0], x[:, 0])
    for t in range(1, 5):
        change = module.align(module.reduce(x[:, t])) - module.reduce(x[:, t - 1])
        torch.testing.assert_close(got[:, t], x[:, t] + module.expand(change.relu()))


@pytest.mark.parametrize("name", MOTION)
def test_gradient_reaches_every_parameter(name: str):
    module = build_motion(name, 8)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        module(maps(), MASK)[MASK].square().sum().backward()
        optimiser.step()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_bad_arguments_are_named():
    for call, words in (
        (lambda: build_motion("flow", 8), "choose one of: difference, shift"),
        (lambda: TemporalShift(4), "share"),
        (lambda: TemporalDifference(8, 9), "reduction=9"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(UserError, match="choose one of: difference, shift"):
        classifier("flow")


# --- in a classifier -----------------------------------------------------------------------------------------------


def classifier(motion: str | None, **arguments: object) -> VideoClassifier:
    torch.manual_seed(0)
    settings = {"attention": None, "dim": 16, "heads": 2, "frame_dropout": 0.0, **arguments}
    return VideoClassifier(3, "test_resnet", motion=motion, **settings).eval()  # type: ignore[arg-type]


def moving(motion: str, **arguments: object) -> VideoClassifier:
    model = classifier(motion, **arguments)
    assert model.motion is not None
    randomise(model.motion)
    return model


def video(frames: int = 5) -> Tensor:
    shape = (2, frames, 3, 64, 64)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("freeze", ["none", "layer2", "all"])
@pytest.mark.parametrize("motion", MOTION)
def test_a_fresh_cue_changes_nothing(motion: str, freeze: str):
    with_cue, without = classifier(motion, freeze=freeze), classifier(None, freeze=freeze)
    without.load_state_dict({k: v for k, v in with_cue.state_dict().items() if not k.startswith("motion.")})
    with torch.no_grad():
        torch.testing.assert_close(with_cue(video(), MASK).logits, without(video(), MASK).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("freeze", "cells"), [("layer2", 1), ("layer2", 2), ("all", 1), ("all", 2)])
def test_cached_features_answer_as_the_video_does(freeze: str, cells: int):
    model = moving("difference", freeze=freeze, spatial_tokens=cells)
    with torch.no_grad():
        expected = model(video(), MASK)
        got = model(features=model.below_cut(video()), mask=MASK)
        still = classifier(None, freeze=freeze, spatial_tokens=cells)(video(), MASK)
    torch.testing.assert_close(got.logits, expected.logits, atol=1e-5, rtol=1e-5)
    assert (expected.logits - still.logits).abs().max() > 1e-4


@pytest.mark.parametrize("training", [False, True])
def test_padding_never_enters_the_backbone(training: bool):
    model = moving("shift", freeze="layer1", dropout=0.0, drop_path=0.0).train(training)
    twin, padded = copy.deepcopy(model), video()
    padded[~MASK] = 255 - padded[~MASK]
    torch.testing.assert_close(model(video(), MASK).logits, twin(padded, MASK).logits)
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_cue_keeps_its_place_when_the_backbone_is_unfrozen():
    model = moving("difference", freeze="layer2")
    with torch.no_grad():
        frozen = model(video()).logits
        model.backbone.freeze("none")
        torch.testing.assert_close(model.eval()(video()).logits, frozen, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("motion", MOTION)
def test_it_says_so_and_is_found_out(motion: str):
    model, clip = moving(motion, freeze="layer2"), video()[:1]
    assert model.mixes_time
    assert mixes_time(model, clip)
    assert not classifier(None).mixes_time


def test_a_frame_is_left_out_before_the_backbone_sees_it():
    model, clip = moving("difference", freeze="layer2"), video()[:1]
    game = encode_clip(model, clip, warn=lambda _: None).play(target=0)
    kept = torch.tensor([[True, False, True, True, False]])
    with torch.no_grad():
        alone = model(clip[:, kept[0]], pts=torch.tensor([[0.0, 2.0, 3.0]]))
    assert game.value(kept).item() == pytest.approx(game.worth(alone.logits).item(), abs=1e-4)
