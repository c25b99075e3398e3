"""Frame scores inside a Trainer: a film strip each epoch while it trains, and scores of every video that it predicts.

Both work with a LightningModule whose ``model`` has ``encode_frames`` and ``classify``, and with any loader of
`VideoBatch`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor, nn

from temporal_attn.evaluation.scoring import Scoring
from temporal_attn.keyframes.game import FrameGame
from temporal_attn.keyframes.inspection import InspectedFrame
from temporal_attn.keyframes.loggers import log_picture
from temporal_attn.keyframes.pictures import Image
from temporal_attn.keyframes.score_shards import ScoreShards, clip_digest
from temporal_attn.keyframes.scores import resolve_method, score_frames
from temporal_attn.keyframes.select import Evidence, select_keyframes, state_verdict, weigh_evidence
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.sheets import draw_strip
from temporal_attn.keyframes.tables import frame_rows, write_parquet
from temporal_attn.keyframes.time_mixing import EncodedClip, encode_clip
from temporal_attn.naming import video_names
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError, VideoBatch

__all__ = ["KeyframeCallback", "KeyframeWriter"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Scored:
    """One clip of a batch, scored."""

    game: FrameGame
    frames: list[InspectedFrame]
    evidence: Evidence


class KeyframeCallback(pl.Callback):
    """One film strip a chosen clip and validation, as a picture into every logger and as a PNG in the run's folder.

    The strips show what the model rests on while it learns. TensorBoard, Weights & Biases and MLflow take pictures;
    with any other logger, or none, the file is what there is: ``keyframes/<video id>/epoch_0003.png``. Rank zero alone
    works, on clips of its own share; methods with gradients work too, although validation runs without.

    Args:
        clips: Positions in the validation data set.
        method: One of `temporal_attn.keyframes.names`; a quick one, because training waits.
        topk: At most so many key frames.
        every_n_epochs: Epochs between two strips.
    """

    def __init__(
        self, clips: Sequence[int] = (0,), method: str = "loo+loi", topk: int = 3, every_n_epochs: int = 1
    ) -> None:
        resolve_method(method)
        self.clips, self.method, self.topk, self.every_n_epochs = tuple(clips), method, topk, every_n_epochs
        self._seen = 0
        self._folder = Path()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count clips from the first again, and find out where the run's folder is."""
        self._seen = 0
        # Rank zero tells the others: a process that asked by itself would wait for them for ever.
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the chosen clips of this batch."""
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs:
            return
        size = len(batch["features"] if "features" in batch else batch["video"])
        running = list(range(self._seen, self._seen + size))
        self._seen += size
        index = batch["index"].tolist() if "index" in batch else running
        names = video_names(batch)
        for row, position in enumerate(index):
            if position not in self.clips:
                continue
            if "video" not in batch:
                log.warning("no strip of clip %d: the batch holds cached features and no pictures", position)
                continue
            name = f"clip_{position}" if names is None else names[row]
            self._draw(trainer, pl_module, batch, row, name)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: VideoBatch, row: int, name: str) -> None:
        model = _model_of(pl_module)
        encoded = _calibrated(encode_clip(model, batch["video"][row : row + 1]), pl_module)
        scored = _score(encoded, batch, row, self.method, self.topk)
        classes = _class_names(pl_module, scored.game)
        target, p = classes[scored.game.target], scored.evidence.full
        times = [frame.pts for frame in scored.frames if frame.keyframe]
        image = draw_strip(
            f"{name}: {target}, p = {p:.2f}, epoch {trainer.current_epoch}",
            state_verdict(scored.evidence, target, times, (target, p)),
            scored.frames,
            _pictures(batch["video"][row, scored.game.players.to(batch["video"].device)]),
        )
        tag = f"keyframes/{_safe(name)}"
        log_picture(trainer.loggers, self._folder, tag, image, trainer.current_epoch, trainer.global_step)


class KeyframeWriter(BasePredictionWriter):
    """Frame scores of every video that `Trainer.predict` sees: ``keyframes.parquet``, one row a frame.

    Each process appends finished videos to a shard of its own, ``part-00000.jsonl``, from which rank zero makes the
    table of this run's videos at the end. A run that was stopped is started again with the same arguments, on any
    number of processes: a video that is in the shards under its ``video_id``, scored by the same model on the same
    frames, is not scored again, and no video has two entries. Batches without ``video_id`` are scored in each run anew.
    Use ``trainer.predict(..., return_predictions=False)`` for more videos than memory holds.

    Args:
        folder: Of the shards and the table; null takes ``keyframes`` in the run's folder.
        method: One of `temporal_attn.keyframes.names`.
        removal: What a removed frame becomes.
        topk: At most so many key frames a video.
        budget: Head evaluations of methods that sample.
        seed: Source of all samples.
    """

    def __init__(
        self,
        folder: str | None = None,
        method: str = "auto",
        removal: str = "drop",
        topk: int = 3,
        budget: int = BUDGET,
        seed: int = 0,
    ) -> None:
        super().__init__(write_interval="batch")
        resolve_method(method)
        self.folder, self.method, self.removal, self.topk = folder, method, removal, topk
        self.budget, self.seed = budget, seed
        self.scored = 0
        self._shards: ScoreShards | None = None
        self._tokens: Tensor | None = None
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find out what is done already, and that the folder can be written."""
        place = self.folder or str(Path(trainer.default_root_dir) / "keyframes")
        model = _model_of(pl_module)
        folder = writable_folder(place, "KeyframeWriter(folder=...)")
        self._shards = ScoreShards(folder, trainer.global_rank, self._digest(model, _temperature_of(pl_module)))
        self.scored = 0
        trainer.strategy.barrier("shards")  # every process has read what is there before one of them adds to it
        project = getattr(model, "project", None)
        if isinstance(project, nn.Module):
            # The prediction's own tokens pass here, so that the backbone need not see the clip twice.
            self._hook = project.register_forward_pre_hook(self._keep)

    def on_predict_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Forget the tokens of the last batch."""
        self._tokens = None

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,  # noqa: ANN401
        batch_indices: Sequence[int] | None,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Score the batch's videos that are not done, and append each as soon as it is."""
        assert self._shards is not None
        model, tokens = _model_of(pl_module), self._tokens
        size = len(batch["features"] if "features" in batch else batch["video"])
        for video in batch.get("failed", []):
            self._shards.append_failed(video["id"], video["reason"])
        own = video_names(batch)
        numbers: Sequence[object] = batch_indices or [f"{trainer.global_rank}-{batch_idx}-{row}" for row in range(size)]
        loader = f"{dataloader_idx}-" if dataloader_idx else ""
        for row, name in enumerate((own or [f"{loader}{number}" for number in numbers])[:size]):
            if not self._shards.needs(name, None if own is None else clip_digest(batch, row)):
                continue
            seen = tokens[row : row + 1] if tokens is not None and len(tokens) == size else None
            encoded = _calibrated(_encode(model, batch, row, seen), pl_module)
            scored = _score(encoded, batch, row, self.method, self.topk, self.removal, self.budget, self.seed)
            self._shards.append(name, self._document(name, scored, _class_names(pl_module, scored.game)))
            self.scored += 1

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the table on rank zero when all processes are done."""
        self._unhook()
        assert self._shards is not None
        trainer.strategy.barrier("keyframes")
        every: list[Any] = [(self._shards.seen, self._shards.resumed)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(every, every[0])
        if not trainer.is_global_zero:
            return
        seen = {name: clip for own, _ in every for name, clip in own.items()}
        if resumed := set[str]().union(*(own for _, own in every)):
            log.info("frame scores: %d of %d videos were done already", len(resumed), len(seen))
        videos = self._shards.table(seen)
        rows = [row for name in sorted(videos) for row in frame_rows(videos[name], name)]
        write_parquet(rows, self._shards.folder / "keyframes.parquet")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the model as it was where a run stops early."""
        self._unhook()

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _keep(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._tokens is None and args[0].ndim == 3:
            self._tokens = args[0].detach()

    def _document(self, name: str, scored: _Scored, classes: Sequence[str]) -> dict[str, Any]:
        game, evidence = scored.game, scored.evidence
        return {
            "video": name,
            "target": {"class": classes[game.target], "index": game.target},
            "against": None,
            "evidence": {"full": evidence.full, "finding": evidence.finding.value},
            "method": self.method,
            "removal": self.removal,
            "checkpoint_sha256": "",
            "frames": [
                {
                    "index": frame.index,
                    "pts": frame.pts,
                    "score": frame.score,
                    "ci": frame.ci,
                    "keyframe": frame.keyframe,
                    "rank": frame.rank,
                }
                for frame in scored.frames
            ],
        }

    def _digest(self, model: nn.Module, temperature: float | None) -> str:
        """Of the weights and of all that decides a score: other settings, other rows."""
        settings = (self.method, self.removal, self.topk, self.budget, self.seed, temperature)
        found = hashlib.sha256(repr(settings).encode())
        for name, tensor in sorted(model.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()


def _score(
    encoded: EncodedClip,
    batch: VideoBatch,
    row: int,
    method: str,
    topk: int,
    removal: str = "drop",
    budget: int = BUDGET,
    seed: int = 0,
) -> _Scored:
    """Score one clip of a batch for the class that the model predicts."""

    def own(key: str) -> Tensor | None:
        return cast(dict[str, Tensor], batch)[key][row : row + 1] if key in batch else None

    pts, index = own("pts"), own("frame_index")
    game = encoded.play(own("mask"), pts, index, removal=removal)
    scores = score_frames(game, method, budget=budget, seed=seed)
    players = game.players
    seconds = players.double().tolist() if pts is None else pts[0].cpu()[players].double().tolist()
    indices = players.tolist() if index is None else index[0].cpu()[players].tolist()
    chosen = select_keyframes(scores.values, seconds, topk)
    rank = {position: place for place, position in enumerate(chosen, start=1)}
    ends = [None] * len(players) if scores.ci is None else [(low, high) for low, high in scores.ci.tolist()]
    frames = [
        InspectedFrame(index, second, score, rank.get(position), ends[position])
        for position, (index, second, score) in enumerate(zip(indices, seconds, scores.values.tolist(), strict=True))
    ]
    return _Scored(game, frames, weigh_evidence(game, chosen, seed))


def _encode(model: Any, batch: VideoBatch, row: int, tokens: Tensor | None) -> EncodedClip:  # noqa: ANN401
    """One clip of a batch, whose tokens the prediction may have made already."""
    if "features" not in batch and (tokens is None or getattr(model, "mixes_time", False)):
        return encode_clip(model, batch["video"][row : row + 1])
    if getattr(model, "mixes_time", False):
        raise UserError(
            "KeyframeWriter: the backbone mixes time, so frames are left out of the video itself, and the batch holds "
            "cached features; predict from videos (data.cache_dir null)"
        )
    if tokens is None:
        with torch.inference_mode():
            tokens = model.encode_cached(batch["features"][row : row + 1]).tokens
    # Autocast made the prediction's tokens narrower than the head's weights, and is over by now.
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return EncodedClip(model, cast(Tensor, tokens).to(dtype), chunk=256)


def _calibrated(encoded: EncodedClip, pl_module: pl.LightningModule) -> EncodedClip:
    """The clip, asked for the probabilities that the module gives out, where it says how it scores."""
    scoring = getattr(pl_module, "scoring", None)
    if not isinstance(scoring, Scoring):
        return encoded
    return encoded._replace(temperature=scoring.temperature, multi_label=scoring.multi_label)


def _temperature_of(pl_module: pl.LightningModule) -> float | None:
    temperature = getattr(getattr(pl_module, "scoring", None), "temperature", None)
    return temperature if isinstance(temperature, float) else None


def _model_of(pl_module: pl.LightningModule) -> Any:  # noqa: ANN401
    model = getattr(pl_module, "model", None)
    if not isinstance(model, nn.Module) or not all(hasattr(model, name) for name in ("encode_frames", "classify")):
        raise UserError(
            f"{type(pl_module).__name__}: has no model with encode_frames and classify, which frame scores ask; use "
            "VideoClassificationModule"
        )
    return model


def _class_names(pl_module: pl.LightningModule, game: FrameGame) -> Sequence[str]:
    names: Sequence[str] | None = getattr(pl_module, "class_names", None)
    return names or [str(number) for number in range(game.full.logits.shape[1])]


def _pictures(video: Tensor) -> list[Image]:
    """Frames (P, 3, H, W) as pictures; a normalised float clip is brought back to a common range."""
    frames = video.detach()[:, :3].permute(0, 2, 3, 1).cpu()
    if frames.is_floating_point():
        low, high = frames.amin(), frames.amax()
        frames = (255 * (frames - low) / (high - low).clamp(min=1e-6)).byte()
    return list(np.asarray(frames))


def _safe(name: str) -> str:
    """A video's id as one folder name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).strip(".") or "clip"
