"""Attention over the cells of frame maps: a frame stays one row to whoever masks, caches or leaves out frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.scores import score_frames
from temporal_attn.model import VideoClassifier
from temporal_attn.temporal import build
from temporal_attn.temporal.cells import CellEncoder, CellProjection
from temporal_attn.types import UserError

pytest.importorskip("timm")

CELLS = 4
ALL = ["mean", "max", "gated", "cls", "attention_pool", "frame_gate", "power_mean", "squeeze_excitation", "transformer"]


def make(temporal: str = "transformer", side: int = 2, **arguments: object) -> VideoClassifier:
    torch.manual_seed(0)
    settings = {"backbone": "test_resnet", "attention": None, "dim": 16, "heads": 2, **arguments}
    return VideoClassifier(3, temporal=temporal, spatial_tokens=side, **settings).eval()  # type: ignore[arg-type]


def trained(model: VideoClassifier) -> VideoClassifier:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for part in (model.project, model.temporal, model.head):
            for parameter in part.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def video(frames: int = 4) -> Tensor:
    shape = (2, frames, 3, 96, 96)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("temporal", [name for name in ALL if name not in ("max", "power_mean")])
def test_starts_as_the_mean_over_cells_and_frames(temporal: str):
    model = make(temporal)
    mask = torch.tensor([[True, True, True, False], [True, False, True, True]])
    with torch.no_grad():
        maps = model.encode_frames(video(), maps=True).maps
        assert maps is not None
        cells = nn.functional.adaptive_avg_pool2d(maps.flatten(0, 1), 2).flatten(2).transpose(1, 2)
        projected = model.project.linear(model.project.norm(cells)).unflatten(0, (2, 4))
        normed = nn.functional.layer_norm(projected, (16,))
        expected = torch.stack([normed[row, real].mean((0, 1)) for row, real in enumerate(mask)])
        got = model(video(), mask)
    torch.testing.assert_close(got.logits, model.head(expected), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.frame_weights, mask / mask.sum(1, keepdim=True), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temporal", ALL)
def test_a_frame_is_masked_with_all_its_cells(temporal: str):
    model = trained(make(temporal))
    tokens = model.encode_frames(video()).tokens.detach()
    assert tokens.shape == (2, 4, CELLS * model.backbone.width)
    mask = torch.tensor([True, False, True, True]).expand(2, 4)
    pts = torch.tensor([0.0, 1.0, 2.5, 3.0]).expand(2, 4)
    with torch.no_grad():
        shorter = model.classify(tokens[:, mask[0]], None, pts[:, mask[0]])
        tokens[:, 1] = float("nan")
        masked = model.classify(tokens, mask, pts)
    torch.testing.assert_close(masked.logits, shorter.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked.frame_weights[:, mask[0]], shorter.frame_weights, atol=1e-5, rtol=1e-5)
    assert (masked.frame_weights[:, 1] == 0).all()
    torch.testing.assert_close(masked.frame_weights.sum(1), torch.ones(2))


def test_weights_of_a_frame_are_those_of_its_cells():
    encoder = build("attention_pool", 16, 2)
    nn.init.normal_(encoder.pool.query)
    frames, mask, pts = (
        torch.randn(2, 3, CELLS * 16),
        torch.ones(2, 3, dtype=torch.bool),
        torch.arange(3.0).expand(2, 3),
    )
    feature, weights = CellEncoder(encoder, CELLS)(frames, mask, pts)
    cells = frames.view(2, 12, 16)
    flat, each = encoder(cells, torch.ones(2, 12, dtype=torch.bool), torch.zeros(2, 12))
    torch.testing.assert_close(feature, flat)
    torch.testing.assert_close(weights, each.view(2, 3, CELLS).sum(-1))


def test_cells_have_places_that_start_at_zero():
    project = CellProjection(6, 4, CELLS)
    frames = torch.randn(3, 6).repeat(1, CELLS)  # all cells of a frame alike
    torch.testing.assert_close(project(frames).view(3, CELLS, 4).std(1), torch.zeros(3, 4))
    nn.init.normal_(project.place)
    assert (project(frames).view(3, CELLS, 4).std(1) > 0).all()
    assert CellProjection(6, 0, CELLS)(frames).shape == (3, CELLS * 6)


def test_where_a_cell_is_matters_once_its_place_is_learned():
    model = trained(make())
    tokens = model.encode_frames(video()).tokens.detach()
    turned = tokens.unflatten(-1, (CELLS, -1)).flip(2).flatten(2)
    with torch.no_grad():
        assert (model.classify(tokens).logits - model.classify(turned).logits).abs().max() > 1e-4


@pytest.mark.parametrize(("freeze", "shape"), [("all", (2, 2)), ("layer2", None)])
def test_cached_features_answer_as_the_video_does(freeze: str, shape: tuple[int, int] | None):
    model = trained(make(freeze=freeze))
    with torch.no_grad():
        features = model.below_cut(video())
        assert features.ndim == 5
        assert shape is None or features.shape[-2:] == shape
        torch.testing.assert_close(model(features=features).logits, model(video()).logits, atol=1e-5, rtol=1e-5)


def test_a_net_with_layers_behind_its_pooling_takes_each_cell_through_them():
    model = make(backbone="mobilenetv3_small_050", dim=0, heads=1)
    with torch.no_grad():
        features = model.encode_frames(video(2), maps=True)
        assert features.maps is not None
        corner = features.maps[:, :, :, :2, :2].mean((-2, -1)).flatten(0, 1)[..., None, None]  # of 3 × 3 cells
        expected = model.backbone.pool(corner)
    torch.testing.assert_close(features.tokens.flatten(0, 1)[:, : model.backbone.width], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["exact", "loo", "shapley", "attn_pool"])
def test_key_frames_are_asked_as_ever(method: str):
    model = trained(make())
    tokens = model.encode_frames(video(5)).tokens.detach()[:1]
    game = FrameGame(model, tokens, target=1)
    scores = score_frames(game, method).values
    assert scores.shape == (5,)
    if method in ("exact", "shapley"):
        assert float(scores.sum()) == pytest.approx(game.v_full - game.v_empty, abs=1e-4)
    if method == "loo":
        with torch.no_grad():
            without = model.classify(tokens[:, 1:], None, torch.arange(1.0, 5)[None])
        assert float(scores[0]) == pytest.approx(game.v_full - float(game.worth(without.logits)), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temporal": "gru"}, "spatial_tokens: a GRU or TCN"),
        ({"temporal": "tcn"}, "spatial_tokens: a GRU or TCN"),
        ({"side": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        make(**arguments)  # type: ignore[arg-type]


def test_maps_that_are_none_are_refused():
    model = make(backbone="test_vit")
    with pytest.raises(UserError, match="convolutional"):
        model.encode_frames(torch.zeros(1, 1, 3, 160, 160))
