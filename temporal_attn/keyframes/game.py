"""The frames of a clip as players of a coalition game on cached frame tokens.

The backbone works frame by frame, so taking a frame away costs no backbone pass: the worth of a coalition S is what the
model's head says when it sees only the frames in S,

    v(S) = z_y(S) − mean_{c ≠ y} z_c(S),

the target's logit against the mean of the others (the logit alone where a clip may have several classes), or
z_a(S) − z_b(S) for a contrast of two classes. Logits, and not
probabilities, because a softmax near 1 hides every difference. All scores are signed and in this unit.

Paper: Price and Damen, "Play Fair: Frame Attributions in Video Models", ACCV 2020, https://arxiv.org/abs/2011.12372.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from temporal_attn.keyframes.removal import resolve_removal
from temporal_attn.keyframes.targets import pose
from temporal_attn.types import ModelOutput, UserError

__all__ = ["ClipError", "FrameGame", "FrameHead", "FrameScores", "Game", "ProjectedHead"]

_KEPT = 8192
"""Most coalitions whose answers are kept."""
_PACKED = 64
"""Coalitions in one call where they are sorted by size: few enough to be nearly of one size."""


class ClipError(UserError):
    """Something is wrong for one clip and may be right for another, such as too many frames for a method."""


class FrameHead(Protocol):
    """The part of a video classifier that answers from frame tokens alone."""

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        """Classify clips of frame tokens (B, T, C'); frames that ``mask`` (B, T) leaves out are not seen."""
        ...


@runtime_checkable
class ProjectedHead(Protocol):
    """A head whose first step works on each frame alone and can be done once for all coalitions.

    To its second step frames are a set with times, as they are to all of `temporal_attn.temporal`: a frame that is left
    out may as well be missing from the tensor.
    """

    project: Any
    """Tokens (T, C') to what ``classify_projected`` takes, (T, D)."""

    def classify_projected(self, tokens: Tensor, mask: Tensor, pts: Tensor | None = None) -> ModelOutput:
        """Classify clips of projected tokens (B, T, D)."""
        ...


class Game(Protocol):
    """A coalition game: what Shapley values are made from."""

    v_full: float
    """v(N), of all players together."""
    v_empty: float
    """v(∅)."""

    def __len__(self) -> int:
        """P, the number of players."""
        ...

    def value(self, coalitions: Tensor) -> Tensor:
        """v(S) of each coalition: (S, P) bool -> (S,)."""
        ...


class FrameScores(NamedTuple):
    """What each frame contributes.

    Args:
        values: (P,) float32 CPU, one score a player.
        ci: (P, 2) float32, lower and upper end of each score's 95 % interval of the sampling error, of width 0 where
            every coalition was asked; None where nothing is sampled.
    """

    values: Tensor
    ci: Tensor | None = None


class FrameGame:
    """The frames of one clip as players for one question.

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
        target: Class index y, two of them for a contrast, None for the class that the model gives to the complete clip.
        removal: What a removed frame becomes: a name of `temporal_attn.keyframes.removal.REMOVALS`.
        chunk: Coalitions in one call of the model; bounds the memory.
        temperature: What logits are divided by where probabilities are asked for; scores do not depend on it.
        multi_label: Whether classes do not exclude each other: then v(S) is the target's logit alone, and its
            probability a sigmoid.

    Attributes:
        question: The target as a direction in the space of logits.
        players: (P,) clip position of each player (of its first copy), ascending.
        copies: (P, T) bool, which positions show which player.
        full: Answer to the complete clip: logits (1, K), frame_weights (1, T).
        empty: Answer to no frame at all.
        v_full: v(N).
        v_empty: v(∅).
        evaluations: Coalitions given to the model so far; one that was asked before, about whatever class, is not given
            again.

    Raises:
        UserError: Not exactly one clip, no real frame, fewer than two classes, a target that is no class, an unknown
            removal, a model in training mode, or logits that are not finite.
    """

    @torch.inference_mode(False)  # what is made here takes part in backward passes
    def __init__(
        self,
        model: FrameHead,
        tokens: Tensor,
        mask: Tensor | None = None,
        pts: Tensor | None = None,
        frame_index: Tensor | None = None,
        *,
        target: int | tuple[int, int] | None = None,
        removal: str = "drop",
        chunk: int = 256,
        temperature: float = 1.0,
        multi_label: bool = False,
    ) -> None:
        if tokens.ndim != 3 or tokens.shape[0] != 1:
            raise UserError(f"tokens: expected one clip (1, T, C'), got {tuple(tokens.shape)}; play one game a clip")
        if getattr(model, "training", False):
            raise UserError("model: is in training mode, dropout would blur the scores; call model.eval() first")
        self.model, self.tokens, self.pts, self.removal, self._chunk = model, tokens, pts, removal, chunk
        self.temperature, self.multi_label = temperature, multi_label
        self._remove = resolve_removal(removal)
        length = tokens.shape[1]
        self.real = torch.ones(length, dtype=torch.bool) if mask is None else mask.reshape(length).bool().cpu().clone()
        self.frame_index = torch.arange(length) if frame_index is None else frame_index.reshape(length).cpu()
        first_seen: dict[int, int] = {}
        for position in self.real.nonzero().flatten().tolist():
            first_seen.setdefault(int(self.frame_index[position]), position)
        if not first_seen:
            raise UserError("mask: the clip has no real frame; give at least one")
        self.players = torch.tensor(list(first_seen.values()))
        self.copies = (self.frame_index[self.players, None] == self.frame_index[None, :]) & self.real
        self._seconds = torch.arange(length).float() if pts is None else pts.reshape(length).float().cpu()
        # What each frame becomes by itself is the same in every coalition, so it is computed once.
        self._project = model.project if isinstance(model, ProjectedHead) else None
        self._head = model.classify_projected if isinstance(model, ProjectedHead) else model.classify
        self._bank = self._fill_bank()

        self.evaluations = 0
        self._known: dict[bytes, tuple[Tensor, ...]] = {}
        both = self.play(torch.stack([self.everyone(), ~self.everyone()]))
        self.full, self.empty = (ModelOutput(*(field[i : i + 1] for field in both)) for i in range(2))
        if not torch.isfinite(both.logits).all():
            raise UserError("model: its logits are not finite; the checkpoint is damaged or training diverged")
        self._pose(target)

    def _pose(self, target: int | tuple[int, int] | None) -> None:
        self.question = pose(target, self.full.logits[0], self.temperature, self.multi_label)
        self.v_full, self.v_empty = self.worth(torch.cat([self.full.logits, self.empty.logits])).tolist()

    @property
    def target(self) -> int:
        """Class index y."""
        return self.question.target

    @property
    def against(self) -> int | None:
        """Class index of a contrast; None when y is asked about against all others."""
        return self.question.against

    def about(self, target: int | tuple[int, int] | None) -> FrameGame:
        """The same clip and removal asked about another target; both games share the answers that they are given."""
        other = copy.copy(self)
        other.evaluations = 0
        other._pose(target)
        return other

    def under(self, removal: str) -> FrameGame:
        """The same clip and question with another removal: score with one, test with the other."""
        return self._anew(self.model, removal)

    def by(self, model: FrameHead) -> FrameGame:
        """The same clip, question and removal, answered by another model that takes the same tokens."""
        return self._anew(model, self.removal)

    def _anew(self, model: FrameHead, removal: str) -> FrameGame:
        asked = self.target if self.against is None else (self.target, self.against)
        return FrameGame(
            model,
            self.tokens,
            self.real[None],
            self.pts,
            self.frame_index[None],
            target=asked,
            removal=removal,
            chunk=self._chunk,
            temperature=self.temperature,
            multi_label=self.multi_label,
        )

    def __len__(self) -> int:
        """P, the number of players."""
        return len(self.players)

    def everyone(self) -> Tensor:
        """The complete coalition, (P,) bool."""
        return torch.ones(len(self), dtype=torch.bool)

    def mean_frame(self) -> Tensor:
        """(C',) mean token of the players."""
        return self.tokens[0, self.players].mean(0)

    @torch.inference_mode()
    def _fill_bank(self) -> Tensor:
        """(T + 1, D): what the head makes of each frame alone, and of the mean frame."""
        bank = torch.cat([self.tokens[0], self.mean_frame()[None]])
        return bank if self._project is None else self._project(bank)

    @torch.inference_mode()
    def play(self, coalitions: Tensor) -> ModelOutput:
        """What the model says when it sees only the frames of each coalition.

        Args:
            coalitions: (S, P) bool, True = the player takes part.

        Returns:
            Logits (S, K) and frame weights (S, T), float32 on the CPU.
        """
        names = [row.tobytes() for row in coalitions.cpu().numpy()]
        new = {name: row for row, name in enumerate(names) if name not in self._known}
        found = self._known
        if new:
            answers = zip(*self._ask(coalitions[list(new.values())]), strict=True)
            found = self._known | dict(zip(new, answers, strict=True))
            if len(found) <= _KEPT:
                self._known.update(found)
        rows = [found[name] for name in names]
        return ModelOutput(*(torch.stack(field) for field in zip(*rows, strict=True)))

    def _ask(self, coalitions: Tensor) -> ModelOutput:
        """Give coalitions to the model, in parts."""
        self.evaluations += len(coalitions)
        seen = (coalitions.cpu().float() @ self.copies.float()).bool()
        rows, mask = self._remove(seen, self.real, self._seconds)
        if self._project is None:
            parts = torch.split(torch.arange(len(seen)), self._chunk)
            answers = [self._classify(rows[part], mask[part]) for part in parts]
        else:
            # Coalitions of about the same size go together, so that frames which are left out cost nothing.
            parts = torch.split(mask.sum(1).argsort(stable=True), min(self._chunk, _PACKED))
            answers = [self._classify_packed(rows[part], mask[part]) for part in parts]
        logits, weights = (torch.cat(field).float().cpu() for field in zip(*answers, strict=True))
        back = torch.cat(parts).argsort()
        return ModelOutput(logits[back], weights[back])

    def _classify(self, rows: Tensor, mask: Tensor) -> ModelOutput:
        """Clips (S, T) of rows of the bank."""
        device = self.tokens.device
        pts = None if self.pts is None else self.pts.expand(len(rows), -1)
        answer: ModelOutput = self._head(self._bank[rows.to(device)], mask.to(device), pts)
        return answer

    def _classify_packed(self, rows: Tensor, mask: Tensor) -> ModelOutput:
        """The same, but the model is given the frames that are seen, and no more."""
        device = self.tokens.device
        most = max(1, int(mask.sum(1).max()))
        places = mask.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        pts = (self._seconds if self.pts is None else self.pts[0]).to(device)[places.to(device)]
        packed = self._bank[rows.gather(1, places).to(device)]
        logits, weights = self._head(packed, mask.gather(1, places).to(device), pts)
        places = places.to(device)
        return ModelOutput(logits, weights.new_zeros(mask.shape).scatter(1, places, weights))

    def answer(self, tokens: Tensor) -> Tensor:
        """v(N) with other tokens in the clip's place; gradients flow.

        Args:
            tokens: (S, T, C').

        Returns:
            (S,) on the device of the tokens.
        """
        size = len(tokens)
        mask = self.real.to(tokens.device).expand(size, -1)
        pts = None if self.pts is None else self.pts.clone().expand(size, -1)
        return self.worth(self.model.classify(tokens, mask, pts).logits.float())

    def of_players(self, positions: Tensor) -> Tensor:
        """Scores of positions, summed over the copies of each player: (…, T) -> (…, P) float32 CPU."""
        return positions.detach().float().cpu() @ self.copies.float().T

    def worth(self, logits: Tensor) -> Tensor:
        """The question's answer in logits: (S, K) -> (S,)."""
        return self.question.worth(logits)

    def value(self, coalitions: Tensor) -> Tensor:
        """v(S) of each coalition: (S, P) bool -> (S,)."""
        return self.worth(self.play(coalitions).logits)

    def probability(self, coalitions: Tensor) -> Tensor:
        """Probability of the target (of a against b in a contrast) for each coalition: (S, P) bool -> (S,)."""
        return self.question.probability(self.play(coalitions).logits)
