"""From a checkpoint and a video to a prediction: nothing else is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from temporal_attn.model import VideoClassifier
from temporal_attn.types import ClipSpec, UserError

__all__ = ["LoadedClassifier", "load_classifier", "predict_video", "read_checkpoint"]


class LoadedClassifier(NamedTuple):
    """A trained classifier and what it needs to be asked.

    Args:
        model: In evaluation mode.
        class_names: The K classes in the order of the logits.
        clip: How clips are cut.
        path: The checkpoint.
    """

    model: VideoClassifier
    class_names: list[str]
    clip: ClipSpec
    path: str


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this package as a dict, read without running any code of it.

    Raises:
        UserError: The file does not exist, is not a checkpoint, or is one of another program.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"checkpoint {file}: no such file")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for the same fact
        raise UserError(
            f"checkpoint {file}: not a checkpoint that loads safely ({type(error).__name__}); "
            "give a best.ckpt or last.ckpt that `temporal-attn fit` wrote"
        ) from None
    if not isinstance(checkpoint, dict) or "temporal_attn" not in checkpoint:
        raise UserError(
            f"checkpoint {file}: written by another program; give a best.ckpt or last.ckpt of `temporal-attn fit`"
        )
    if not checkpoint.get("hyper_parameters", {}).get("class_names"):
        raise UserError(f"checkpoint {file}: has no class names")
    return cast(dict[str, Any], checkpoint)


def load_classifier(path: str | Path, device: str | torch.device = "cpu") -> LoadedClassifier:
    """A classifier from its checkpoint, ready to be asked.

    Args:
        path: ``best.ckpt`` or ``last.ckpt``.
        device: Where the model shall live.

    Raises:
        UserError: It is not a checkpoint of this package, or its weights do not fit its settings.
    """
    from temporal_attn.module import VideoClassificationModule

    checkpoint = read_checkpoint(path)
    settings = {key: value for key, value in checkpoint["hyper_parameters"].items() if not key.startswith("_")}
    try:
        module = VideoClassificationModule(**settings)
        module.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise UserError(f"checkpoint {path}: does not fit this version: {str(error).splitlines()[0]}") from None
    if module.clip_spec is None:
        raise UserError(f"checkpoint {path}: does not say how its clips were cut (clip_spec); train with a datamodule")
    assert module.class_names is not None
    return LoadedClassifier(module.model.eval().to(device), module.class_names, module.clip_spec, str(path))


@torch.no_grad()
def predict_video(loaded: LoadedClassifier, path: str | Path, reader: str = "auto") -> dict[str, Any]:
    """Class probabilities of one video file, the same as `test` computes.

    Args:
        loaded: From `load_classifier`.
        path: The video.
        reader: ``auto``, ``decord`` or ``pyav``.

    Returns:
        video, class, probabilities by class name, and frames: each with its seconds (pts) and weight.

    Raises:
        VideoError: The file cannot be read.
    """
    from datamodules.dataset import load_clip

    device = next(loaded.model.parameters()).device
    clip = load_clip(path, loaded.clip, reader)
    mask, pts = clip["mask"].to(device), clip["pts"].to(device)
    output = loaded.model(clip["video"].to(device), mask, pts)
    probabilities = output.logits[0].float().softmax(0).tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    weights = output.frame_weights[0].tolist()
    real = clip["mask"][0].tolist()
    return {
        "video": str(path),
        "class": loaded.class_names[best],
        "probabilities": dict(zip(loaded.class_names, probabilities, strict=True)),
        "frames": [
            {"pts": second, "weight": weight}
            for second, weight, is_real in zip(clip["pts"][0].tolist(), weights, real, strict=True)
            if is_real
        ],
    }
