"""`KeyframeWriter`: frame scores of every video that `Trainer.predict` sees, exactly once.

It works with a LightningModule whose ``model`` has ``encode_frames`` and ``classify``, and with any loader of
`VideoBatch`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor, nn

from temporal_attn.keyframes.batch_scores import (
    ScoredClip,
    calibrated,
    class_names_of,
    model_of,
    score_clip,
    temperature_of,
)
from temporal_attn.keyframes.score_shards import ScoreShards, clip_digest
from temporal_attn.keyframes.scores import resolve_method
from temporal_attn.keyframes.shapley import BUDGET
from temporal_attn.keyframes.tables import frame_rows, write_parquet
from temporal_attn.keyframes.time_mixing import EncodedClip, encode_clip
from temporal_attn.naming import video_names
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError, VideoBatch

__all__ = ["KeyframeWriter"]

log = logging.getLogger(__name__)


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
        model = model_of(pl_module)
        folder = writable_folder(place, "KeyframeWriter(folder=...)")
        self._shards = ScoreShards(folder, trainer.global_rank, self._digest(model, temperature_of(pl_module)))
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
        model, tokens = model_of(pl_module), self._tokens
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
            encoded = calibrated(_encode(model, batch, row, seen), pl_module)
            scored = score_clip(encoded, batch, row, self.method, self.topk, self.removal, self.budget, self.seed)
            self._shards.append(name, self._document(name, scored, class_names_of(pl_module, scored.game)))
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

    def _document(self, name: str, scored: ScoredClip, classes: Sequence[str]) -> dict[str, Any]:
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
