"""What a notebook does to a module: several fits, settings from numpy, names that clash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError
from tests.bright_clips import CLASSES, loader, module, trainer


def test_settings_from_numpy_make_a_checkpoint_that_loads(tmp_path: Path) -> None:
    net = module(
        class_names=list(np.array(CLASSES)),
        class_counts=np.bincount([0, 0, 1]),
        loss="balanced_softmax",
        lr=np.float64(1e-3),
        temporal_options={"position": np.str_("rotary")},
    )
    run = trainer(tmp_path, max_epochs=1)
    run.fit(net, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]
    assert (stored["class_names"], stored["class_counts"], stored["lr"]) == (CLASSES, [2, 1], 1e-3)
    assert stored["temporal_options"] == {"position": "rotary"}
    assert {type(stored["lr"]), type(stored["class_names"][0])} == {float, str}


def test_unfreezing_begins_anew_in_every_fit(tmp_path: Path) -> None:
    class Watch(pl.Callback):
        def __init__(self) -> None:
            self.frozen: list[str] = []

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            self.frozen.append(pl_module.model.backbone.frozen)

    net = module(attention=None, freeze="layer2", unfreeze_epoch=1)
    for _ in range(2):
        watch = Watch()
        run = trainer(tmp_path, max_epochs=2, callbacks=[watch])
        run.fit(net, loader())
        half = len(watch.frozen) // 2
        assert watch.frozen == ["some"] * half + ["none"] * half
    run.save_checkpoint(tmp_path / "a.ckpt")
    trainer(tmp_path, max_epochs=3).fit(net, loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert net.model.backbone.frozen == "none"


def rows(**fields: list[Any]) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    names = list(fields)
    clips = [
        {
            "video": torch.randint(0, 256, (2, 3, 32, 32), generator=generator).byte(),
            **dict(zip(names, row, strict=True)),
        }
        for row in zip(*fields.values(), strict=True)
    ]
    return DataLoader(clips, batch_size=2)  # type: ignore[arg-type]


def test_a_clip_of_no_class_is_not_right_in_training_either(tmp_path: Path) -> None:
    def fitted(labels: list[torch.Tensor]) -> dict[str, Any]:
        net = VideoClassificationModule(
            CLASSES, loss="binary", backbone="test_resnet", attention=None, temporal="mean", dim=0, lr=0, backbone_lr=0
        )
        torch.nn.init.zeros_(net.model.head[-1].weight)
        net.model.head[-1].bias.data[:] = torch.tensor([1.0, 0.0])  # always the first
        run = trainer(tmp_path, max_epochs=1)
        run.fit(net, rows(label=labels))
        return run.callback_metrics

    none, first, second = torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert fitted([none, first, none, second])["train/top1"] == 0.5
    assert "train/top1" not in fitted([none, none])


@pytest.mark.parametrize("multi_label", [False, True])
def test_one_name_for_videos_of_different_classes_is_refused(tmp_path: Path, multi_label: bool) -> None:
    labels: list[Any] = [0, 0, 1, 1]
    if multi_label:
        labels = list(torch.eye(2)[labels])
    net = module(loss="binary" if multi_label else "cross_entropy")
    alike = rows(label=labels, video_id=["a", "b", "b", "c"])
    with pytest.raises(UserError, match="video_id 'b' stands for videos of different classes"):
        trainer(tmp_path).test(net, alike, verbose=False)
    trainer(tmp_path).test(net, rows(label=labels, video_id=["a", "a", "b", "c"]), verbose=False)
    assert net.test_summary is not None
    assert net.test_summary["videos"] == 3
