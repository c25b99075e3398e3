"""Checkpoints of this package: read without running any code of theirs, and the random state that they carry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from temporal_attn.types import UserError

__all__ = ["random_state", "read_checkpoint", "take_up_random_state"]


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


def random_state() -> dict[str, Any]:
    """Torch's random state on all devices, as it travels in a checkpoint."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def take_up_random_state(state: Mapping[str, Any]) -> None:
    """Go on from what `random_state` gave; GPUs only where there are as many as there were."""
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([own.cpu() for own in state["cuda"]])
