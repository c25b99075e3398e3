"""Compute what lies below the cut once: a callback that fills a cache before training and trains from it."""

from __future__ import annotations

import hashlib
import logging
import random
from dataclasses import asdict, replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules.base import VideoDataModule
from datamodules.cache import CachedFeatures, FeatureStore
from datamodules.dataset import ClipSource, DecodedClips, VideoDataset
from datamodules.frame_store import FrameStore
from temporal_attn.model import VideoClassifier
from temporal_attn.types import UserError, VideoError, VideoRecord

__all__ = ["FeatureCache", "fingerprint"]

log = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def fingerprint(model: VideoClassifier) -> str:
    """Digest of everything below the cut: which parts, their weights and the normalisation."""
    digest = hashlib.sha256()
    backbone = model.backbone
    digest.update(repr(backbone.frozen_parts).encode())
    if backbone.frozen == "all" and model.spatial_tokens > 1:
        digest.update(f"cells {model.spatial_tokens}".encode())
    for tensor in (backbone.mean, backbone.std):
        digest.update(tensor.cpu().numpy().tobytes())
    for module in backbone.frozen_modules():
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


class FeatureCache(pl.Callback):
    """Fill the datamodule's ``cache_dir`` with the frozen part's output before `fit` or `validate`, and read from it.

    At their end, and where they stop early, the datamodule reads videos as before: the next model may be another. Does
    nothing when the datamodule has no ``cache_dir``. What is stored are the maps of the last frozen part, or pooled
    tokens when the whole backbone is frozen. Training videos are stored in several views, each with its own
    random frames and augmentation, of which every epoch draws one.

    What is stored is verified by its checksum when a run begins; what is damaged is computed anew. Several processes
    may fill one cache: each takes the videos in an order of its own and leaves out what is there by then, so that they
    share the work.

    Args:
        views: Stored views of a training video; more views augment more and take as much more time and room.
        batch_size: Clips that go through the frozen part at once.
        dtype: ``float16``, or ``bfloat16`` for backbones whose maps exceed 65,504.

    Attributes:
        stores: What a split is read from, by its name.
        computed: How many videos of a split were missing when this run began, and are stored now.
        failed: Why videos of a split could not be read, by id.

    Raises:
        UserError: ``cache_dir`` is set, but nothing of the backbone is frozen, or not for good.
    """

    def __init__(self, views: int = 2, batch_size: int = 4, dtype: Literal["float16", "bfloat16"] = "float16") -> None:
        if views < 1 or batch_size < 1:
            raise UserError(f"views and batch_size of the feature cache must be positive, got {views} and {batch_size}")
        if dtype not in _DTYPES:
            raise UserError(f"dtype of the feature cache is {dtype!r}; it has to be {' or '.join(_DTYPES)}")
        self.views = views
        self.batch_size = batch_size
        self.dtype = dtype
        self.stores: dict[str, FeatureStore] = {}
        self.computed: dict[str, int] = {}
        self.failed: dict[str, dict[str, str]] = {}
        self._taken: list[tuple[VideoDataset, ClipSource]] = []

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the datamodule read videos again: what is stored is of this model, and the next may be another."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same where a run ends early."""
        self._give_back()

    def _give_back(self) -> None:
        for dataset, source in self._taken:
            dataset.source = source
        self._taken = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fill for training and validation."""
        self._serve(trainer, pl_module, ("train", "val"))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fill for `validate`; inside `fit` this is done already."""
        if trainer.state.fn == "validate":
            self._serve(trainer, pl_module, ("val",))

    def _serve(self, trainer: pl.Trainer, pl_module: pl.LightningModule, splits: tuple[str, ...]) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(data, VideoDataModule) or data.cache_dir is None:
            return
        model = getattr(pl_module, "model", None)
        if not isinstance(model, VideoClassifier) or model.backbone.frozen == "none":
            raise UserError(
                f"cache_dir {data.cache_dir} is set, but nothing of the backbone is frozen: "
                "freeze a part of it (model.freeze), or leave cache_dir out"
            )
        if pl_module.hparams.get("unfreeze_epoch") is not None:
            raise UserError(f"cache_dir {data.cache_dir} is set, but unfreeze_epoch will train what it stores; set one")
        for split in splits:
            if data.has_videos(split):
                dataset = data.dataset(split)
                store = self.stores[split] = self.store(data, dataset, model)
                missing = [record for record in dataset.records if not _is_stored(store, record)]
                trainer.strategy.barrier("missing features")  # all ranks have looked before one of them writes
                failed = self._fill(trainer, data, dataset, store, model, missing)
                self.computed[split], self.failed[split] = len(missing) - len(failed), failed
                self._taken.append((dataset, dataset.source))
                dataset.source = CachedFeatures(store, failed)

    def store(self, data: VideoDataModule, dataset: VideoDataset, model: VideoClassifier) -> FeatureStore:
        """Where the features of a split are stored: a folder that is named after all that they depend on."""
        settings: dict[str, Any] = {"format": 2, "frozen": fingerprint(model), "clip": dict(dataset.clip)}
        settings |= {"reader": dataset.reader, "dtype": self.dtype}
        if isinstance(dataset.open_video, FrameStore):
            settings["frames"] = asdict(dataset.open_video.settings)
        if dataset.train:
            settings["train"] = {
                "views": self.views,
                "seed": dataset.seed,
                # Mixing happens to what is stored, in every epoch anew.
                "augment": asdict(replace(data.augment.options, mixup=0.0, cutmix=0.0, mix=1.0)),
            }
        assert data.cache_dir is not None
        return FeatureStore(data.cache_dir, settings)

    def _fill(
        self,
        trainer: pl.Trainer,
        data: VideoDataModule,
        dataset: VideoDataset,
        store: FeatureStore,
        model: VideoClassifier,
        missing: list[VideoRecord],
    ) -> dict[str, str]:
        """Compute what is absent; every rank takes its share. Returns why videos could not be read, by id."""
        from rich.console import Console
        from rich.progress import track

        share = missing[trainer.global_rank :: trainer.world_size]
        random.SystemRandom().shuffle(share)  # so that another program that fills the same cache computes others
        failed: dict[str, str] = {}
        if missing:
            log.info("caching features of %d of %d videos in %s", len(missing), len(dataset.records), store.folder)
        training = model.training
        model.eval()
        try:
            steps = range(0, len(share), self.batch_size)
            console = Console(stderr=True)
            hidden = trainer.global_rank != 0 or not steps or not console.is_terminal
            with model.backbone.folded_below_cut():
                for start in track(steps, description="features", console=console, disable=hidden):
                    batch = [r for r in share[start : start + self.batch_size] if not _is_stored(store, r)]
                    self.compute(batch, data, dataset, store, model, failed)
                    tenth = 10 * (start + self.batch_size) // len(share)
                    if not console.is_terminal and tenth > 10 * start // len(share):  # a bar would garble a log file
                        log.info("features of %d of %d videos", min(start + self.batch_size, len(share)), len(share))
        finally:
            model.train(training)
        trainer.strategy.barrier("features")
        return self._merge(failed, trainer.world_size)

    def compute(
        self,
        records: list[VideoRecord],
        data: VideoDataModule,
        dataset: VideoDataset,
        store: FeatureStore,
        model: VideoClassifier,
        failed: dict[str, str],
    ) -> None:
        """Compute and store the features of some videos.

        Args:
            records: The videos.
            data: Says how training augments.
            dataset: Of the split.
            store: Where they go.
            model: In evaluation mode.
            failed: Takes why videos could not be read, by id.

        Raises:
            UserError: The features do not fit into the type they are stored as, or the disk is full.
        """
        jitter = data.augment.options.jitter
        source = DecodedClips(dataset.clip, dataset.train, dataset.reader, dataset.open_video, jitter)
        views = self.views if dataset.train else 1
        clips: dict[str, list[dict[str, Tensor]]] = {}
        for record in records:
            try:
                clips[record.id] = [self._view(data, dataset, source, record, view) for view in range(views)]
            except VideoError as error:
                failed[record.id] = error.reason
        kept = [record for record in records if record.id in clips]
        if not kept:
            return
        device = next(model.parameters()).device
        video = torch.stack([view["video"] for record in kept for view in clips[record.id]]).to(device)
        features = model.below_cut(video).to(_DTYPES[self.dtype]).cpu()
        if not features.isfinite().all():
            raise UserError(
                f"what the frozen part makes of {kept[0].path}, or of a video beside it, does not fit into {self.dtype}"
                + ("; set --features.dtype bfloat16" if self.dtype == "float16" else "; its weights are no good")
            )
        for record, own in zip(kept, features.view(len(kept), views, *features.shape[1:]), strict=True):
            rest = {name: torch.stack([v[name] for v in clips[record.id]]) for name in ("mask", "pts", "frame_index")}
            store.write(record, {"features": own, **rest})

    def _view(
        self, data: VideoDataModule, dataset: VideoDataset, source: DecodedClips, record: VideoRecord, view: int
    ) -> dict[str, Tensor]:
        rng, seed = dataset.randomness(record, epoch=view)
        fields = source(record, rng)
        if dataset.train:
            fields["video"] = data.augment.clip(fields["video"], seed)
        return fields

    @staticmethod
    def _merge(failed: dict[str, str], world_size: int) -> dict[str, str]:
        if world_size == 1:
            return failed
        every: list[Any] = [None] * world_size
        torch.distributed.all_gather_object(every, failed)
        return {name: reason for part in every for name, reason in part.items()}


def _is_stored(store: FeatureStore, record: VideoRecord) -> bool:
    try:
        return record in store
    except VideoError:
        return False  # the file is gone; computing it will say so
