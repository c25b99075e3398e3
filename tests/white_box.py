"""Models whose every answer is planted, so that each frame score is known in closed form."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from temporal_attn.model import VideoClassifier
from temporal_attn.temporal import AttentionPool, TemporalEncoder
from temporal_attn.temporal.blocks import SelfAttentionBlock
from temporal_attn.types import ModelOutput


class Head(nn.Module, ABC):
    """A head with planted logits; a token is what its frame says for each class, (B, T, K)."""

    def __init__(self, bias: list[float]) -> None:
        super().__init__()
        self.bias = torch.tensor(bias)
        self.calls: list[int] = []
        self.eval()

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        batch, length, _ = tokens.shape
        mask = torch.ones(batch, length, dtype=torch.bool) if mask is None else mask
        assert mask.shape == (batch, length)
        assert pts is None or pts.shape == (batch, length)
        self.calls.append(batch)
        weights = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
        return ModelOutput(self.bias + self.evidence(tokens, mask, pts), weights)

    @abstractmethod
    def evidence(self, tokens: Tensor, mask: Tensor, pts: Tensor | None) -> Tensor:
        """Logits (B, K) that the frames add."""


class Additive(Head):
    """Every frame adds its own."""

    def evidence(self, tokens, mask, pts):
        return (tokens * mask[..., None]).sum(1)


class Either(Head):
    """One frame that shows it is enough: an OR."""

    def evidence(self, tokens, mask, pts):
        return (tokens * mask[..., None]).amax(1)


class Together(Head):
    """Class 0 gains 6 when frames 1 and 3 are both seen: an AND."""

    def evidence(self, tokens, mask, pts):
        both = (mask[:, 1] & mask[:, 3]).float()
        return torch.stack([6 * both] + [torch.zeros_like(both)] * (len(self.bias) - 1), 1)


class InTime(Head):
    """What a frame says is scaled by its second."""

    def evidence(self, tokens, mask, pts):
        return (tokens * (mask * pts)[..., None]).sum(1)


class WhiteBox(nn.Module):
    """A real temporal model and head, with planted weights.

    A token is (evidence for each of three classes, how much the pool looks at the frame). Three of its four channels go
    straight to the logits, weighed by the softmax of the fourth:

        logits(S) = bias + Σ_{t ∈ S} w_t evidence_t,   w = softmax over S of the fourth channel.

    Args:
        uniform_block: Put a self-attention block before the pool in which every frame attends to all frames alike, and
            from which nothing is added.
    """

    BIAS = (0.3, -0.2, 0.1)

    def __init__(self, uniform_block: bool = False) -> None:
        super().__init__()
        pool = AttentionPool(4, heads=1)
        block = SelfAttentionBlock(4, heads=1)
        head = nn.Linear(4, 3)
        with torch.no_grad():
            pool.query.copy_(torch.tensor([[1.0, 0, 0, 0]]))
            pool.key.weight.zero_()[0, 3] = 2.0  # the square root of the width, which the pool divides by
            pool.key.bias.zero_()
            head.weight.copy_(torch.eye(3, 4))
            head.bias.copy_(torch.tensor(self.BIAS))
            block.qkv.weight.zero_()
            block.qkv.bias.zero_()
        self.project = nn.Identity()
        self.temporal = TemporalEncoder(4, pool, [block] if uniform_block else [])
        self.temporal.norm = nn.Identity()
        self.head = nn.Sequential(nn.Dropout(0.5), head)
        self.eval()

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        return self.classify_projected(self.project(tokens), mask, pts)

    def classify_projected(self, tokens: Tensor, mask: Tensor, pts: Tensor | None = None) -> ModelOutput:
        pts = torch.arange(tokens.shape[1]).expand(mask.shape) if pts is None else pts
        feature, weights = self.temporal(tokens, mask, pts)
        return ModelOutput(self.head(feature), weights)


class WhiteBoxTruth:
    """What `WhiteBox` says of a clip, in plain Python."""

    def __init__(self, tokens: Tensor, target: int = 0) -> None:
        rows = tokens[0].tolist()
        self.said = [row[target] - sum(row[c] for c in range(3) if c != target) / 2 for row in rows]
        self.looks = [math.exp(row[3]) for row in rows]

    def value(self, seen: frozenset[int] | set[int] | range) -> float:
        """v(S) − v(∅)."""
        total = sum(self.looks[t] for t in seen)
        return sum(self.looks[t] * self.said[t] for t in seen) / total if seen else 0.0

    @property
    def weights(self) -> list[float]:
        return [look / sum(self.looks) for look in self.looks]

    def scores(self, method: str) -> list[float]:
        """The exact answer of a method."""
        frames = range(len(self.said))
        everyone = set(frames)
        mean = self.value(everyone)
        w, c = self.weights, self.said
        loo = [mean - self.value(everyone - {t}) for t in frames]
        loi = [self.value({t}) for t in frames]
        match method:
            case "attn_pool":
                return w
            case "rollout_pool":  # without a block the pool's weights themselves
                return w
            case "logit":
                return [w[t] * c[t] for t in frames]
            case "grad_pool":
                return [w[t] * (c[t] - mean) for t in frames]
            case "chefer":
                return [max(0.0, w[t] * c[t]) for t in frames]
            case "loo":
                return loo
            case "loi":
                return loi
            case "loo+loi":
                return [(out + alone) / 2 for out, alone in zip(loo, loi, strict=True)]
            case "exact" | "shapley" | "auto":
                return shapley_by_orders(len(c), lambda seen: self.value(seen))
            case "ig":
                return self._integrated()
        raise KeyError(method)

    def _integrated(self, steps: int = 4000) -> list[float]:
        """Integrated gradients by the midpoint rule, with the derivatives of the softmax by hand."""
        frames = range(len(self.said))
        logs = [math.log(look) for look in self.looks]
        mean_said, mean_log = sum(self.said) / len(self.said), sum(logs) / len(logs)
        scores = [0.0 for _ in frames]
        for step in range(steps):
            alpha = (step + 0.5) / steps
            said = [mean_said + alpha * (c - mean_said) for c in self.said]
            looks = [math.exp(mean_log + alpha * (a - mean_log)) for a in logs]
            weights = [look / sum(looks) for look in looks]
            worth = sum(w * c for w, c in zip(weights, said, strict=True))
            for t in frames:
                along_said = weights[t] * (self.said[t] - mean_said)
                along_look = weights[t] * (said[t] - worth) * (logs[t] - mean_log)
                scores[t] += (along_said + along_look) / steps
        return scores


def shapley_by_orders(players: int, value: Callable[[frozenset[int]], float]) -> list[float]:
    """Shapley values by their definition: what a player adds to those before it, over all P! orders."""
    totals = [0.0] * players
    for order in itertools.permutations(range(players)):
        before: frozenset[int] = frozenset()
        for player in order:
            totals[player] += value(before | {player}) - value(before)
            before |= {player}
    return [total / math.factorial(players) for total in totals]


def tokens_of(length: int = 6, classes: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(1, length, classes, generator=torch.Generator().manual_seed(seed))


def centred(tokens: Tensor, target: int) -> list[float]:
    """Centred contribution of each frame, by a loop in plain Python."""
    rows = tokens[0].tolist()
    return [row[target] - sum(z for c, z in enumerate(row) if c != target) / (len(row) - 1) for row in rows]


def trained_classifier(
    temporal: str = "transformer", attention: str | None = None, spatial_tokens: int = 1
) -> VideoClassifier:
    """A small classifier as of one that learned something: no weight over time, and none of its attention, is zero."""
    torch.manual_seed(0)
    size = {"dim": 8, "depth": 2, "heads": 2, "spatial_tokens": spatial_tokens}
    model = VideoClassifier(3, "test_resnet", attention=attention, temporal=temporal, **size).eval()
    with torch.no_grad():
        for parameter in (*model.temporal.parameters(), *model.head.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.4)
        for name, parameter in model.backbone.net.named_parameters():
            if "frame_attention" in name:
                parameter.normal_(0, 0.5)
    return model


def padded_clip(model: VideoClassifier, frames: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and seconds of a clip whose last position is padding."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, frames, model.spatial_tokens**2 * model.backbone.width, generator=generator)
    mask = torch.ones(1, frames, dtype=torch.bool)
    mask[0, -1] = False
    return tokens, mask, torch.rand(1, frames, generator=generator).cumsum(1)


def random_video(frames: int = 5, side: int = 64) -> Tensor:
    """(1, T, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, frames, 3, side, side), dtype=torch.uint8, generator=generator)
