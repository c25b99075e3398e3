"""Results of `temporal-attn bench keyframes` as the tables of docs/keyframes.md, each between its own markers.

temporal-attn bench keyframes --suite synth --budget quick --json synth.json
python scripts/keyframe_tables.py synth.json [faith.json] [tvsum.json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("auto", "shapley", "exact", "loo+loi", "loo", "loi", "ig", "logit", "grad_pool", "chefer", "attn_pool")
OTHERS = ("rollout_pool", "random", "uniform", "motion_energy", "centre_prior", "greedy", "truth")
MEASURES = {"auroc": "AUROC", "p_at_3": "p@3", "ndel": "nDel", "nins": "nIns", "tau": "τ", "rel_l2": "rel. L2"}

Row = Mapping[str, Any]


def markers(suite: str) -> tuple[str, str]:
    """What stands before and after a suite's tables."""
    return f"<!-- bench keyframes {suite}: begin -->", f"<!-- bench keyframes {suite}: end -->"


def number(value: float | None, digits: int = 3) -> str:
    """A number with a minus as wide as the plus; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def interval(ci: Sequence[float] | None) -> str:
    """An interval in brackets; nothing for none."""
    return "" if ci is None else f" ({number(ci[0])} to {number(ci[1])})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def methods_table(rows: Sequence[Row]) -> str:
    """Methods and baselines of one regime, with the measures that were taken."""
    of = {row["method"]: row for row in rows if row["removal"] == "drop"}
    taken = [key for key in MEASURES if any(row[key] is not None for row in of.values())]
    lines = []
    for method in (*METHODS, *OTHERS):
        if method in of:
            row = of[method]
            cells = [number(row[key]) + (interval(row[f"{key}_ci"]) if method == "auto" else "") for key in taken]
            lines.append([method, *cells, f"{row['evals']:.0f}", number(row["cpu_s"])])
    return table(["method", *(MEASURES[key] for key in taken), "evaluations", "CPU s"], lines)


def removals_table(rows: Sequence[Row]) -> str:
    """`auto`, scored with one removal and tested with another."""
    lines = [
        [row["regime"], row["scored_with"], row["tested_with"], number(row["ndel"]), number(row["nins"])]
        for row in rows
        if row["scored_with"] != row["tested_with"]
    ]
    return table(["regime", "scored with", "tested with", "nDel", "nIns"], lines)


def targets_table(targets: Sequence[Row]) -> str:
    """Every target with what was measured."""
    lines = []
    for target in targets:
        bound = f"≥ {target['at_least']}" if "at_least" in target else f"≤ {target['at_most']}"
        measured = number(target["value"]) + interval(target["ci"])
        lines.append([target["target"], target["regime"], bound, measured, "yes" if target["met"] else "**no**"])
    return table(["target", "regime", "bound", "measured", "met"], lines)


def classifier_section(result: Row) -> str:
    """Suites synth and faith."""
    parts = [f"Measured with `--suite {result['suite']} --budget {result['budget']}`."]
    if "verdict" in result:
        parts.append(f"**{result['verdict']}.**")
    if result.get("targets"):
        parts.append(targets_table(result["targets"]))
    for model in result["models"]:
        told = ", ".join(
            f"{key.replace('_', ' ')} {number(value) if isinstance(value, float) else value}"
            for key, value in model.items()
            if key not in ("regime", "doubts") and value is not None
        )
        parts.append(f"**{model['regime']}**: {told}.")
        parts += [f"Unreliable: {doubt}." for doubt in model["doubts"]]
        parts.append(methods_table([row for row in result["rows"] if row["regime"] == model["regime"]]))
    parts.append(f"`auto`, scored with one removal and tested with another:\n\n{removals_table(result['removals'])}")
    captum = result.get("captum")
    if captum is not None:
        parts.append(
            f"Captum, {captum['permutations']} orders of {captum['frames']} frames at {captum['side']} pixels, "
            f"ResNet-18: {captum['captum_cpu_s']:.0f} CPU s against {captum['ours_cpu_s']:.2f}, "
            f"{captum['ratio']:.0f} times; the values differ by {captum['distance']:.1e} of the greatest, by rounding."
        )
    return "\n\n".join(parts)


def people_section(result: Row) -> str:
    """Suite tvsum."""
    lines = [
        [
            row["method"],
            *(number(row[key]) + interval(row[f"{key}_ci"]) for key in ("tau", "rho")),
            "–" if row["expected"] is None else " / ".join(number(value) for value in row["expected"]),
        ]
        for row in result["rows"]
    ]
    return table(["compared with each person", "τ", "ρ", "expected τ / ρ"], lines)


def section(result: Row) -> str:
    """The text between the markers."""
    begin, end = markers(result["suite"])
    text = people_section(result) if result["suite"] == "tvsum" else classifier_section(result)
    return f"{begin}\n\n{text}\n\n{end}"


def replace_section(page: str, result: Row) -> str:
    """The page with a suite's tables in the place of those that stand there.

    Raises:
        SystemExit: The page has no such place.
    """
    begin, end = markers(result["suite"])
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page has no section between {begin} and {end}")
    return before + section(result) + after


def write_tables() -> None:
    """Bring the page up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", help="JSON files of bench keyframes")
    parser.add_argument("--page", default=str(ROOT / "docs" / "keyframes.md"))
    arguments = parser.parse_args()
    page = Path(arguments.page)
    text = page.read_text(encoding="utf-8")
    for result in arguments.results:
        text = replace_section(text, json.loads(Path(result).read_text(encoding="utf-8")))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_tables()
