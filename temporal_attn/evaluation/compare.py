"""Whether one model is better than another: both judged on the same videos, and compared video by video."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from temporal_attn.evaluation.intervals import bootstrap_over_groups
from temporal_attn.evaluation.predictions import has_class, is_right, read_judged
from temporal_attn.types import UserError

__all__ = ["SCHEMA", "Comparison", "compare", "compare_runs", "mcnemar"]

SCHEMA = "temporal_attn/compare/1"

_NAMED = 3


@dataclass(frozen=True)
class Comparison:
    """Two models on the same videos.

    Args:
        videos: How many there are.
        groups: In how many groups.
        top1: Accuracies of both.
        difference: The second minus the first.
        ci95: Interval of the difference by bootstrap over groups.
        only_first: Videos that only the first has right, by id.
        only_second: Videos that only the second has right.
        p_value: Of McNemar's exact test. It takes videos as independent: where groups are few, the interval says more.
    """

    videos: int
    groups: int
    top1: tuple[float, float]
    difference: float
    ci95: tuple[float, float]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    p_value: float

    @property
    def verdict(self) -> str:
        """One line: which is better, if that can be said."""
        if self.groups < 2:
            return "videos of one group say nothing about others"
        low, high = self.ci95
        if low <= 0 <= high:
            return "no difference that these videos could show"
        return f"the {'second' if low > 0 else 'first'} is better"


def compare(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare what two models say of the same videos.

    Args:
        first: Rows of `read_judged`; a video that could not be read is wrong.
        second: Likewise.

    Raises:
        UserError: They are not the same videos, a run has one twice, or their labels or groups differ.
    """
    for name, rows in (("first", first), ("second", second)):
        twice = [video for video, count in Counter(str(row["video_id"]) for row in rows).items() if count > 1]
        if twice:
            raise UserError(
                f"the {name} run has {len(twice)} videos more than once: {_names(twice)}; name each by itself"
            )
    one, other = ({str(row["video_id"]): row for row in rows} for rows in (first, second))
    for name, own, foreign in (("second", one, other), ("first", other, one)):
        absent = sorted(own.keys() - foreign.keys())
        if absent:
            raise UserError(
                f"the {name} run lacks {len(absent)} videos of the other: {_names(absent)}; test both on the same data "
                "set and fold"
            )
    ids = sorted(one)
    for key in ("label", "group"):
        differing = [name for name in ids if _as_set(one[name][key]) != _as_set(other[name][key])]
        if differing:
            name = differing[0]
            raise UserError(
                f"the runs disagree on the {key} of {len(differing)} videos: {name} is {one[name][key]!r} in the first "
                f"and {other[name][key]!r} in the second; test both on the same data set"
            )
    ids = [name for name in ids if has_class(one[name])]
    if not ids:
        raise UserError("none of the videos belongs to a class, so that no model can be better; test on videos that do")
    right = np.array([[is_right(rows[name]) for name in ids] for rows in (one, other)], dtype=np.float64)
    groups = [str(one[name]["group"]) for name in ids]
    only_first = tuple(name for name, (a, b) in zip(ids, right.T, strict=True) if a > b)
    only_second = tuple(name for name, (a, b) in zip(ids, right.T, strict=True) if a < b)
    return Comparison(
        videos=len(ids),
        groups=len(set(groups)),
        top1=(float(right[0].mean()), float(right[1].mean())),
        difference=float((right[1] - right[0]).mean()),
        ci95=bootstrap_over_groups(right[1] - right[0], groups),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(len(only_first), len(only_second)),
    )


def _as_set(label: str | Sequence[str]) -> set[str]:
    """One class or several, which each run lists in the order of its own classes."""
    return {label} if isinstance(label, str) else set(label)


def _names(videos: Sequence[str]) -> str:
    return ", ".join(videos[:_NAMED]) + (" …" if len(videos) > _NAMED else "")


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test: whether the videos on which two models differ favour one of them.

    Paper: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 1947.
    Equation: p = min(1, 2 P(X ≤ min(b, c))) with X ~ Binomial(b + c, ½)

    Args:
        only_first: b, videos that only the first has right.
        only_second: c, videos that only the second has right.

    Example:
        >>> mcnemar(1, 9)
        0.021484375
    """
    number = only_first + only_second
    ways, tail = 1, 0  # ways: number over k
    for k in range(min(only_first, only_second) + 1):
        tail += ways
        ways = ways * (number - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << number))


def compare_runs(runs: list[str], json: str | None = None) -> int:
    """Compare two runs that `temporal-attn test` has judged on the same videos.

    Args:
        runs: Folders of the two runs, or their ``test_predictions.jsonl``.
        json: File for the outcome, with the videos on which the runs differ.

    Returns:
        Exit status.

    Raises:
        UserError: There are not two runs, or they were not tested on the same videos.
    """
    if len(runs) != 2:
        raise UserError(f"compare takes two runs, got {len(runs)}: temporal-attn compare RUN_A RUN_B")
    found = compare(*(read_judged(run) for run in runs))
    if json is not None:
        document = {"schema": SCHEMA, "runs": runs, **asdict(found), "verdict": found.verdict}
        try:
            Path(json).write_text(jsonlib.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"json: {json} cannot be written ({error.strerror})") from None
    width = max(map(len, runs))
    print(f"{found.videos} videos in {found.groups} groups")
    for run, top1, only in zip(runs, found.top1, (found.only_first, found.only_second), strict=True):
        print(f"  {run:<{width}}  {top1:6.1%}  alone right on {len(only)}")
    low, high = (f"{end:+.1%}" for end in found.ci95)
    print(f"difference {found.difference:+.1%}, 95 % interval {low} to {high}, McNemar p = {found.p_value:.3g}")
    print(found.verdict)
    return 0
