"""VideoClassifier: a frame-by-frame backbone with attention in the maps, and attention over time on its tokens.

Frames are separable: `encode_frames` runs once, and every question about frames (leave one out, streaming, more
views) costs only `classify`. Only a motion cue, where one is asked for, gives that up (`mixes_time`). With identity
gates, zero output projections and zero pooling queries, a fresh model is its pretrained backbone with masked mean
pooling (TSN), so that every gain is the attention's.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from temporal_attn import temporal as temporal_models
from temporal_attn.backbones import FrameBackbone
from temporal_attn.temporal.cells import CellEncoder, CellProjection
from temporal_attn.temporal.motion import build_motion
from temporal_attn.two_stream import TwoStreamBackbone
from temporal_attn.types import FrameFeatures, ModelOutput, UserError

__all__ = ["VideoClassifier"]


class VideoClassifier(nn.Module):
    """timm backbone → frame attention → spatial pooling → LayerNorm, Linear → temporal encoder → linear head.

    Args:
        num_classes: K.
        backbone: A timm model name, or several joined by ``+``, see `FrameBackbone`.
        weights: ``none``, ``hub``, ``pypi`` or a file, see `FrameBackbone`.
        attention: Frame attention by name, by the path of a class ``package.module.Class``, or None.
        attention_at: ``conv``, ``norm``, ``block``, ``stage`` or names of the net's modules, see `insert_attention`.
        attention_stages: Stage numbers from 1, None for all.
        attention_gate: ``identity``, ``sigmoid`` or ``residual``; None for a class that knows no gate.
        attention_options: Further arguments of the attention module.
        freeze: ``none``, ``all`` or the name of the backbone's last frozen part.
        temporal: One of `temporal_attn.temporal.names`: ``mean``, ``attention_pool``, ``transformer``, ….
        dim: Width D of the temporal model; 0 keeps the backbone's own tokens without a projection.
        depth: Self-attention blocks over time.
        heads: Attention heads over time.
        mlp_ratio: Width of the blocks' MLP over D.
        dropout: In the temporal blocks, and before the head.
        drop_path: Stochastic depth of the temporal blocks.
        frame_dropout: Share of training clips that keep only a random part of their frames, so that clips with
            frames left out are nothing new to the model when frame importance is asked.
        mean: Channel means that normalise RGB in [0, 1]; None takes the backbone's.
        std: Likewise.
        gradient_checkpointing: Recompute the backbone in the backward pass instead of storing its activations.
        freeze_batchnorm: Keep the pretrained BatchNorm statistics in the backbone's trained parts too.
        temporal_options: Further options of the temporal model, see `temporal_attn.temporal.build`.
        spatial_tokens: n: the maps are pooled to n × n cells, and the temporal model sees the cells of all frames; 1
            pools each frame into one token. The model starts as the mean over cells and frames.
        motion: ``difference`` or ``shift``, a cue that mixes neighbouring frames in the backbone, or None. It acts on
            the maps at the cut where a part of the backbone is frozen, so that all that trains above it can use it; on
            the pooled cells where all of it is frozen; else on the last maps.
        two_stream: Whether the backbone sees, besides each frame, the difference of the one that follows shortly after
            (``clip.lag`` of the data), see `TwoStreamBackbone`. Tokens are twice as wide, and frames stay separable.

    Shape:
        video (B, T, 3, H, W) uint8 or normalised float, mask (B, T) bool, pts (B, T) seconds; logits (B, K), frame
        weights (B, T). Tokens are C' = n² · width of the backbone's wide, the n² cells of a frame side by side.

    Raises:
        UserError: An argument names something that does not exist, or widths do not divide.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        weights: str = "none",
        attention: str | None = "cbam",
        attention_at: str | list[str] = "block",
        attention_stages: list[int] | None = None,
        attention_gate: str | None = "identity",
        attention_options: Mapping[str, Any] | None = None,
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
        temporal_options: Mapping[str, Any] | None = None,
        spatial_tokens: int = 1,
        motion: str | None = None,
        two_stream: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"num_classes must be at least 1, got {num_classes}")
        if spatial_tokens < 1:
            raise UserError(f"spatial_tokens is the cells along a side of the maps, at least 1, got {spatial_tokens}")
        if not 0 <= frame_dropout <= 1:
            raise UserError(f"frame_dropout is a share of clips in [0, 1], got {frame_dropout}")
        for argument, value in (("dim", dim), ("depth", depth)):
            if value < 0:
                raise UserError(f"{argument} must not be negative, got {value}")
        for argument, share in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= share < 1:
                raise UserError(f"{argument} is a probability in [0, 1), got {share}")
        self.num_classes = num_classes
        self.frame_dropout = frame_dropout
        settings = (
            backbone,
            weights,
            attention,
            attention_at,
            attention_stages,
            attention_gate,
            attention_options,
            freeze,
            mean,
            std,
            gradient_checkpointing,
            freeze_batchnorm,
        )
        self.backbone = TwoStreamBackbone(*settings) if two_stream else FrameBackbone(*settings)
        self.spatial_tokens = spatial_tokens
        width, cells = self.backbone.width, spatial_tokens**2
        self.project: nn.Module = nn.Identity()  # the temporal model normalises what it pools
        if cells > 1:
            self.project = CellProjection(width, dim, cells)
        elif dim:
            self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
        size = (dim or width, heads, depth, mlp_ratio, dropout, drop_path)
        try:
            encoder = temporal_models.build(temporal, *size, **(temporal_options or {}))
            self.temporal: nn.Module = encoder if cells == 1 else CellEncoder(encoder, cells)
            self._moved_after = self._place_of_motion()
            self.motion = None if motion is None else build_motion(motion, self._channels_of_motion())
        except ValueError as error:
            raise UserError(str(error)) from None
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim or width, num_classes))

    @classmethod
    def from_settings(cls, num_classes: int, settings: Mapping[str, Any]) -> VideoClassifier:
        """A classifier of those settings that are arguments of it; the others belong to its training.

        Args:
            num_classes: K.
            settings: Such as the hyperparameters of a checkpoint.
        """
        known = signature(cls).parameters.keys() & settings.keys()
        return cls(num_classes, **{name: settings[name] for name in known})

    @property
    def mixes_time(self) -> bool:
        """Whether a frame's token depends on other frames, by a motion cue.

        Then tokens answer only for the clip that they were made of: leaving a frame out takes a pass of the backbone.
        """
        return self.motion is not None

    def encode_frames(self, video: Tensor, *, maps: bool = False) -> FrameFeatures:
        """What the backbone says of each frame, before any projection.

        Args:
            video: (B, T, 3, H, W), uint8 or normalised float.
            maps: Whether to return the maps too.

        Returns:
            Tokens (B, T, C') and, on request, maps (B, T, C, h, w).
        """
        return self._encode(video, None, cached=False, maps=maps)

    def encode_cached(self, features: Tensor, *, maps: bool = False) -> FrameFeatures:
        """Carry on from what `below_cut` made: maps (B, T, C, h, w), or tokens (B, T, C'), which are done already."""
        return self._encode(features, None, cached=True, maps=maps)

    def pool_maps(self, maps: Tensor) -> Tensor:
        """Tokens (N, C') of the backbone's last maps (N, C, h, w)."""
        return self._side_by_side(self._cells(maps))

    def _encode(self, clips: Tensor, mask: Tensor | None, *, cached: bool, maps: bool = False) -> FrameFeatures:
        """Tokens (B, T, C') of real frames; padding costs nothing and stays out of batch statistics."""
        if not cached and (clips.ndim != 5 or clips.shape[2] != 3 * self.backbone.streams):
            raise ValueError(f"a video is (B, T, {3 * self.backbone.streams}, H, W), got {tuple(clips.shape)}")
        real = torch.ones(clips.shape[:2], dtype=torch.bool, device=clips.device) if mask is None else mask
        whole = mask is None or bool(mask.all())
        frames = clips.flatten(0, 1) if whole else clips[real]
        if cached:
            frames = frames.to(next(self.head.parameters()).dtype)
        spatial = self._maps_of_cached(frames, real) if cached else self._maps_of_video(frames, real)
        tokens = self._tokens(spatial, real)
        if whole:
            found = spatial.view(*real.shape, *spatial.shape[1:]) if maps else None
            return FrameFeatures(tokens.view(*real.shape, -1), found)
        clip = tokens.new_zeros(*real.shape, tokens.shape[-1])
        clip[real] = tokens
        return FrameFeatures(clip)

    def _maps_of_video(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Last maps (N, C, h, w) of real frames (N, 3, H, W)."""
        if self.motion is None or self._moved_after is None:
            return self.backbone.maps(frames)
        lower, upper = self._parts_around_motion()
        below = self.backbone.run_parts(lower, self.backbone.normalise(frames))
        return self.backbone.run_parts(upper, self._move(below, mask))

    def _maps_of_cached(self, features: Tensor, mask: Tensor) -> Tensor:
        """Last maps of what `below_cut` made of real frames; tokens (N, C') stay as they are."""
        if features.ndim == 2:
            return features
        if self.motion is not None and self._moved_after is not None:
            features = self._move(features, mask)
        return self.backbone.above_cut(features)

    def _tokens(self, spatial: Tensor, mask: Tensor) -> Tensor:
        """Tokens (N, C') of the real frames' last maps, or of their pooled tokens."""
        cells = self._cells(spatial) if spatial.ndim > 2 else spatial[..., None, None]
        if self.motion is not None and self._moved_after is None:
            cells = self._move(cells, mask)
        return self._side_by_side(cells)

    def _cells(self, maps: Tensor) -> Tensor:
        """Pooled cells (N, C', n, n) of last maps (N, C, h, w)."""
        side = self.spatial_tokens
        if side == 1:
            return self.backbone.pool(maps)[..., None, None]
        if maps.ndim != 4 or maps.shape[1] != self.backbone.channels:
            raise UserError(
                f"spatial_tokens={side} needs maps (C, h, w), and the backbone makes {tuple(maps.shape[1:])}: take "
                "spatial_tokens=1, or a convolutional backbone"
            )
        # Each cell goes by itself through what the net has behind its pooling.
        alone = adaptive_avg_pool2d(maps, side).permute(0, 2, 3, 1).flatten(0, 2)[..., None, None]
        return self.backbone.pool(alone).view(len(maps), side, side, -1).permute(0, 3, 1, 2)

    @staticmethod
    def _side_by_side(cells: Tensor) -> Tensor:
        """Tokens (N, n² · C') of cells (N, C', n, n)."""
        return cells.flatten(2).transpose(1, 2).flatten(1)

    def _move(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Maps (N, C, h, w) of the real frames after the motion cue."""
        assert self.motion is not None
        clips = maps.new_zeros(*mask.shape, *maps.shape[1:])
        clips[mask] = maps
        return self.motion(clips, mask)[mask].contiguous(memory_format=torch.channels_last)  # type: ignore[no-any-return]

    def _place_of_motion(self) -> str | None:
        """The backbone's part behind which a motion cue acts; None for the pooled cells."""
        if self.backbone.frozen == "all" or not self.backbone.parts:
            return None
        return (self.backbone.frozen_parts or list(self.backbone.parts))[-1]

    def _parts_around_motion(self) -> tuple[list[str], list[str]]:
        parts = list(self.backbone.parts)
        at = parts.index(str(self._moved_after)) + 1
        return parts[:at], parts[at:]

    @torch.no_grad()
    def _channels_of_motion(self) -> int:
        if self._moved_after is None:
            return self.backbone.width
        self.backbone.eval()
        picture = torch.zeros(1, 3 * self.backbone.streams, 64, 64, device=self.backbone.mean.device)
        maps = self.backbone.run_parts(self._parts_around_motion()[0], picture)
        self.backbone.train()
        return maps.shape[1]

    @torch.no_grad()
    def below_cut(self, video: Tensor) -> Tensor:
        """Output of the frozen part of the backbone, the thing to cache.

        Args:
            video: (B, T, 3, H, W).

        Returns:
            Maps (B, T, C, h, w); when the whole backbone is frozen tokens (B, T, C'), or its last maps pooled to
            (B, T, C, n, n) for n × n cells.

        Raises:
            UserError: Nothing is frozen.
        """
        if self.backbone.frozen == "none":
            raise UserError("nothing of the backbone is frozen (freeze: none), so there is nothing to cache")
        frames = video.flatten(0, 1)
        if self.backbone.frozen == "all" and self.spatial_tokens > 1:
            out = adaptive_avg_pool2d(self.backbone.maps(frames), self.spatial_tokens)
        else:
            out = self.backbone.below_cut(frames)
        return out.view(*video.shape[:2], *out.shape[1:])

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        """Logits from frame tokens: the cheap part.

        Args:
            tokens: (B, T, C') of `encode_frames`.
            mask: (B, T) bool, True = a real frame; None means all are. A clip without any frame gets the
                head's answer to what the pool makes of nothing: logits without evidence.
            pts: (B, T) seconds; None puts frames one second apart.
        """
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        # What stands in padding may be anything, NaN included: replace it before it meets a matrix.
        return self.classify_projected(self.project(torch.where(mask[..., None], tokens, 0)), mask, pts)

    def classify_projected(self, tokens: Tensor, mask: Tensor, pts: Tensor | None = None) -> ModelOutput:
        """Logits from tokens that ``project`` has seen: what is left to do when one clip is asked many questions.

        Args:
            tokens: (B, T, D), ``project`` of frame tokens.
            mask: (B, T) bool, True = a real frame.
            pts: (B, T) seconds; None puts frames one second apart.
        """
        if pts is None:
            pts = torch.arange(tokens.shape[1], device=tokens.device).expand(mask.shape)
        feature, weights = self.temporal(tokens, mask, pts)
        return ModelOutput(self.head(feature), weights)

    def drop_frames(self, mask: Tensor) -> Tensor:
        """Leave a random number of frames out of a random share of clips; every clip keeps at least one.

        Args:
            mask: (B, T) bool.
        """
        rank = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2).argsort(1).argsort(1)
        keep = 1 + (torch.rand(mask.shape[0], 1, device=mask.device) * mask.sum(1, keepdim=True)).long()
        chosen = torch.rand(mask.shape[0], 1, device=mask.device) < self.frame_dropout
        return mask & (~chosen | (rank < keep))

    def forward(
        self,
        video: Tensor | None = None,
        mask: Tensor | None = None,
        pts: Tensor | None = None,
        features: Tensor | None = None,
    ) -> ModelOutput:
        """Logits and frame weights of clips.

        Args:
            video: (B, T, 3, H, W), uint8 or normalised float.
            mask: (B, T) bool, True = a real frame.
            pts: (B, T) seconds.
            features: Instead of video: the cached output of `below_cut`.
        """
        clips = video if features is None else features
        if clips is None:
            raise ValueError("give a video (B, T, 3, H, W) or cached features")
        kept = mask
        if self.training and self.frame_dropout:
            whole = torch.ones(clips.shape[:2], dtype=torch.bool, device=clips.device)
            kept = self.drop_frames(whole if mask is None else mask)
        # What is compiled would be compiled anew for other numbers of frames; where frames are mixed, what is dropped
        # must not have left its trace in others.
        all_of_them = torch.compiler.is_compiling() and not self.mixes_time
        tokens = self._encode(clips, mask if all_of_them else kept, cached=features is not None).tokens
        return self.classify(tokens, kept, pts)
