"""How much each frame speaks for a class: coalition games on cached frame tokens.

The backbone works frame by frame, so dropping a frame costs no backbone pass: the frames of a clip are the players, and
the worth of a coalition S is what the model's head says when it sees only the frames in S,

    v(S) = z_y(S) − mean_{c ≠ y} z_c(S),

the target's logit against the mean of the others. Logits, and not probabilities, because a softmax near 1 hides every
difference. All scores are signed and in this unit.

Papers: Price and Damen, "Play Fair: Frame Attributions in Video Models", ACCV 2020, https://arxiv.org/abs/2011.12372;
Covert et al., "Explaining by Removing", JMLR 2021, https://arxiv.org/abs/2011.14878.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from temporal_attn.types import ModelOutput, UserError

__all__ = ["METHODS", "FrameGame", "FrameHead", "Method", "names", "resolve_target", "score_frames"]


class FrameHead(Protocol):
    """The part of a video classifier that answers from frame tokens alone."""

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        """Classify clips of frame tokens (B, T, C'); frames that ``mask`` (B, T) leaves out are not seen."""
        ...


class FrameGame:
    """The frames of one clip as players for one class.

    A player is a distinct real frame: padding is none, and where a short video repeats a frame to fill the clip, all
    copies are one player, because taking away one copy of two takes nothing away. The complete and the empty
    coalition are evaluated once, here.

    Args:
        model: Anything with ``classify``, in evaluation mode.
        tokens: (1, T, C') frame tokens of the clip.
        mask: (1, T) bool, True = a real frame; None when all are.
        pts: (1, T) seconds, handed on to the model.
        frame_index: (1, T) which frame of the file stands at each position; equal numbers are one player. None when
            all positions are distinct.
        target: Class index y, None for the class that the model gives to the complete clip.
        chunk: Coalitions in one call of the model; bounds the memory.

    Attributes:
        target: y.
        players: (P,) clip position of each player (of its first copy), ascending.
        copies: (P, T) bool, which positions show which player.
        full: Answer to the complete clip: logits (1, K), frame_weights (1, T).
        empty: Answer to no frame at all.
        evaluations: Coalitions given to the model so far.

    Raises:
        UserError: Not exactly one clip, no real frame, fewer than two classes, a target that is no class, a model in
            training mode, or logits that are not finite.
    """

    def __init__(
        self,
        model: FrameHead,
        tokens: Tensor,
        mask: Tensor | None = None,
        pts: Tensor | None = None,
        frame_index: Tensor | None = None,
        *,
        target: int | None = None,
        chunk: int = 256,
    ) -> None:
        if tokens.ndim != 3 or tokens.shape[0] != 1:
            raise UserError(f"tokens: expected one clip (1, T, C'), got {tuple(tokens.shape)}; play one game a clip")
        if getattr(model, "training", False):
            raise UserError("model: is in training mode, dropout would blur the scores; call model.eval() first")
        self._model, self._tokens, self._pts, self._chunk = model, tokens, pts, chunk
        length = tokens.shape[1]
        real = torch.ones(length, dtype=torch.bool) if mask is None else mask.reshape(length).bool().cpu()
        ids = torch.arange(length) if frame_index is None else frame_index.reshape(length).cpu()
        first_seen: dict[int, int] = {}
        for position in real.nonzero().flatten().tolist():
            first_seen.setdefault(int(ids[position]), position)
        if not first_seen:
            raise UserError("mask: the clip has no real frame; give at least one")
        self.players = torch.tensor(list(first_seen.values()))
        self.copies = (ids[self.players, None] == ids[None, :]) & real

        self.evaluations = 0
        both = self.play(torch.stack([self.everyone(), ~self.everyone()]))
        self.full, self.empty = (ModelOutput(*(field[i : i + 1] for field in both)) for i in range(2))
        classes = self.full.logits.shape[-1]
        if classes < 2:
            raise UserError("model: has one class; frame scores compare a class with the others and need two or more")
        if not torch.isfinite(both.logits).all():
            raise UserError("model: its logits are not finite; the checkpoint is damaged or training diverged")
        if target is not None and not 0 <= target < classes:
            raise UserError(f"target: {target} is not a class index; choose 0 to {classes - 1}")
        self.target = int(self.full.logits.argmax()) if target is None else target

    def __len__(self) -> int:
        """P, the number of players."""
        return len(self.players)

    def everyone(self) -> Tensor:
        """The complete coalition, (P,) bool."""
        return torch.ones(len(self), dtype=torch.bool)

    @torch.no_grad()
    def play(self, coalitions: Tensor) -> ModelOutput:
        """What the model says when it sees only the frames of each coalition.

        Args:
            coalitions: (S, P) bool, True = the player takes part.

        Returns:
            Logits (S, K) and frame weights (S, T), float32 on the CPU.
        """
        self.evaluations += len(coalitions)
        seen = (coalitions.cpu().float() @ self.copies.float()).bool().to(self._tokens.device)
        outputs = []
        for part in torch.split(seen, self._chunk):
            size = len(part)
            pts = None if self._pts is None else self._pts.expand(size, -1)
            outputs.append(self._model.classify(self._tokens.expand(size, -1, -1), part, pts))
        logits, weights = (torch.cat(field).float().cpu() for field in zip(*outputs, strict=True))
        return ModelOutput(logits, weights)

    def worth(self, logits: Tensor) -> Tensor:
        """Centred logit z_y − mean_{c ≠ y} z_c of the target: logits (S, K) -> (S,)."""
        own = logits[:, self.target]
        return own - (logits.sum(-1) - own) / (logits.shape[-1] - 1)

    def value(self, coalitions: Tensor) -> Tensor:
        """v(S) of each coalition: (S, P) bool -> (S,)."""
        return self.worth(self.play(coalitions).logits)

    def probability(self, coalitions: Tensor) -> Tensor:
        """Softmax probability of the target for each coalition: (S, P) bool -> (S,)."""
        return self.play(coalitions).logits.softmax(-1)[:, self.target]


def leave_one_out(game: FrameGame) -> Tensor:
    """What is lost without the frame: v(N) − v(N − t). P evaluations.

    Blind to redundancy: of two frames that show the same evidence, neither is missed.
    """
    return game.worth(game.full.logits) - game.value(~torch.eye(len(game), dtype=torch.bool))


def leave_one_in(game: FrameGame) -> Tensor:
    """What the frame says alone: v({t}) − v(∅). P evaluations.

    Blind to synergy: two frames that say something only together, say nothing alone.
    """
    return game.value(torch.eye(len(game), dtype=torch.bool)) - game.worth(game.empty.logits)


def leave_one_out_and_in(game: FrameGame) -> Tensor:
    """Mean of leave-one-out and leave-one-in: the two ends of the Shapley sum. 2 P evaluations.

    Each end sees what the other is blind to, and for a sum of one-frame contributions the mean is exact.
    """
    return (leave_one_out(game) + leave_one_in(game)) / 2


def attention_pool(game: FrameGame) -> Tensor:
    """The model's own pooling weights of the frames; no evaluation. A preview: unsigned, and not a faithful measure."""
    return game.full.frame_weights[0] @ game.copies.float().T


@dataclass(frozen=True, slots=True)
class Method:
    """A way to score frames.

    Args:
        score: The game of a clip -> (P,) float32 CPU, one score a player.
        unit: What a score counts.
        signed: Whether a negative score speaks against the class; an unsigned score only compares frames.
        summary: What it measures, in words for a report.
    """

    score: Callable[[FrameGame], Tensor]
    unit: str
    signed: bool
    summary: str


METHODS: dict[str, Method] = {
    "loo+loi": Method(leave_one_out_and_in, "centred logits", True, "mean of leave-one-out and leave-one-in"),
    "loo": Method(leave_one_out, "centred logits", True, "leave-one-out: what is lost without the frame"),
    "loi": Method(leave_one_in, "centred logits", True, "leave-one-in: what the frame says alone"),
    "attn_pool": Method(
        attention_pool, "pooling weights", False, "the model's own pooling weights; a preview, not faithful"
    ),
}


def names() -> list[str]:
    """Names of the frame scores, the default first."""
    return list(METHODS)


def score_frames(game: FrameGame, method: str = "loo+loi") -> Tensor:
    """Score the frames of a clip.

    Args:
        game: The clip and the class.
        method: One of `names`.

    Returns:
        (P,) float32, one score a player, in centred-logit units (``attn_pool``: weights that sum to 1).

    Raises:
        UserError: An unknown method.
    """
    if method not in METHODS:
        raise UserError(f"method: there is no frame score {method!r}; choose one of {', '.join(METHODS)}")
    return METHODS[method].score(game)


def resolve_target(target: str | int, class_names: Sequence[str]) -> int | None:
    """Class index of a target given by name or number.

    Args:
        target: A class name, a class index (also as text; a class of that very name comes first), or ``pred``.
        class_names: K names.

    Returns:
        The index, or None for ``pred``: the class that the model predicts.

    Raises:
        UserError: No class has this name or number.
    """
    if target == "pred":
        return None
    if target in class_names:
        return class_names.index(str(target))
    try:
        index = int(target)
    except ValueError:
        near = difflib.get_close_matches(str(target), class_names, n=3, cutoff=0.5) or list(class_names[:3])
        raise UserError(
            f"target: no class is called {target!r}; did you mean {', '.join(near)}? "
            f"Give pred, one of the {len(class_names)} class names, or an index"
        ) from None
    if not 0 <= index < len(class_names):
        raise UserError(f"target: {index} is not a class index; choose 0 to {len(class_names) - 1}")
    return index
