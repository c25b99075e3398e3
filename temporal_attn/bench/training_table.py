"""The table of temporal models as figures and as a section of a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from temporal_attn.bench.paired import Estimate, accuracy, difference, signed
from temporal_attn.bench.training_rows import BLOCKS
from temporal_attn.bench.training_runs import Finished

__all__ = ["Figures", "Found", "figures", "section"]

Found = Mapping[str, Mapping[int, Finished]]
"""Finished runs by row and seed."""
Figures = dict[str, Any]
"""Of one row of one block, as `figures` says; all that JSON can hold."""

_HEAD = (
    "top-1, mean (lowest–highest seed)",
    "seeds",
    "interval over groups",
    "against the first row, points",
    "parameters trained / all",
    "GFLOPs a video",
    "fit, CPU",
    "predict a video, CPU",
)
_MEASURED = (
    "top1",
    "lowest",
    "highest",
    "ci95",
    "against",
    "trained",
    "parameters",
    "gflops",
    "fit_cpu_s",
    "predict_cpu_s",
    "videos",
    "groups",
    "dates",
    "where",
    "versions",
)


def figures(found: Found, earlier: Sequence[Figures] = ()) -> list[Figures]:
    """One dict for each row of each block, in the order of the table.

    Args:
        found: The runs that there are.
        earlier: Figures of runs that are gone, or lie elsewhere; they stand until there are as many runs.

    Returns:
        block, row, words, base (whether the others are compared with it), seeds (those that there are); and None where
        there is none: top1, lowest, highest, ci95, against (difference, low, high), trained, parameters, gflops,
        fit_cpu_s and predict_cpu_s, medians over seeds, videos and groups (their numbers), and dates, where and
        versions, each a list without repetition.
    """
    known = {(row["block"], row["row"]): row for row in earlier}
    made = []
    for block in BLOCKS:
        for row in (block.base, *block.others):
            head = {"block": block.title, "row": row.name, "words": row.words, "base": row is block.base}
            runs, old = found.get(row.name, {}), known.get((block.title, row.name))
            if old is not None and len(old["seeds"]) > len(runs):
                made.append({**old, **head})
            elif runs:
                made.append({**head, **_measured(runs, None if row is block.base else found.get(block.base.name, {}))})
            else:
                made.append({**head, "seeds": [], **dict.fromkeys(_MEASURED)})
    return made


def _measured(runs: Mapping[int, Finished], base: Mapping[int, Finished] | None) -> Figures:
    groups = _groups(runs)
    answers = _answers(runs)
    top1 = accuracy(answers, groups)
    tops = [statistics.fmean(own.values()) for own in answers.values()]
    against = None if base is None else difference(answers, _answers(base), groups)
    costs = [run.costs for run in runs.values()]
    values: tuple[Any, ...] = (
        top1.value,
        min(tops),
        max(tops),
        [top1.low, top1.high],
        None if against is None else list(against),
        costs[0].trained,
        costs[0].parameters,
        costs[0].gflops,
        statistics.median(run.fit_cpu_s for run in runs.values()),
        statistics.median(cost.predict_cpu_s for cost in costs),
        len(groups),
        len(set(groups)),
        sorted({run.date for run in runs.values()}),
        sorted({f"{run.machine['processor']}, {_number(run.threads, 'thread')}" for run in runs.values()}),
        sorted({_versions(run) for run in runs.values()}),
    )
    return {"seeds": sorted(runs), **dict(zip(_MEASURED, values, strict=True))}


def section(rows: Sequence[Figures], command: str, config: str) -> str:
    """The text of the section.

    Args:
        rows: What `figures` gave.
        command: What makes it anew.
        config: The configuration that rows differ from.
    """
    done = {row["row"]: row for row in rows if row["seeds"]}  # a base stands in several blocks
    parts = [f"```sh\n{command}\n```", _about(list(done.values()), config) if done else "No run is finished."]
    for block in BLOCKS:
        own = [row for row in rows if row["block"] == block.title]
        parts += [f"**{block.title}**", _table(own), _conclusion(own)]
    return "\n\n".join(part for part in parts if part)


def _about(rows: Sequence[Figures], config: str) -> str:
    """What ran, when, where, with which versions, and how to read it."""
    days, where, versions = (
        sorted({one for row in rows for one in row[key]}) for key in ("dates", "where", "versions")
    )
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    runs = _number(sum(len(row["seeds"]) for row in rows), "run")
    groups = _number(rows[0]["groups"], "group")
    return (
        f"{runs} of {config} with the options of each row, {when}, on {'; '.join(where)}; {'; or '.join(versions)}. "
        f"Validation after the last epoch, so that no epoch is chosen: {rows[0]['videos']} videos in {groups}. "
        "Intervals are 95 % bootstraps over groups of the seeds' mean; differences are paired by seed and video. A "
        "multiplication and an addition are two operations. Seconds are CPU time of all threads, because other work "
        "may have run beside: those of `fit` with validation after each epoch, from a warm cache or else with "
        "decoding; those of a prediction from pixels to probabilities, one clip at a time. Where there is no "
        "difference, one interval in twenty leaves zero out all the same."
    )


def _versions(run: Finished) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.machine["versions"].items())


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| | {' | '.join(_HEAD)} |", "|---" * (len(_HEAD) + 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(_cells(row))} |" for row in rows])


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    yield str(row["words"])
    if not row["seeds"]:
        yield "not run"
        yield from ["–"] * (len(_HEAD) - 1)
        return
    spread = f" ({100 * row['lowest']:.1f}–{100 * row['highest']:.1f})" if len(row["seeds"]) > 1 else ""
    yield f"{100 * row['top1']:.1f} %{spread}"
    yield "one seed" if len(row["seeds"]) == 1 else str(len(row["seeds"]))
    yield "–".join(f"{100 * end:.1f}" for end in row["ci95"]) + " %"
    yield "–" if row["against"] is None else _against(Estimate(*row["against"]))
    yield f"{_millions(row['trained'])} / {_millions(row['parameters'])}"
    yield f"{row['gflops']:.1f}"
    yield f"{row['fit_cpu_s']:.0f} s"
    yield f"{row['predict_cpu_s']:.2f} s"


def _against(found: Estimate) -> str:
    return f"{signed(found.value)} ({signed(found.low)} to {signed(found.high)})"


def _conclusion(rows: Sequence[Mapping[str, Any]]) -> str:
    """In words: which rows of a block differ from its first by more than chance; nothing where none is compared."""
    compared = [row for row in rows if row["against"] is not None]
    better = [row["words"] for row in compared if row["against"][1] > 0]
    worse = [row["words"] for row in compared if row["against"][2] < 0]
    said = [
        f"{which} than the first row by more than chance: {'; '.join(names)}."
        for which, names in (("Better", better), ("Worse", worse))
        if names
    ]
    if compared and not said:
        said = ["No row differs from the first by more than chance: every interval of a difference holds zero."]
    return " ".join(said)


def _answers(runs: Mapping[int, Finished]) -> dict[int, dict[str, bool]]:
    return {seed: run.answers for seed, run in runs.items()}


def _groups(runs: Mapping[int, Finished]) -> list[str]:
    """Group of each video, in the order of their names."""
    groups = next(iter(runs.values())).groups
    return [groups[video] for video in sorted(groups)]


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
