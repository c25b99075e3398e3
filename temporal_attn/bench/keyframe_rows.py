"""Rows of the benchmark: means over clips and seeds of what was measured clip by clip, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from temporal_attn.bench.keyframe_clips import COLUMNS
from temporal_attn.bench.nested_bootstrap import Floats, interval, mean_over_seeds, resampled_means

__all__ = ["KEYS", "Samples", "cross_rows", "paired_difference", "rows_of", "summarise"]

CROSS = ("deletion", "insertion", *COLUMNS[-4:])
"""What is known of scores made with one removal and tested with another."""
KEYS = ("auroc", "p_at_3", "ndel", "nins", "tau", "rel_l2", "violation", "evals", "cpu_s")
"""Measures of a row."""

Samples = Sequence[Floats]
"""One array (N, M) a training seed: a row a clip, a column a measure."""


def statistic(name: str, columns: Sequence[str]) -> Callable[[Floats], Floats]:
    """A measure from means of columns: (…, M) -> (…).

    ``ndel`` and ``nins`` are ratios of means, not means of ratios, which clips that cannot tell orders apart would
    dominate: (random − own) / (random − best).
    """
    place = {column: number for number, column in enumerate(columns)}
    if name not in ("ndel", "nins"):
        return lambda means: means[..., place[name]]
    curve = {"ndel": "deletion", "nins": "insertion"}[name]
    own, random, best = place[curve], place[f"random_{curve}"], place[f"best_{curve}"]

    def share(means: Floats) -> Floats:
        reach = means[..., random] - means[..., best]
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = (means[..., random] - means[..., own]) / np.where(np.abs(reach) > 1e-6, reach, np.nan)
        return found

    return share


def summarise(samples: Samples, columns: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Each key and ``<key>_ci``; None for what was not measured."""
    means, drawn = mean_over_seeds(samples), resampled_means(samples)
    row: dict[str, Any] = {}
    for key in keys:
        of = statistic(key, columns)
        value = float(of(means))
        row[key] = value if math.isfinite(value) else None
        row[f"{key}_ci"] = interval(drawn, of)
    return row


def samples_of(found: Sequence[Mapping[str, Any]], field: str, name: str) -> Samples:
    """What the models of all seeds say of one method."""
    return [np.array(result[field][name], dtype=np.float64) for result in found if result[field].get(name)]


def rows_of(regime: str, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a removal and method of a regime.

    Args:
        regime: Its name.
        found: Output of `evaluate_regime`, one a training seed.
    """
    rows = []
    for name in dict.fromkeys(name for result in found for name in result["methods"]):
        removal, method = name.split("/")
        samples = samples_of(found, "methods", name)
        clips = sum(len(sample) for sample in samples)
        summary = summarise(samples, COLUMNS, KEYS)
        head = {"regime": regime, "method": method, "removal": removal}
        rows.append({**head, **summary, "seeds": len(samples), "clips": clips})
    return rows


def cross_rows(regime: str, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each pair of the removal that the default's scores were made with, and the one that tested them."""
    rows = []
    for name in found[0]["cross"]:
        made, tested = name.split("/")
        summary = summarise(samples_of(found, "cross", name), CROSS, ("deletion", "insertion", "ndel", "nins"))
        rows.append({"regime": regime, "scored_with": made, "tested_with": tested, **summary})
    return rows


def paired_difference(
    found: Sequence[Mapping[str, Any]], key: str, method: str, other: str, removal: str = "drop"
) -> tuple[float, list[float] | None]:
    """How much more one method has of a measure than another on the same clips, with its interval.

    The other may have been asked about the first clips only; those are the ones that are compared.
    """
    first, second = (samples_of(found, "methods", f"{removal}/{name}") for name in (method, other))
    both = [np.hstack([a[: len(b)], b]) for a, b in zip(first, second, strict=True)]
    of, width = statistic(key, COLUMNS), len(COLUMNS)

    def difference(means: Floats) -> Floats:
        return of(means[..., :width]) - of(means[..., width:])

    return float(difference(mean_over_seeds(both))), interval(resampled_means(both), difference)
