"""Maps over cells: sums that must hold, loops over patches, and one scale for a clip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.regions import REGIONS, cbam_map, grad_cam, heatmaps, hires_cam, occlusion, region_maps
from temporal_attn.keyframes.scores import score_frames
from temporal_attn.model import VideoClassifier
from temporal_attn.types import UserError
from tests.white_box import Additive, random_video, trained_classifier

NATIVE = ["hirescam", "grad_cam", "cbam_map"]


def linear_classifier() -> VideoClassifier:
    """From maps to logits without a normalisation: every contribution is a product."""
    model = trained_classifier("mean")
    model.project, model.temporal.norm = model.project[1], nn.Identity()
    return model


def game_of(model: VideoClassifier, video: Tensor, **options) -> FrameGame:
    with torch.inference_mode():
        return FrameGame(model, model.encode_frames(video).tokens, target=1, **options)


def test_for_a_linear_head_the_cells_of_a_frame_sum_to_its_share_of_the_logit():
    model, video = linear_classifier(), random_video()
    game = game_of(model, video)
    maps = hires_cam(game, video)
    assert maps.shape[0] == 5
    assert maps.shape[1] > 1
    bias = game.question.direction @ model.head[1].weight @ model.project.bias / 5
    torch.testing.assert_close(maps.sum((1, 2)), score_frames(game, "logit").values - bias, atol=1e-5, rtol=1e-4)


def test_behind_a_mean_over_cells_grad_cam_is_the_positive_part():
    video = random_video()
    game = game_of(trained_classifier(), video)
    torch.testing.assert_close(grad_cam(game, video), hires_cam(game, video).clamp(min=0), atol=1e-6, rtol=1e-4)


def test_maps_are_the_gradient_of_the_whole_model():
    model, video = trained_classifier(), random_video()
    game = game_of(model, video)
    maps = model.encode_frames(video, maps=True).maps[0].detach().requires_grad_()
    logits = model.classify(model.backbone.pool(maps)[None]).logits[0]
    (logits[1] - (logits[0] + logits[2]) / 2).backward()
    torch.testing.assert_close(hires_cam(game, video), (maps * maps.grad).sum(1).detach(), atol=1e-5, rtol=1e-4)


def test_a_contrast_has_the_difference_of_maps():
    model, video = linear_classifier(), random_video()
    tokens = model.encode_frames(video).tokens.detach()
    one, other, both = (hires_cam(FrameGame(model, tokens, target=target), video) for target in (1, 0, (1, 0)))
    torch.testing.assert_close(both, (one - other) * 2 / 3, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", NATIVE)
def test_repeated_and_padded_frames_have_one_map_or_none(method):
    model, video = trained_classifier(attention="cbam"), random_video(3)
    repeated = video[:, [0, 0, 1, 2, 2]]
    index, mask = torch.tensor([[0, 0, 1, 2, 2]]), torch.tensor([[True, True, True, True, False]])
    game = game_of(model, repeated, frame_index=index, mask=mask)
    maps = region_maps(game, repeated, method)
    assert maps.shape[0] == 3
    by_position = game_of(model, repeated, mask=mask)
    separate = region_maps(by_position, repeated, method)
    expected = separate[[0, 2, 3]].clone()
    if method != "cbam_map":  # each copy adds its own
        expected[0] += separate[1]
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-4)


def test_cbam_shows_its_last_places():
    model, video = trained_classifier(attention="cbam"), random_video()
    caught = []
    gates = [module for name, module in model.named_modules() if name.endswith("spatial_gate")]
    gates[-1].register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    with torch.no_grad():
        model.encode_frames(video)
    torch.testing.assert_close(cbam_map(game_of(model, video), video), caught[0][:, 0])


def test_cbams_map_is_not_shown_where_there_is_none():
    video = random_video()
    with pytest.raises(UserError, match="hirescam"):
        cbam_map(game_of(trained_classifier(), video), video)


@pytest.mark.parametrize("chunk", [3, 64])
def test_occlusion_is_the_loss_of_the_whole_model_with_a_patch_covered(chunk):
    model, video = trained_classifier(), random_video(4)
    game = game_of(model, video)
    encoded = []
    original = model.encode_frames
    model.encode_frames = lambda frames, **options: (
        encoded.append(frames.shape[0] * frames.shape[1]) or original(frames, **options)
    )
    maps = occlusion(game, video, [2, 0], grid=4, chunk=chunk)
    assert sum(encoded) == 2 * 16, "only the frame in question is seen again"
    colour = video[0].float().mean((0, 2, 3)).to(torch.uint8)
    for row, player in enumerate((2, 0)):
        for i in range(4):
            for j in range(4):
                covered = video.clone()
                covered[0, player, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16] = colour[:, None, None]
                with torch.no_grad():
                    logits = model(covered).logits
                expected = game.v_full - game.worth(logits).item()
                assert maps[row, i, j].item() == pytest.approx(expected, abs=1e-5)


def test_occlusion_of_no_frame_is_nothing():
    video = random_video()
    assert occlusion(game_of(trained_classifier(), video), video, [], grid=4).shape == (0, 4, 4)


def test_one_scale_for_a_clip():
    maps = torch.tensor([[[4.0, -1.0]], [[1.0, 0.5]], [[-2.0, -3.0]]])
    torch.testing.assert_close(heatmaps(maps), torch.tensor([[[1.0, 0.0]], [[0.25, 0.125]], [[0.0, 0.0]]]))
    weighted = heatmaps(maps, torch.tensor([1.0, 2.0, 5.0]))
    torch.testing.assert_close(weighted, torch.tensor([[[0.5, 0.0]], [[1.0, 0.5]], [[0.0, 0.0]]]))
    assert not heatmaps(-maps.abs()).any()
    assert not heatmaps(maps, -torch.ones(3)).any()


def test_wrong_use_is_one_line_with_the_remedy():
    game = FrameGame(Additive([0.0, 0.0]), torch.zeros(1, 3, 2))
    for method in NATIVE:
        with pytest.raises(UserError, match="VideoClassifier"):
            region_maps(game, random_video(3), method)
    with pytest.raises(UserError, match="hirescam"):
        region_maps(game, random_video(3), "gradcam")


def test_the_default_comes_first():
    assert next(iter(REGIONS)) == "hirescam"
    assert set(NATIVE) < set(REGIONS)
