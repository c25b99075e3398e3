"""Batches of other people's loaders: what is taken as it comes, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.batch_check import check_batch, whole_labels
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError

VIDEO = torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8)
LABEL = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("stage", "batch", "said"),
    [
        ("train", [VIDEO, LABEL], "train loader gives a list"),
        ("train", None, "a NoneType"),
        ("val", {"frames": VIDEO, "label": LABEL}, "no video, but frames, label"),
        ("train", {"video": VIDEO.transpose(1, 2), "label": LABEL}, r"video\.transpose\(1, 2\)"),
        ("train", {"video": VIDEO[0], "label": LABEL}, r"\(B, T, C, H, W\)"),
        ("train", {"video": VIDEO}, "label of the train batch is no tensor"),
        ("val", {"video": VIDEO}, "label of the val batch is no tensor"),
        ("train", {"video": VIDEO, "label": ["a", "b"]}, "is no tensor"),
        ("train", {"video": VIDEO, "label": LABEL[:1]}, "an entry for each clip"),
        ("train", {"video": VIDEO, "label": LABEL + 1}, "has 2, but the 2 classes are 0 to 1"),
        ("val", {"video": VIDEO, "label": LABEL + 1}, "has 2, but the 2 classes are 0 to 1"),
        ("train", {"video": VIDEO, "label": LABEL - 1}, "has -1, .*leave it out"),
        ("test", {"video": VIDEO, "label": LABEL - 2}, "has -2"),
        ("train", {"video": VIDEO, "label": LABEL / 2}, "torch.float32: give class indices"),
        ("train", {"video": VIDEO, "label": torch.zeros(2, 3)}, r"rows \(B, 2\)"),
        ("val", {"video": VIDEO, "label": torch.eye(2)}, r"label\.argmax\(1\)"),
    ],
)
def test_refused(stage: str, batch: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        check_batch(batch, stage, 2, multi_label=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stage", "batch", "multi_label"),
    [
        ("train", {"video": VIDEO, "label": torch.eye(2)}, False),  # mixed clips
        ("val", {"video": VIDEO, "label": torch.eye(2)}, True),
        ("val", {"video": VIDEO, "label": LABEL - 1}, False),  # one of them is unknown
        ("predict", {"video": VIDEO}, False),
        ("train", {"features": VIDEO.flatten(2).float(), "label": LABEL}, False),
        ("train", {"video": VIDEO[:0], "label": LABEL[:0]}, False),  # nothing could be read
    ],
)
def test_taken(stage: str, batch: Any, multi_label: bool) -> None:
    check_batch(batch, stage, 2, multi_label)


def test_two_streams_have_six_channels() -> None:
    check_batch({"video": VIDEO.repeat(1, 1, 2, 1, 1), "label": LABEL}, "train", 2, False, channels=6)
    with pytest.raises(UserError, match="6, H, W"):
        check_batch({"video": VIDEO, "label": LABEL}, "train", 2, False, channels=6)


def test_labels_of_any_integer_become_whole_numbers() -> None:
    for kind in (torch.int32, torch.uint8, torch.bool, torch.int64):
        assert whole_labels({"video": VIDEO, "label": LABEL.to(kind)})["label"].dtype == torch.int64
    rows = torch.eye(2)
    assert whole_labels({"video": VIDEO, "label": rows})["label"] is rows


# -- in a Trainer ----------------------------------------------------------------------------------------------------


class Own(pl.LightningDataModule):
    """Somebody's datamodule, which knows class names."""

    class_names = ("a", "b")

    def train_dataloader(self) -> DataLoader[Any]:
        return clips()


def clips(count: int = 4, **entries: Any) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(count)
    rows = [
        {"video": torch.randint(0, 256, (3, 3, 32, 32), generator=generator).byte(), "label": i % 2}
        | {name: value[i] for name, value in entries.items()}
        for i in range(count)
    ]
    return DataLoader(rows, batch_size=2)  # type: ignore[arg-type]


def module(**options: Any) -> VideoClassificationModule:
    settings = {"class_names": ["a", "b"], "backbone": "test_resnet", "attention": None, "dim": 8, "heads": 2}
    return VideoClassificationModule(**{**settings, "depth": 1, **options})


def trainer(folder: Path) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=str(folder),
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_the_first_batch_of_each_stage_is_checked(tmp_path: Path) -> None:
    wrong = DataLoader([(torch.zeros(4, 3, 32, 32), 1)], batch_size=1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="train loader gives a list"):
        trainer(tmp_path).fit(module(), wrong)
    with pytest.raises(UserError, match="val loader gives a list"):
        trainer(tmp_path).fit(module(), clips(), wrong)
    with pytest.raises(UserError, match="predict loader gives a list"):
        trainer(tmp_path).predict(module(), wrong)


def test_labels_of_later_batches_are_checked_too(tmp_path: Path) -> None:
    wrong = clips(label=torch.tensor([0, 1, 0, 7]))
    with pytest.raises(UserError, match="label of the train batch has 7, but the 2 classes"):
        trainer(tmp_path).fit(module(), wrong)
    with pytest.raises(UserError, match="label of the val batch has 7"):
        trainer(tmp_path).fit(module(), clips(), wrong)
    with pytest.raises(UserError, match="label of the test batch has 7"):
        trainer(tmp_path).test(module(), wrong)


def test_small_integers_are_labels_too(tmp_path: Path) -> None:
    label = torch.tensor([0, 1, 1, 0], dtype=torch.int32)
    net = module()
    trainer(tmp_path).fit(net, clips(label=label), clips(label=label))
    trainer(tmp_path).test(net, clips(label=label), verbose=False)
    assert net.test_summary is not None
    assert [row["n"] for row in net.test_summary["per_class"]] == [2, 2]


@pytest.mark.parametrize("numbered", [False, True])
def test_several_loaders_make_one_evaluation(tmp_path: Path, numbered: bool) -> None:
    """Each numbers its videos from 0; they are other videos all the same."""
    both = [clips(count, **({"index": range(count)} if numbered else {})) for count in (4, 6)]
    net = module()
    trainer(tmp_path).fit(net, clips(), both)
    trainer(tmp_path).test(net, both, verbose=False)
    assert net.test_summary is not None
    assert net.test_summary["videos"] == 10
    batches: Any = trainer(tmp_path).predict(net, both)
    assert sum(len(rows) for loader in batches for rows in loader) == 10


def test_balanced_weights_of_a_strangers_loader(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class_counts"):
        trainer(tmp_path).fit(module(class_weights="balanced"), clips())
    net = module(class_weights="balanced", class_counts=[30, 10])
    trainer(tmp_path).fit(net, clips())
    assert net.loss.class_weights.tolist() == pytest.approx([40 / 60, 2.0])


def test_a_checkpoint_tells_a_fresh_module_its_classes(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    first.fit(module(class_names=None), datamodule=Own())
    first.save_checkpoint(tmp_path / "a.ckpt")
    net = module(class_names=None)
    trainer(tmp_path).test(net, clips(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert net.class_names == ["a", "b"]
    for evaluate in (trainer(tmp_path).test, trainer(tmp_path).validate, trainer(tmp_path).predict):
        with pytest.raises(UserError, match="does not know its classes"):
            evaluate(module(class_names=None), clips())
