"""Teachers: a checkpoint that is asked, and predictions that were stored; in a real training of tiny models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import UCF101DataModule
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.transforms import ClipAugment
from temporal_attn import losses
from temporal_attn.distillation import AskedTeacher, StoredTeacher, class_order
from temporal_attn.features import FeatureCache
from temporal_attn.model import VideoClassifier
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError

CLASSES = ["Archery", "Diving", "Swing"]


def data(tiny: Path, cache: Path | None = None, **augment: Any) -> UCF101DataModule:
    return UCF101DataModule(
        str(tiny / "root"),
        str(tiny / "splits"),
        val_groups=[7, 8],
        clip=ClipOptions(num_frames=2, resize=32, crop=32),
        augment=AugmentOptions(**augment),
        loader=LoaderOptions(batch_size=4),
        cache_dir=None if cache is None else str(cache),
    )


def module(**options: Any) -> VideoClassificationModule:
    pl.seed_everything(0, verbose=False)
    settings: dict[str, Any] = {"backbone": "test_resnet", "attention": None, "temporal": "mean", "dim": 0}
    return VideoClassificationModule(**{**settings, **options})


def fit(folder: Path, net: VideoClassificationModule, source: UCF101DataModule) -> pl.Trainer:
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FeatureCache(views=1)],
    )
    trainer.fit(net, datamodule=source)
    return trainer


@pytest.fixture(scope="module")
def teacher(tiny_ucf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows the classes in another order, and normalises otherwise than its students."""
    folder = tmp_path_factory.mktemp("teacher")
    net = module(class_names=CLASSES[::-1], mean=[0.1, 0.2, 0.3], std=[0.5, 0.5, 0.5])
    trainer = fit(folder, net, data(tiny_ucf))
    trainer.save_checkpoint(folder / "teacher.ckpt")
    return folder / "teacher.ckpt"


@pytest.fixture(scope="module")
def predictions(tiny_ucf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows as `temporal-attn predict` on files writes them: named by file, classes in any order."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("predictions") / "predictions.jsonl"
    with path.open("w") as file:
        for video in sorted((tiny_ucf / "root").glob("*/*.mp4")):
            row = torch.rand(3, generator=generator).softmax(0).tolist()
            probabilities = dict(zip(CLASSES[::-1], row, strict=True))
            file.write(json.dumps({"video_id": str(video), "probabilities": probabilities, "failed": None}) + "\n")
    return path


def test_a_student_asks_its_teacher(teacher: Path, tiny_ucf: Path, tmp_path: Path) -> None:
    net = module(teacher=str(teacher), distill_weight=0.7, distill_temperature=3.0, label_smoothing=0.1)
    source = data(tiny_ucf)
    trainer = fit(tmp_path, net, source)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    # nothing of the teacher is in the student: neither its weights nor in its checkpoint
    assert not [name for name in net.state_dict() if "teacher" in name]
    # by hand: the teacher's columns in the student's order, normalised as it was trained
    batch = source.augment(next(iter(source.train_dataloader())))
    other = VideoClassificationModule.load_from_checkpoint(teacher, weights_only=True).eval()
    net.eval()
    with torch.no_grad():
        wanted = other(batch).logits[:, [2, 1, 0]]
        logits = net(batch).logits
        label = torch.nn.functional.cross_entropy(logits, batch["label"], label_smoothing=0.1)
        expected = 0.3 * label + 0.7 * losses.distillation_loss(logits, wanted, 3.0)
        net.log = lambda *_, **__: None  # type: ignore[method-assign]
        assert torch.allclose(net.training_step(batch, 0), expected, rtol=1e-5)


def test_a_student_reads_what_its_teacher_said_while_it_trains_from_the_cache(
    predictions: Path, teacher: Path, tiny_ucf: Path, tmp_path: Path
) -> None:
    """Cached features, mixed at the cut; the teacher's probabilities are mixed by the same shares."""
    source = data(tiny_ucf, tmp_path / "cache", mixup=1.0)
    net = module(freeze="all", teacher=str(predictions), distill_weight=1.0, distill_temperature=2.0)
    batches: list[Any] = []
    step = net.training_step
    net.training_step = lambda batch, batch_idx: (batches.append(batch), step(batch, batch_idx))[1]  # type: ignore
    assert torch.isfinite(fit(tmp_path, net, source).callback_metrics["train/loss"])
    batch = batches[0]
    assert "video" not in batch
    rows = {row["video_id"]: row["probabilities"] for row in map(json.loads, predictions.read_text().splitlines())}
    paths = {record.id: record.path for record in source.train_dataset.records}
    said = torch.tensor([[rows[paths[name]][one] for one in CLASSES] for name in batch["video_id"]])
    partner, lam = batch["partner"], batch["lam"][:, None]
    expected = losses.distillation_loss(net.eval()(batch).logits, (lam * said + (1 - lam) * said[partner]).log(), 2.0)
    net.log = lambda *_, **__: None  # type: ignore[method-assign]
    assert torch.allclose(net.training_step(batch, 0), expected, rtol=1e-5)
    with pytest.raises(UserError, match="needs frames, but training reads cached features"):
        fit(tmp_path, module(freeze="all", teacher=str(teacher)), source)


def test_mixing_cached_features_is_mixing_their_values(tiny_ucf: Path) -> None:
    """Manifold mixup: features and labels of a row are the same blend of two rows; a box cannot be cut."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 2, 5), (6, 2, 5, 3, 3)):
        features = torch.randn(shape, generator=generator).half()
        batch: Any = {"features": features, "label": torch.arange(6) % 3, "seed": torch.arange(6)}
        mixed: Any = ClipAugment(AugmentOptions(mixup=0.8), 32, CLASSES)(batch)
        assert mixed["features"].dtype == torch.float16
        lam = mixed["lam"].view(-1, *[1] * (len(shape) - 1))
        expected = lam * features.float() + (1 - lam) * features[mixed["partner"]].float()
        assert torch.allclose(mixed["features"].float(), expected, atol=2e-3)
        own, other = (torch.nn.functional.one_hot(batch["label"][rows], 3) for rows in (range(6), mixed["partner"]))
        share = mixed["lam"][:, None]
        assert torch.allclose(mixed["label"], share * own + (1 - share) * other)
        assert (mixed["partner"] != torch.arange(6)).all()
    with pytest.raises(UserError, match="cutmix"):
        ClipAugment(AugmentOptions(mixup=0.8, cutmix=1.0), 32, CLASSES)(batch)


def test_a_video_without_prediction_is_named_before_training(predictions: Path, tiny_ucf: Path, tmp_path: Path) -> None:
    lines = predictions.read_text().splitlines()
    lacking = tmp_path / "lacking.jsonl"
    lacking.write_text("\n".join(line for line in lines if "v_Diving_g03" not in line))
    with pytest.raises(UserError, match=r"lacking\.jsonl: says nothing of 1 training videos, e\.g\. \S*v_Diving_g03"):
        fit(tmp_path, module(teacher=str(lacking)), data(tiny_ucf))


def test_predictions_by_id_without_a_datamodule(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [
        {"video_id": "a", "probabilities": {"x": 0.9, "y": 0.1}},
        {"video_id": "b", "probabilities": {"x": 0.0, "y": 1.0}},
        {"video_id": "c", "probabilities": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stored = StoredTeacher(str(path), ["y", "x"])
    label = torch.zeros(2, dtype=torch.long)
    found = stored({"video_id": ["b", "a"], "label": label})
    assert torch.allclose(found.exp(), torch.tensor([[1.0, 0.0], [0.1, 0.9]]), atol=1e-6)
    assert torch.isfinite(found).all()
    with pytest.raises(UserError, match="d is not in it"):
        stored({"video_id": ["a", "d"], "label": label})
    with pytest.raises(UserError, match="c could not be read"):
        stored({"video_id": ["c"], "label": label})
    with pytest.raises(UserError, match="video_id"):
        stored({"label": label})


@pytest.mark.parametrize(
    "text",
    ["nonsense\n", '{"video_id": "a"}\n', "[1]\n", ""]
    + [json.dumps({"video_id": "a", "probabilities": dict.fromkeys(CLASSES, p)}) for p in (None, "x", math.nan)],
)
def test_a_malformed_file_of_predictions_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"p\.jsonl"):
        StoredTeacher(str(tmp_path / "p.jsonl"), CLASSES)
    with pytest.raises(UserError, match="No such file"):
        StoredTeacher(str(tmp_path / "nowhere.jsonl"), CLASSES)


def test_teachers_of_other_classes_are_refused() -> None:
    assert class_order(["a", "b", "c"], ["c", "a", "b"], "t.ckpt") == [2, 0, 1]
    with pytest.raises(UserError, match=r"t\.ckpt: does not know c"):
        class_order(["a", "b"], ["a", "b", "c"], "t.ckpt")
    with pytest.raises(UserError, match=r"t\.ckpt: also knows c"):
        class_order(["a", "b", "c"], ["a", "b"], "t.ckpt")


def test_a_teacher_does_not_learn_and_is_not_copied() -> None:
    import copy

    asked = AskedTeacher(VideoClassifier(2, "test_resnet", attention=None, temporal="mean", dim=0), [1, 0], "t.ckpt")
    assert copy.deepcopy(asked) is asked
    video: Tensor = torch.randint(256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    first = asked({"video": video})
    assert not first.requires_grad
    assert torch.equal(first, asked({"video": video}))  # evaluation mode: no dropout, no statistics
    assert torch.equal(first.flip(1), asked.model(video).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "choose one of"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"focal_gamma": -1.0}, "focal_gamma"),
        ({"distill_weight": 2.0}, "distill_weight"),
        ({"distill_temperature": 0.0}, "distill_temperature"),
        ({"teacher": "t.ckpt", "loss": "binary"}, "one class each"),
    ],
)
def test_wrong_settings_of_the_training_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "balanced_softmax"},
        {"loss": "focal", "class_weights": "balanced"},
        {"loss": "binary"},
        {"freeze": "layer3", "unfreeze_epoch": 0, "layer_decay": 0.5, "freeze_batchnorm": True},
    ],
)
def test_the_datamodule_says_how_many_videos_a_class_has(
    options: dict[str, Any], tiny_ucf: Path, tmp_path: Path
) -> None:
    net = module(**options)
    assert torch.isfinite(fit(tmp_path, net, data(tiny_ucf)).callback_metrics["train/loss"])
    if options.get("loss") == "balanced_softmax":
        assert torch.allclose(net.loss.log_counts.exp(), torch.full((3,), 4.0))


def test_numbers_are_names_of_videos_too(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [{"video_id": str(i), "probabilities": {"x": i / 10, "y": 1 - i / 10}} for i in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = StoredTeacher(str(path), ["x", "y"])({"video_id": torch.tensor([3, 1]), "label": torch.zeros(2)})  # type: ignore[typeddict-item]
    assert torch.allclose(found.exp()[:, 0], torch.tensor([0.3, 0.1]))


def test_a_teacher_that_is_asked_is_as_sure_as_its_stored_predictions() -> None:
    model = VideoClassifier(2, "test_resnet", attention=None, temporal="mean", dim=0)
    video: Tensor = torch.randint(256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    plain, calibrated = AskedTeacher(model, [0, 1], "t.ckpt"), AskedTeacher(model, [0, 1], "t.ckpt", temperature=1.7)
    assert torch.allclose(calibrated({"video": video}), plain({"video": video}) / 1.7)


def test_a_teacher_of_one_stream_takes_the_frames_of_pairs_and_one_of_two_needs_them() -> None:
    options: dict[str, Any] = {"attention": None, "temporal": "mean", "dim": 0}
    one = AskedTeacher(VideoClassifier(2, "test_resnet", **options), [0, 1], "t.ckpt")
    pairs: Tensor = torch.randint(256, (2, 2, 6, 32, 32), dtype=torch.uint8)
    assert torch.equal(one({"video": pairs}), one({"video": pairs[:, :, :3]}))
    two = AskedTeacher(VideoClassifier(2, "test_resnet", two_stream=True, **options), [0, 1], "t.ckpt")
    assert two({"video": pairs}).shape == (2, 2)
    with pytest.raises(UserError, match=r"t\.ckpt has two streams"):
        two({"video": pairs[:, :, :3]})
