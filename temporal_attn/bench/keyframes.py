"""`temporal-attn bench keyframes`: whether frame scores can be trusted, with baselines always beside them.

Three suites, because there are three questions. ``synth``: are frames found that are known to decide, on videos where
evidence adds up in five ways, over several training seeds? ``faith``: does a score tell what a trained model does, on
real videos where nobody knows? ``tvsum``: how far do people agree, and what could any score reach?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from temporal_attn.bench.results import check_writable, write_json
from temporal_attn.bench.timing import machine
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError

__all__ = ["SCHEMA", "bench_keyframes"]

SCHEMA = "temporal-attn/bench-keyframes/1"


def bench_keyframes(
    suite: Literal["synth", "faith", "tvsum"] = "synth",
    budget: Literal["quick", "full"] = "quick",
    json: str | None = None,
    runs: str = "bench-keyframes",
    checkpoint: str | None = None,
    root: str | None = None,
    tvsum: str | None = None,
) -> int:
    """Measure frame scores: deletion and insertion, known key frames, cost, sanity; the tables go to stdout.

    Args:
        suite: ``synth`` trains small models on videos with known key frames, ``faith`` asks a checkpoint about a folder
            of videos, ``tvsum`` compares people with each other.
        budget: ``quick`` (20 minutes on two cores, exact Shapley values of 12 frames) or ``full``.
        json: File for the results, as JSON.
        runs: Folder where trained models and answers are kept; a run goes on from there.
        checkpoint: Of suite faith: ``best.ckpt`` of `temporal-attn fit`.
        root: Of suite faith: folder or glob pattern of videos, of which 40 (quick) or 200 (full) are drawn.
        tvsum: Of suite tvsum: ``ydata-tvsum50.mat``.

    Returns:
        Exit status: 1 where a target is missed, or a sanity check makes the numbers unreliable.

    Raises:
        UserError: A suite or budget that does not exist, an argument that the suite needs and that is missing, or a
            file that cannot be read or written.
    """
    for name, value, known in (("suite", suite, ("synth", "faith", "tvsum")), ("budget", budget, ("quick", "full"))):
        if value not in known:
            raise UserError(f"{name}: {value!r} is not known; choose one of: {', '.join(known)}")
    if json is not None:
        check_writable(json)
    if suite == "tvsum":
        if tvsum is None:
            raise UserError("tvsum: suite tvsum needs the annotations; give the path of ydata-tvsum50.mat")
        from temporal_attn.bench.keyframe_tvsum import run_tvsum

        result = run_tvsum(tvsum)
    elif suite == "faith":
        if checkpoint is None or root is None:
            missing = "checkpoint" if checkpoint is None else "root"
            raise UserError(f"{missing}: suite faith asks a trained classifier about a folder of videos; give both")
        from temporal_attn.bench.keyframe_faith import run_faith

        result = run_faith(checkpoint, root, budget, writable_folder(runs, "--runs"))
    else:
        from temporal_attn.bench.keyframe_synth import BUDGETS, run_synth

        result = run_synth(BUDGETS[budget], writable_folder(runs, "--runs"))
    if json is not None:  # before the tables: what was measured must not hang on how it is drawn
        settings = {"suite": suite, "budget": budget}
        write_json(json, SCHEMA, **settings, **result, machine=machine("torch", "captum", "numpy", "temporal-attn"))
    _print(result)
    missed = [target for target in result.get("targets", []) if not target["met"]]
    unreliable = [model for model in result.get("models", []) if model["doubts"]]
    return int(bool(missed or unreliable))


def _print(result: Mapping[str, Any]) -> None:
    rows = result["rows"]
    if "tau" in rows[0] and "rho" in rows[0]:
        _table("TVSum: agreement with people", rows, ("method",), ("tau", "rho"))
        return
    for regime in dict.fromkeys(row["regime"] for row in rows):
        own = [row for row in rows if row["regime"] == regime and row["removal"] == "drop"]
        model = next(model for model in result["models"] if model["regime"] == regime)
        told = ", ".join(
            f"{key} {_number(value)}"
            for key, value in model.items()
            if key not in ("regime", "doubts") and value is not None
        )
        measures = ("auroc", "p_at_3", "ndel", "nins", "tau", "rel_l2", "violation", "evals", "cpu_s")
        _table(f"{regime}: {told}", own, ("method",), measures)
        for doubt in model["doubts"]:
            print(f"unreliable: {doubt}")
    crossed = result["removals"]
    _table("auto, scored with one removal and tested with another", crossed, ("regime", "scored_with", "tested_with"))
    for target in result.get("targets", []):
        bound = f">= {target['at_least']}" if "at_least" in target else f"<= {target['at_most']}"
        ci = "" if target["ci"] is None else " [{:.3f}, {:.3f}]".format(*target["ci"])
        met = "met" if target["met"] else "MISSED"
        print(f"{met}: {target['target']} {target['regime']} {_number(target['value'])}{ci} ({bound})")
    if result.get("captum") is not None:
        print("Captum: " + ", ".join(f"{key} {_number(value)}" for key, value in result["captum"].items()))
    if "verdict" in result:
        print(result["verdict"])


def _table(
    title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], measures: Sequence[str] = ("ndel", "nins")
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in names:
        table.add_column(name)
    shown = [key for key in measures if any(row[key] is not None for row in rows)]
    for key in shown:
        table.add_column(key, justify="right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in names), *(_cell(row, key) for key in shown))
    Console(width=140).print(table)


def _cell(row: Mapping[str, Any], key: str) -> str:
    ci = row.get(f"{key}_ci")
    if ci is None or key in ("evals", "cpu_s"):
        return _number(row[key])
    return f"{_number(row[key])} ±{(ci[1] - ci[0]) / 2:.3f}"


def _number(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) and abs(value) < 100 else str(round(value))
