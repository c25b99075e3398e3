"""What all datamodules share: datasets by stage, loaders, augmentation on the device, and the count of failures."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import combinations
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from datamodules.dataset import VideoDataset, collate_clips
from datamodules.decoding import SafeOpener
from datamodules.exclusion import without_excluded
from datamodules.files import expand_paths
from datamodules.frame_store import FrameStore
from datamodules.manifest import Manifest
from datamodules.options import AugmentOptions, ClipOptions, LoaderOptions
from datamodules.readers import describe_engines
from datamodules.records import Account, Catalogue, RecordTable
from datamodules.resume import ResumableLoader, ResumableSampler
from datamodules.samplers import EpochSampler
from datamodules.transforms import ClipAugment
from datamodules.views import ONE_VIEW
from temporal_attn.types import ClipSpec, FailedVideo, UserError, VideoBatch, VideoRecord

__all__ = ["TooManyFailures", "VideoDataModule"]

_log = logging.getLogger(__name__)

_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
_TOLERATED_FAILURES = 5
_TOLERATED_SHARE = 0.01


class TooManyFailures(RuntimeError):
    """So many training videos cannot be read that the data set needs repair first."""


class VideoDataModule(pl.LightningDataModule, ABC):
    """Base of the datamodules. A subclass says which classes and videos there are, in `find_videos`.

    Labels follow the model: when the module being run has a list `class_names` (it comes from its checkpoint), that
    list and order hold, and in evaluation its `clip_spec` too, so that a checkpoint is judged as it was trained
    whatever lies on disk. A module without these attributes gets the data set's own. Both are read when a loader is
    asked for, because Lightning restores checkpoints after `setup`.

    Args:
        clip: How frames are picked and sized.
        augment: What training does to clips.
        loader: Batch size and workers, and what care is taken of files that may be broken.
        reader: ``auto``, or one engine for all files: ``decord``, ``pyav`` or ``torchcodec``.
        seed: Decides the split, the order of epochs, and every random draw.
        cache_dir: Folder for what callbacks may store of the data set, and where `temporal-attn doctor` may have left
            its manifest; None stores nothing.
        predict_paths: Files, folders and glob patterns of `predict`; None predicts on the test part.

    Raises:
        UserError: The seed is negative.
    """

    def __init__(
        self,
        clip: ClipOptions = ClipOptions(),
        augment: AugmentOptions = AugmentOptions(),
        loader: LoaderOptions = LoaderOptions(),
        reader: Literal["auto", "decord", "pyav", "torchcodec"] = "auto",
        seed: int = 0,
        cache_dir: str | None = None,
        predict_paths: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if seed < 0:
            raise UserError(f"seed is {seed}; it has to be 0 or more")
        self.clip = clip
        self.augment = ClipAugment(augment, clip.crop)
        self.loader = loader
        self.reader = reader
        self.seed = seed
        self.cache_dir = cache_dir
        self.predict_paths = tuple(predict_paths or ())
        self.failures: dict[str, dict[str, FailedVideo]] = defaultdict(dict)
        """Videos that could not be read, by split (``train``, ``val``, ``test``, ``predict``) and id."""
        self._stage = "fit"
        self._datasets: dict[str, VideoDataset] = {}

    @abstractmethod
    def find_videos(self) -> Catalogue:
        """Scans the disk; called once.

        Raises:
            UserError: A folder or list is missing or malformed.
        """

    @abstractmethod
    def explain_missing(self, split: str) -> str:
        """What was looked for and where, and the layout that would be understood, for a split without videos."""

    # What there is

    @cached_property
    def catalogue(self) -> Catalogue:
        """The data set as it lies on disk, scanned once, without the videos that are excluded."""
        catalogue = self.find_videos()
        if self.loader.exclude is not None:
            catalogue = without_excluded(catalogue, self.loader.exclude)
        if not any(catalogue.records.values()):
            raise UserError(self.explain_missing("train"))
        groups = {split: set(records.groups) for split, records in catalogue.records.items()}
        for one, other in combinations(groups, 2):
            shared = sorted(groups[one] & groups[other])
            if shared:
                _log.warning("%s and %s share %d groups of clips, e.g. %s", one, other, len(shared), shared[0])
        return catalogue

    @property
    def class_names(self) -> list[str]:
        """Names in label order: the running model's, otherwise the data set's own; needs no `setup`."""
        return self._model_class_names() or list(self.catalogue.class_names)

    @property
    def num_classes(self) -> int:
        """Length of `class_names`."""
        return len(self.class_names)

    @property
    def clip_spec(self) -> ClipSpec:
        """How evaluation cuts clips: as the running model was trained, otherwise as set here."""
        fitting = self.trainer is None or self.trainer.state.fn in (None, TrainerFn.FITTING)
        spec: ClipSpec | None = None if fitting else getattr(self._model(), "clip_spec", None)
        return self.clip.spec() if spec is None else spec

    @property
    def account(self) -> Account:
        """What was listed and found for the stage that was set up last; for training before that."""
        split, model_names = _SPLITS[self._stage][0], self._model_class_names()
        account = self._own_account(split)
        if split == "predict" or model_names is None:
            return account
        present = self._records(split).classes
        empty = tuple(name for label, name in enumerate(model_names) if label not in present)
        return replace(account, num_classes=len(model_names), empty_classes=empty)

    # Stages

    def has_videos(self, split: str) -> bool:
        """Whether a split (``train``, ``val``, ``test`` or ``predict``) holds any."""
        return bool(self._own_records(split))

    @property
    def batch_size(self) -> int:
        """Videos in a batch, see `LoaderOptions`; to be set by Lightning's search for the largest that fits."""
        return self.loader.batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.loader = replace(self.loader, batch_size=size)

    def setup(self, stage: str | None = None) -> None:
        """Finds the videos of one stage and says what was found.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``; None, as in a notebook, is ``fit``.

        Raises:
            UserError: There are none.
        """
        self._stage = TrainerFn(stage or "fit").value
        for split in _SPLITS[self._stage]:
            if self._own_records(split):
                continue
            if (self._stage, split) != ("fit", "val"):
                raise UserError(self.explain_missing(split))
            _log.warning("training goes on without validation: %s", self.explain_missing(split))
        if self.trainer is None or self.trainer.is_global_zero:
            self._announce()

    def dataset(self, split: str) -> VideoDataset:
        """The dataset of a split under the class names and clip of now; the same object as long as they hold."""
        records, views = self._records(split), self.clip.views if split in ("test", "predict") else ONE_VIEW
        if isinstance(self._open_video, FrameStore):
            self._open_video.check_clip(self.clip_spec, views.num_clips)
            self._open_video.check_records(records)
        dataset = VideoDataset(
            records,
            self.clip_spec,
            split == "train",
            self.reader,
            self.seed,
            self._open_video,
            len(self.class_names) if self._is_multi_label else None,
            self.augment.options.jitter,
            views,
        )
        known = self._datasets.get(split)
        if known is not None and (known.records, known.clip) == (dataset.records, dataset.clip):
            return known
        self._datasets[split] = dataset
        self._announce_model(split, dataset)
        return dataset

    @property
    def train_dataset(self) -> VideoDataset:
        """Training videos."""
        return self.dataset("train")

    @property
    def val_dataset(self) -> VideoDataset:
        """Validation videos."""
        return self.dataset("val")

    @property
    def test_dataset(self) -> VideoDataset:
        """Test videos."""
        return self.dataset("test")

    @property
    def predict_dataset(self) -> VideoDataset:
        """Videos of `predict_paths`, or of the test part."""
        return self.dataset("predict")

    def train_dataloader(self) -> DataLoader[VideoBatch]:
        """Batches in a new order each epoch; whole ones, unless there are too few videos for one."""
        self.augment.set_classes(self.class_names)
        return self._dataloader("train")

    def val_dataloader(self) -> DataLoader[VideoBatch] | list[DataLoader[VideoBatch]]:
        """Validation batches; no loader at all when the data set keeps nothing for validation."""
        return self._dataloader("val") if self.has_videos("val") else []

    def test_dataloader(self) -> DataLoader[VideoBatch]:
        """Test batches."""
        return self._dataloader("test")

    def predict_dataloader(self) -> DataLoader[VideoBatch]:
        """Batches of `predict_paths`, or of the test part."""
        return self._dataloader("predict")

    # Batches

    def on_before_batch_transfer(self, batch: VideoBatch, dataloader_idx: int) -> VideoBatch:
        """Counts and names the videos of the batch that could not be read.

        Raises:
            TooManyFailures: More than 5 training videos and more than 1 % of them.
        """
        stage = self.trainer.state.stage if self.trainer else None
        if batch.get("failed") and stage is not None:
            self._note_failures(stage.dataloader_prefix or "", batch["failed"])
        return batch

    def on_after_batch_transfer(self, batch: VideoBatch, dataloader_idx: int) -> VideoBatch:
        """Augments training clips, on the device."""
        return self.augment(batch) if self.trainer and self.trainer.training else batch

    def _note_failures(self, split: str, failed: Sequence[FailedVideo]) -> None:
        known = self.failures[split]
        for video in failed:
            if video["id"] not in known:
                known[video["id"]] = video
                _log.warning("%s: cannot read %s: %s", split, video["path"], video["reason"])
        limit = max(_TOLERATED_FAILURES, _TOLERATED_SHARE * len(self._own_records("train")))
        if split == "train" and len(known) > limit:
            named = "; ".join(f"{video['path']}: {video['reason']}" for video in known.values())
            raise TooManyFailures(f"{len(known)} training videos cannot be read (limit {int(limit)}): {named}")

    # Inside

    def _announce(self) -> None:
        splits = _SPLITS[self._stage]
        _log.info("%s: %s", self._stage, self._own_account(splits[0]))
        paths = [path for split in splits for path in self._own_records(split).paths]
        _log.info("%s: %s", self._stage, describe_engines(self._open_file.summarise(paths, self.reader), len(paths)))
        if isinstance(self._open_video, FrameStore):
            known = sum(self._open_video.find(path) is not None for path in paths)
            _log.info("%s: frames of %d of %d videos come from %s", self._stage, known, len(paths), self.loader.frames)

    def _model(self) -> pl.LightningModule | None:
        return None if self.trainer is None else self.trainer.lightning_module

    def _model_class_names(self) -> list[str] | None:
        names = getattr(self._model(), "class_names", None)
        return None if names is None else list(names)

    @cached_property
    def _open_video(self) -> SafeOpener | FrameStore:
        opener = self._open_file
        return opener if self.loader.frames is None else FrameStore.open(self.loader.frames, otherwise=opener)

    @cached_property
    def _open_file(self) -> SafeOpener:
        manifest = None if self.cache_dir is None else Manifest.load(self.cache_dir)
        return SafeOpener(self.loader.sandbox, self.loader.decode_timeout, manifest)

    @cached_property
    def _is_multi_label(self) -> bool:
        """Whether videos belong to several classes; files to predict on belong to none."""
        if self._stage == "predict" and self.predict_paths:
            return False
        return any(isinstance(label, tuple) for records in self.catalogue.records.values() for label in records.labels)

    @cached_property
    def _predict_records(self) -> RecordTable:
        if not self.predict_paths:
            return self.catalogue.records["test"]
        files = expand_paths(self.predict_paths)
        return RecordTable(VideoRecord(id=path, path=path, label=None, group=path) for path in files)

    def _own_records(self, split: str) -> RecordTable:
        return self._predict_records if split == "predict" else self.catalogue.records[split]

    def _own_account(self, split: str) -> Account:
        if split != "predict":
            return self.catalogue.accounts[split]
        count = len(self._predict_records)
        return Account(listed=count, found=count, missing=(), num_classes=0, empty_classes=())

    def _records(self, split: str) -> RecordTable:
        """Records whose labels index `class_names`."""
        records, names = self._own_records(split), self._model_class_names()
        if split == "predict" or names is None:
            return records
        own = self.catalogue.class_names
        unknown = [name for name in own if name not in names]
        if unknown:
            raise UserError(
                f"the model does not know the classes {', '.join(unknown)}; leave them out with `classes`, "
                f"which may name {', '.join(names)}"
            )
        return records.relabel([names.index(name) for name in own])

    def _announce_model(self, split: str, dataset: VideoDataset) -> None:
        """Says where the model's class names and clip differ from what was asked for here."""
        own: Mapping[str, object] = self.clip.spec()
        changed = [f"{key} {value} instead of {own[key]}" for key, value in dataset.clip.items() if value != own[key]]
        if changed:
            _log.info("%s: clips are cut as the model was trained: %s", split, ", ".join(changed))
        present = dataset.records.classes
        absent = [name for label, name in enumerate(self._model_class_names() or ()) if label not in present]
        if split != "predict" and absent:
            _log.warning("%s: %d classes of the model have no clips: %s", split, len(absent), ", ".join(absent))

    def _dataloader(self, split: str) -> DataLoader[VideoBatch]:
        dataset, options = self.dataset(split), self.loader
        sampler = self._train_sampler(dataset) if split == "train" else None
        parallel = options.num_workers > 0
        loader_class: type[DataLoader[Any]] = ResumableLoader if split == "train" else DataLoader
        return loader_class(
            dataset,
            batch_size=options.batch_size,
            sampler=sampler,
            drop_last=sampler is not None and len(sampler) >= options.batch_size,
            num_workers=options.num_workers,
            collate_fn=partial(collate_clips, clip=dataset.clip, multi_label=dataset.multi_label),
            pin_memory=options.pins_memory,
            multiprocessing_context=options.multiprocessing_context if parallel else None,
            persistent_workers=parallel,
            prefetch_factor=options.prefetch_factor if parallel else None,
            generator=torch.Generator().manual_seed(self.seed),  # leaves the global generator alone
        )

    def _train_sampler(self, dataset: VideoDataset) -> ResumableSampler:
        options = self.loader
        labels = self._single_labels(dataset.records) if options.balance else None
        sampler = EpochSampler(
            dataset, self.seed, repeats=options.repeats, labels=labels, balance=float(options.balance)
        )
        return ResumableSampler(sampler, options.batch_size, self._batches_done)

    def _single_labels(self, records: RecordTable) -> list[int]:
        """The class of each training video.

        Raises:
            UserError: One belongs to several, or to none.
        """
        labels = [label for label in records.labels if isinstance(label, int)]
        if len(labels) < len(records):
            raise UserError("loader.balance evens classes, but some videos belong to several or none; set it to false")
        return labels

    def _batches_done(self) -> int:
        """Batches of the running epoch that training has finished."""
        if self.trainer is None:
            return 0
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return int(progress.processed)
