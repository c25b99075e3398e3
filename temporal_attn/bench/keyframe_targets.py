"""What frame scores are held to: targets of the default method, and checks that make its numbers unreliable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temporal_attn.bench.keyframe_rows import paired_difference

__all__ = ["check_sanity", "check_targets"]

SLACK = 0.02
"""How far the lower end of an interval may lie under a target of the mean."""

_LEAST = {
    "auroc": {"or": 0.995, "set": 0.99},
    "p_at_3": {"or": 0.97, "set": 0.97, "weak": 0.85},
    "ndel": {"or": 0.93, "set": 0.93, "weak": 0.93, "order": 0.93, "event": 0.93},
}
"""Of ``auto``, by measure and regime."""

_CHECKS = (
    ("random_head_tau", 0.5, "scores look alike for a model with a shuffled head"),
    ("completeness_gap", 1e-3, "scores do not sum to v(N) − v(∅)"),
    ("missingness_drift_drop", 0.02, "frames that say nothing are missed: removal is out of distribution"),
)


def check_sanity(checks: Mapping[str, float]) -> list[str]:
    """Sentences, each of which makes the numbers of a regime unreliable; none when all is well.

    Args:
        checks: Of `keyframe_regimes.evaluate_regime`.
    """
    doubts = [f"{text} ({name} {checks[name]:.3g})" for name, most, text in _CHECKS if checks[name] > most]
    if abs(checks["random_head_auroc"] - 0.5) > 0.2:
        doubts.append(f"a shuffled head finds key frames (AUROC {checks['random_head_auroc']:.2f})")
    return doubts


def check_targets(
    rows: Sequence[Mapping[str, Any]],
    by_regime: Mapping[str, Sequence[Mapping[str, Any]]],
    captum: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """Every target with what was measured and whether it is met.

    A mean has to reach its target, and the lower end of its interval may lie no more than 0.02 under it.

    Args:
        rows: Of `keyframe_rows.rows_of`, all regimes.
        by_regime: Regime to the answers of its models.
        captum: Of `keyframe_captum.compare_with_captum`; None where Captum is not installed.
    """
    row = {(r["regime"], r["method"]): r for r in rows if r["removal"] == "drop"}
    found = []
    for key, bounds in _LEAST.items():
        for regime, least in bounds.items():
            value, ci = row[regime, "auto"][key], row[regime, "auto"][f"{key}_ci"]
            found.append(_at_least(f"{key} of auto", regime, value, ci, least))
    value, ci = paired_difference(by_regime["weak"], "auroc", "auto", "exact")
    found.append(_at_least("auroc of auto minus exact", "weak", value, ci, -0.01))
    for regime in by_regime:
        value, ci = paired_difference(by_regime[regime], "nins", "auto", "exact")
        found.append(_at_least("nins of auto minus exact", regime, value, ci, -0.02))
    for regime in ("or", "set", "weak"):
        quick = row[regime, "loo+loi"]
        found.append(_at_least("tau of loo+loi", regime, quick["tau"], quick["tau_ci"], 0.87))
    for regime in ("or", "set"):
        found.append(_at_most("rel_l2 of auto at 1088", regime, row[regime, "auto@1088"]["rel_l2"], 0.07))
    for regime in by_regime:
        found.append(_at_most("cpu_s of auto at 544", regime, row[regime, "auto"]["cpu_s"], 0.1))
    if captum is not None:
        found.append(_at_least("times faster than Captum", "", captum["ratio"], None, 200))
        found.append(_at_most("distance to Captum at the same orders", "", captum["distance"], 1e-3))
    return found


def _at_least(target: str, regime: str, value: float, ci: list[float] | None, bound: float) -> dict[str, Any]:
    met = value >= bound and (ci is None or ci[0] >= bound - SLACK)
    return {"target": target, "regime": regime, "value": value, "ci": ci, "at_least": bound, "met": met}


def _at_most(target: str, regime: str, value: float, bound: float) -> dict[str, Any]:
    return {"target": target, "regime": regime, "value": value, "ci": None, "at_most": bound, "met": value <= bound}
