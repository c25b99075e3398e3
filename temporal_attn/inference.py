"""From a checkpoint and a video to a prediction: nothing else is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from temporal_attn.checkpoints import read_checkpoint
from temporal_attn.evaluation.predictions import prediction_row
from temporal_attn.evaluation.scoring import Scoring
from temporal_attn.model import VideoClassifier
from temporal_attn.types import ClipSpec, UserError

__all__ = ["LoadedClassifier", "load_classifier", "predict_video"]


class LoadedClassifier(NamedTuple):
    """A trained classifier and what it needs to be asked.

    Args:
        model: In evaluation mode.
        class_names: The K classes in the order of the logits.
        clip: How clips are cut.
        path: The checkpoint.
        scoring: How its logits become probabilities.
    """

    model: VideoClassifier
    class_names: list[str]
    clip: ClipSpec
    path: str
    scoring: Scoring = Scoring()


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
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise UserError(f"checkpoint {path}: does not fit this version: {str(error).splitlines()[0]}") from None
    if module.clip_spec is None:
        raise UserError(f"checkpoint {path}: does not say how its clips were cut (clip_spec); train with a datamodule")
    model = module.model.eval().to(device)
    return LoadedClassifier(model, settings["class_names"], module.clip_spec, str(path), module.scoring)


@torch.no_grad()
def predict_video(loaded: LoadedClassifier, path: str | Path, reader: str = "auto") -> dict[str, Any]:
    """Class probabilities of one video file, the same as `predict` gives of its single view.

    Args:
        loaded: From `load_classifier`.
        path: The video.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.

    Returns:
        video, class, probabilities by class name, and frames: each with its seconds (pts) and weight; abstained, where
        the checkpoint has a threshold. Where the model's scores are no numbers, class and probabilities are None, and
        failed says so.

    Raises:
        VideoError: The file cannot be read.
    """
    from datamodules.dataset import load_clip

    device = next(loaded.model.parameters()).device
    clip = load_clip(path, loaded.clip, reader)
    mask, pts = clip["mask"].to(device), clip["pts"].to(device)
    output = loaded.model(clip["video"].to(device), mask, pts)
    probabilities = loaded.scoring.probabilities(output.logits[0]).tolist()
    said = prediction_row(str(path), probabilities, loaded.class_names, loaded.scoring)
    weights = output.frame_weights[0].tolist()
    real = clip["mask"][0].tolist()
    return {
        "video": str(path),
        **{key: value for key, value in said.items() if key != "video_id" and (key, value) != ("failed", None)},
        "frames": [
            {"pts": second, "weight": weight}
            for second, weight, is_real in zip(clip["pts"][0].tolist(), weights, real, strict=True)
            if is_real
        ],
    }
