"""Loading a classifier: a checkpoint that lacks what prediction needs says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from temporal_attn.inference import load_classifier
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError
from tests.foreign_modules import CLIP


@pytest.mark.parametrize("missing", ["class_names", "clip_spec"])
def test_what_a_checkpoint_lacks_is_named(tmp_path: Path, missing: str):
    module = VideoClassificationModule(["a", "b"], dict(CLIP.spec()), backbone="test_resnet", dim=8, heads=2)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
    trainer.strategy.connect(module)
    path = tmp_path / "best.ckpt"
    trainer.save_checkpoint(path)
    assert load_classifier(path).class_names == ["a", "b"]
    stored = torch.load(path, weights_only=True)
    stored["hyper_parameters"][missing] = None
    torch.save(stored, path)
    with pytest.raises(UserError, match=r"best\.ckpt: .*" + missing.replace("_", ".")):
        load_classifier(path)
