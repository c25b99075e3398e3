"""Where in its frames a clip shows what decides: maps over the cells of the backbone's last feature maps.

All maps of a clip stand on one scale. A scale for each frame would light up frames that say nothing.

Papers: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
networks", 2020, https://arxiv.org/abs/2011.08891; Selvaraju et al., "Grad-CAM", ICCV 2017,
https://arxiv.org/abs/1610.02391; Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014,
https://arxiv.org/abs/1311.2901 (occlusion).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from temporal_attn.attention import record_attention
from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.reading import gradients_on
from temporal_attn.keyframes.third_party import grad_cam_library
from temporal_attn.model import VideoClassifier
from temporal_attn.types import UserError

__all__ = ["REGIONS", "cbam_map", "grad_cam", "heatmaps", "hires_cam", "occlusion", "region_maps"]


def hires_cam(game: FrameGame, video: Tensor) -> Tensor:
    """Maps times their gradient: what each cell adds to v, to first order. One backbone pass.

    Equation: M_t(x) = Σ_C A_tC(x) ⊙ ∂v/∂A_tC(x), through pooling, projection, temporal model and head.

    Args:
        game: The clip and the question, on the tokens of a `VideoClassifier`.
        video: (1, T, 3, H, W) the same clip.

    Returns:
        (P, h, w) float32 CPU, signed, in centred-logit units.

    Raises:
        UserError: The backbone has no maps (C', h, w).
    """
    maps, gradient = _maps_and_gradient(game, video)
    return (maps * gradient).sum(1).float().cpu()


def grad_cam(game: FrameGame, video: Tensor) -> Tensor:
    """Maps weighted by the mean of their gradient over cells. Kept for comparison; see `hires_cam` for the rest.

    Equation: M_t(x) = (Σ_C A_tC(x) mean_x' ∂v/∂A_tC(x'))⁺.
    """
    maps, gradient = _maps_and_gradient(game, video)
    return (maps * gradient.mean((-2, -1), keepdim=True)).sum(1).clamp(min=0).float().cpu()


def cbam_map(game: FrameGame, video: Tensor) -> Tensor:
    """Spatial weights of the last inserted attention that has them. It knows no class, and is no explanation.

    On clips whose truth is known no more of it lies on the deciding region than chance puts there.

    Raises:
        UserError: No inserted attention weighs places.
    """
    model = _classifier(game)
    with torch.no_grad(), record_attention(model.backbone) as recorded:
        model.encode_frames(_of_first_copies(game, video))
    maps = [
        weights for weights in recorded.values() if weights.ndim == 4 and weights.shape[1] == 1 < weights[0].numel()
    ]
    if not maps:
        raise UserError("regions: the model has no inserted attention that weighs places; take hirescam")
    return maps[-1][:: model.backbone.streams, 0].float().cpu()  # of two streams the frame itself


def occlusion(game: FrameGame, video: Tensor, players: Sequence[int], grid: int = 8, chunk: int = 64) -> Tensor:
    """What v loses when a patch of one frame is covered, all other frames as they are.

    The other frames' tokens are cached, so that a frame costs grid² single-frame passes of the backbone. Patches are
    covered with the mean colour of the clip.

    Args:
        game: The clip and the question, on the tokens of a `VideoClassifier`.
        video: (1, T, 3, H, W) the same clip.
        players: Players to look into, e.g. the key frames.
        grid: Patches along each side.
        chunk: Frames in one pass of the backbone.

    Returns:
        (len(players), grid, grid) float32 CPU, signed, in centred-logit units.
    """
    model = _classifier(game)
    real = game.real.to(video.device)
    colour = video[0, real].float().mean((0, 2, 3)).to(video.dtype)[:, None, None]
    cells = torch.eye(grid * grid, device=video.device).view(-1, 1, grid, grid)
    covered = interpolate(cells, size=video.shape[-2:], mode="nearest").bool()
    maps = []
    with torch.inference_mode():
        for player in players:
            frame = video[0, game.players[player]]
            losses = []
            for patches in torch.split(covered, chunk):
                tokens = model.encode_frames(torch.where(patches, colour, frame)[:, None]).tokens
                clips = game.tokens.expand(len(patches), -1, -1)
                shown = game.copies[player].to(video.device)[None, :, None]
                losses.append(game.v_full - game.answer(torch.where(shown, tokens, clips)).cpu())
            maps.append(torch.cat(losses).view(grid, grid))
    return torch.stack(maps) if maps else torch.zeros(0, grid, grid)


REGIONS: dict[str, Callable[[FrameGame, Tensor], Tensor]] = {
    "hirescam": hires_cam,
    "grad_cam": grad_cam,
    "cbam_map": cbam_map,
    "pytorch_grad_cam": grad_cam_library,
}
"""Maps of all frames by name, the default first. `occlusion` refines a few frames of them."""


def region_maps(game: FrameGame, video: Tensor, method: str = "hirescam") -> Tensor:
    """Maps of all frames by name.

    Args:
        game: The clip and the question, on the tokens of a `VideoClassifier`.
        video: (1, T, 3, H, W) the same clip.
        method: A name of `REGIONS`.

    Returns:
        (P, h, w) float32 CPU.

    Raises:
        UserError: An unknown method, or one that this model does not allow.
    """
    if method not in REGIONS:
        raise UserError(f"regions: there is no {method!r}; choose one of {', '.join(REGIONS)}")
    return REGIONS[method](game, video)


def heatmaps(maps: Tensor, scores: Tensor | None = None) -> Tensor:
    """Maps as intensities in [0, 1] on one scale for the clip: what speaks for the class.

    Args:
        maps: (P, h, w), signed.
        scores: (P,) signed frame scores. Given, each frame's map is brought to its own maximum and then weighs as much
            as its score, so that a frame that does not speak for the class stays dark.

    Returns:
        (P, h, w) float32; all 0 where nothing speaks for the class.
    """
    positive = maps.clamp(min=0)
    if scores is not None:
        peaks = positive.amax((-2, -1), keepdim=True)
        positive = torch.where(peaks > 0, positive / peaks, 0) * scores.clamp(min=0)[:, None, None]
    top = positive.amax() if positive.numel() else positive.sum()
    return positive / top if top > 0 else positive


def _maps_and_gradient(game: FrameGame, video: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (P, C', h, w) and ∂v/∂maps of the players."""
    model = _classifier(game)
    with torch.no_grad():
        maps = model.encode_frames(_of_first_copies(game, video), maps=True).maps
    assert maps is not None
    maps = maps[0]
    if maps.ndim != 4:
        raise UserError(
            f"regions: the backbone's maps have shape {tuple(maps.shape[1:])} a frame and not (C', h, w); take a "
            "convolutional backbone, or occlusion"
        )
    with gradients_on():
        maps = maps.clone().requires_grad_()
        tokens = model.pool_maps(maps)
        # Every copy of a frame shows its map, so that gradients of the copies add up.
        clip = torch.where(
            game.copies.any(0)[None, :, None].to(tokens.device),
            (game.copies.T.to(tokens) @ tokens)[None],
            game.tokens.clone(),
        )
        (gradient,) = torch.autograd.grad(game.answer(clip)[0], maps)
    return maps.detach(), gradient


def _of_first_copies(game: FrameGame, video: Tensor) -> Tensor:
    """Frames (1, P, 3, H, W) of the players."""
    return video[:, game.players.to(video.device)]


def _classifier(game: FrameGame) -> VideoClassifier:
    if not isinstance(game.model, VideoClassifier):
        raise UserError(f"regions: need the maps of a VideoClassifier, and the model is a {type(game.model).__name__}")
    return game.model
