"""The feature cache: what it gives equals what the model computes from the frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from datamodules import UCF101DataModule
from datamodules.cache import FeatureStore
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from temporal_attn.features import FeatureCache, fingerprint
from temporal_attn.model import VideoClassifier
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError, VideoRecord


def data(tiny: Path, cache: Path | None, **options: Any) -> UCF101DataModule:
    return UCF101DataModule(
        str(tiny / "root"),
        str(tiny / "splits"),
        val_groups=[7, 8],
        clip=ClipOptions(num_frames=4, resize=32, crop=32),
        loader=LoaderOptions(batch_size=4),
        cache_dir=None if cache is None else str(cache),
        **options,
    )


def module(**options: Any) -> VideoClassificationModule:
    pl.seed_everything(0, verbose=False)
    settings = {"backbone": "test_resnet", "dim": 32, "heads": 4, "depth": 1, "freeze": "layer3"}
    return VideoClassificationModule(**{"attention_at": "stage", "attention_stages": [4], **settings, **options})


class Batch(pl.Callback):
    """Keeps the first training batch as the loader gave it."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not hasattr(self, "features"):
            self.keys, self.features = set(batch), batch.get("features")


def part(trainer: pl.Trainer, kind: type[Any]) -> Any:
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]


def run(folder: Path, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    settings = {"max_epochs": 1, "accelerator": "cpu", "enable_model_summary": False, "num_sanity_val_steps": 0}
    return pl.Trainer(
        default_root_dir=str(folder), callbacks=[FeatureCache(views=2), Batch()], **{**quiet, **settings, **options}
    )


@pytest.fixture
def cached(tiny_ucf: Path, tmp_path: Path) -> tuple[Any, VideoClassificationModule, pl.Trainer]:
    source, net = data(tiny_ucf, tmp_path / "cache"), module()
    trainer = run(tmp_path)
    trainer.fit(net, datamodule=source)
    return source, net, trainer


def test_validation_from_the_cache_equals_validation_from_frames(cached: Any, tiny_ucf: Path, tmp_path: Path) -> None:
    source, net, _ = cached
    (from_cache,) = run(tmp_path).validate(net, datamodule=source, verbose=False)
    (from_frames,) = run(tmp_path).validate(net, datamodule=data(tiny_ucf, None), verbose=False)
    assert from_cache["val/loss"] == pytest.approx(from_frames["val/loss"], abs=1e-3)
    assert from_cache["val/top1"] == from_frames["val/top1"]


def test_batches_hold_features_instead_of_frames(cached: Any) -> None:
    _, net, trainer = cached
    batch = part(trainer, Batch)
    assert "video" not in batch.keys
    assert batch.features.shape[:2] == (4, 4)
    assert batch.features.dtype == torch.float16
    assert net.model.encode_cached(batch.features).tokens.shape == (4, 4, net.model.backbone.width)


def test_stored_features_are_those_of_the_augmented_clip(cached: Any) -> None:
    """Independent path: decode and augment with the datamodule, run the frozen part, look for it among the views."""
    source, net, trainer = cached
    dataset = source.train_dataset
    store = part(trainer, FeatureCache).stores["train"]
    frames = UCF101DataModule(source.root, source.splits, val_groups=[7, 8], clip=source.clip).train_dataset
    net.eval()
    for record in dataset.records[:3]:
        stored = [store.read(record, np.random.default_rng(seed)) for seed in range(12)]
        index = [r.id for r in frames.records].index(record.id)
        for epoch in (0, 1):
            item = frames[(index, epoch)]
            clip = source.augment.clip(item["video"], item["seed"])
            expected = net.model.below_cut(clip[None])[0].half()
            assert any(torch.allclose(view["features"], expected, atol=1e-2) for view in stored)


def test_batch_norms_are_folded_while_features_are_computed_and_not_afterwards(
    tiny_ucf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded = []

    def below_cut(self: VideoClassifier, video: torch.Tensor) -> torch.Tensor:
        norms = [module for module in self.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        folded.append(sum("forward" in vars(norm) for norm in norms))
        return original(self, video)

    original = VideoClassifier.below_cut
    monkeypatch.setattr(VideoClassifier, "below_cut", below_cut)
    run(tmp_path).fit(net := module(), datamodule=data(tiny_ucf, tmp_path / "cache"))
    assert folded
    assert min(folded) > 0
    assert not any("forward" in vars(own) for own in net.modules())


def test_the_whole_backbone_frozen_stores_tokens(tiny_ucf: Path, tmp_path: Path) -> None:
    source, net = data(tiny_ucf, tmp_path / "cache"), module(freeze="all", attention=None)
    trainer = run(tmp_path)
    trainer.fit(net, datamodule=source)
    assert part(trainer, Batch).features.shape == (4, 4, net.model.backbone.width)


def test_a_second_run_computes_nothing(
    cached: Any, tiny_ucf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object) -> None:
        raise AssertionError("computed features that are stored already")

    monkeypatch.setattr(FeatureCache, "compute", computed)
    run(tmp_path).fit(module(), datamodule=data(tiny_ucf, tmp_path / "cache"))


def test_what_another_program_stores_meanwhile_is_not_computed_again(
    tiny_ucf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, asked = FeatureCache.compute, {True: [], False: []}

    def compute(self: FeatureCache, records: list[VideoRecord], data: Any, dataset: Any, *rest: Any) -> None:
        if not asked[dataset.train]:
            original(self, list(dataset.records), data, dataset, *rest)  # the other one was faster
        asked[dataset.train].append(len(records))

    monkeypatch.setattr(FeatureCache, "compute", compute)
    run(tmp_path).fit(module(), datamodule=data(tiny_ucf, tmp_path / "cache"))
    for first, *later in asked.values():
        assert first > 0
        assert sum(later) == 0
    assert len(asked[True]) > 1


def test_an_interrupted_filling_goes_on(tiny_ucf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = FeatureCache.compute, []

    def stops(self: FeatureCache, records: list[VideoRecord], *rest: Any) -> None:
        calls.append(len(records))
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(self, records, *rest)

    monkeypatch.setattr(FeatureCache, "compute", stops)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path).fit(module(), datamodule=data(tiny_ucf, tmp_path / "cache"))
    done = calls[0] + calls[1]
    calls.clear()
    calls.extend([0, 0, 0])  # never stop again
    run(tmp_path).fit(module(), datamodule=data(tiny_ucf, tmp_path / "cache"))
    training, validation = 12, 6
    assert sum(calls) == training + validation - done


@pytest.mark.parametrize("change", ["weights", "clip", "augment", "views"])
def test_other_settings_get_another_folder(cached: Any, tiny_ucf: Path, tmp_path: Path, change: str) -> None:
    source, net, trainer = cached
    cache, dataset = FeatureCache(views=3 if change == "views" else 2), source.train_dataset
    first = part(trainer, FeatureCache).stores["train"].folder
    assert FeatureCache(views=2).store(source, dataset, net.model).folder == first
    if change == "weights":
        with torch.no_grad():
            next(net.model.backbone.net.conv1.parameters()).add_(0.1)
    if change == "clip":
        dataset.clip = {**dataset.clip, "num_frames": 5}
    if change == "augment":
        source = data(tiny_ucf, tmp_path / "cache", augment=AugmentOptions(flip=0.1))
    assert cache.store(source, dataset, net.model).folder != first


def test_trained_weights_above_the_cut_do_not_matter(cached: Any) -> None:
    _, net, _ = cached
    before = fingerprint(net.model)
    with torch.no_grad():
        net.model.head[1].weight.add_(1)
        next(net.model.backbone.net.layer4.parameters()).add_(1)
    assert fingerprint(net.model) == before


def test_a_changed_or_damaged_file_is_computed_anew(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    record = VideoRecord("a", str(video), 0, "g")
    store = FeatureStore(str(tmp_path / "cache"), {"x": 1})
    tensors = {name: torch.zeros(2, 3) for name in ("features", "mask", "pts", "frame_index")}
    assert record not in store
    store.write(record, tensors)
    assert record in store
    path = store.path(record)
    path.write_bytes(path.read_bytes()[:-4])
    assert record not in store
    store.write(record, tensors)
    video.write_bytes(b"another")
    assert record not in store


def test_an_unreadable_video_is_counted(tiny_ucf: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_ucf, copy)
    broken = copy / "root" / "Archery" / "v_Archery_g07_c01.mp4"
    broken.write_bytes(b"")
    source = data(copy, tmp_path / "cache")
    trainer = run(tmp_path)
    trainer.fit(module(), datamodule=source)
    assert list(source.failures["val"]) == ["Archery/v_Archery_g07_c01"]
    assert "empty" in source.failures["val"]["Archery/v_Archery_g07_c01"]["reason"]


def test_nothing_frozen_is_an_error(tiny_ucf: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.freeze"):
        run(tmp_path).fit(module(freeze="none"), datamodule=data(tiny_ucf, tmp_path / "cache"))


def test_unfreezing_what_is_stored_is_an_error(tiny_ucf: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unfreeze_epoch"):
        run(tmp_path).fit(module(unfreeze_epoch=1), datamodule=data(tiny_ucf, tmp_path / "cache"))


class Seen(pl.Callback):
    """What the batches of each stage hold."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.keys |= set(batch)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, *_: Any) -> None:
        self.keys |= set(batch)


@pytest.mark.parametrize("ends", ["at the end", "early"])
def test_the_next_model_sees_videos_again(tiny_ucf: Path, tmp_path: Path, ends: str) -> None:
    class Stops(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise ValueError("enough")

    source = data(tiny_ucf, tmp_path / "cache")
    if ends == "early":
        early = run(tmp_path)
        early.callbacks.append(Stops())  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="enough"):
            early.fit(module(), datamodule=source)
    else:
        net = module()
        run(tmp_path).fit(net, datamodule=source)
        run(tmp_path).validate(net, datamodule=source, verbose=False)
    seen = Seen()
    plain = pl.Trainer(
        default_root_dir=str(tmp_path), callbacks=[seen], max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    plain.fit(module(freeze="none"), datamodule=source)
    assert "video" in seen.keys
    assert "features" not in seen.keys


def test_a_stranger_is_left_alone(tiny_ucf: Path, tmp_path: Path) -> None:
    """Without cache_dir the callback does nothing, whatever the module is."""
    net = module(freeze="none")
    run(tmp_path).fit(net, datamodule=data(tiny_ucf, None))
    assert not list(tmp_path.glob("**/*.safetensors"))
