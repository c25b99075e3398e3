"""Conditions on what was measured of a video, such as ``ndel<0.5``, that let a command fail."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from temporal_attn.keyframes.faithfulness import Faithfulness
from temporal_attn.keyframes.scores import METHODS, OPTIONAL, resolve_method
from temporal_attn.keyframes.select import Evidence
from temporal_attn.types import UserError

__all__ = ["Condition", "check_measured", "parse_condition"]

_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_MEASURES = {
    **{field.name: "evidence" for field in fields(Evidence)},
    **{field.name: "faithfulness" for field in fields(Faithfulness)},
}
"""Measure to the part of a scores document that holds it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A measure compared with a number.

    Args:
        measure: A number of `Evidence` or `Faithfulness`; of ``doubts`` how many there are.
        comparison: ``<``, ``<=``, ``>`` or ``>=``.
        bound: The number.
    """

    measure: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f"{self.measure}{self.comparison}{self.bound:g}"

    def value(self, scores: Mapping[str, Any]) -> float | None:
        """The measure in a document of `Inspection.scores`; None where it was not measured."""
        part = scores[_MEASURES[self.measure]]
        value = None if part is None else part[self.measure]
        if value is None:
            return None
        return float(len(value) if isinstance(value, list) else value)

    def holds(self, scores: Mapping[str, Any]) -> bool:
        """Whether the condition holds; never for what was not measured."""
        value = self.value(scores)
        return value is not None and bool(_COMPARISONS[self.comparison](value, self.bound))


def check_measured(condition: Condition, method: str) -> None:
    """Refuse a condition that could never hold, because the method leaves its measure out.

    Args:
        condition: What is to be compared.
        method: A name that `temporal_attn.keyframes.scores.resolve_method` knows.

    Raises:
        UserError: The measure compares samples, and the method draws none.
    """
    if condition.measure == "split_half_tau" and not resolve_method(method).sampled:
        sampling = ", ".join(name for name, how in (METHODS | OPTIONAL).items() if how.sampled)
        raise UserError(
            f"fail_if: split_half_tau compares two samples, and {method} draws none; take another measure, or one of "
            f"the methods {sampling}"
        )


def parse_condition(text: str) -> Condition:
    """A condition from its text.

    Raises:
        UserError: It is none, or names something that is not measured.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*", text)
    if match is None:
        raise UserError(f"fail_if: {text!r} is no condition; give one such as ndel<0.5 or doubts>0")
    measure, comparison, bound = match.groups()
    if measure not in _MEASURES:
        raise UserError(f"fail_if: {measure!r} is not measured; choose one of {', '.join(_MEASURES)}")
    return Condition(measure, comparison, float(bound))
