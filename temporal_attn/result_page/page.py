"""The page of a test: how good, how sure, which classes are taken for which, and the surest mistakes in pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from temporal_attn.evaluation import VideoTable
from temporal_attn.keyframes.charts import line_chart
from temporal_attn.keyframes.page import render_page
from temporal_attn.result_page.charts import reliability_chart
from temporal_attn.result_page.curves import read_curves

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Film", "mistakes", "render_result"]

_MOST_CLASSES = 40
"""A larger confusion matrix cannot be read; its largest cells are listed instead."""
_MOST_CELLS = 60
_MOST_CLIPS = 100
"""Clips of a cell that the page names."""
_SHADES = 5


class Film(NamedTuple):
    """Pictures of a video.

    Args:
        row: Its row in the table.
        pictures: Sources of ``img`` elements; several make a strip.
    """

    row: int
    pictures: list[str]


class _Cell(NamedTuple):
    """Videos of one class that were taken for one class.

    Args:
        key: Names the cell in the page's data.
        videos: How many there are.
        true: Their class.
        said: What they were taken for.
        right: Whether that is the same.
        shade: Its share of the true class, from 1 to 5.
    """

    key: str
    videos: int
    true: str
    said: str
    right: bool
    shade: int


def mistakes(table: VideoTable) -> list[int]:
    """Rows of the videos that were read and are wrong, the surest first."""
    wrong = np.flatnonzero((table.correct == 0) & table.was_read)
    order = np.argsort(-table.probabilities[wrong].max(1, initial=0), kind="stable")
    return [int(row) for row in wrong[order]]


def render_result(
    summary: Mapping[str, Any],
    table: VideoTable,
    class_names: Sequence[str],
    films: Sequence[Film] = (),
    log: Path | None = None,
    checkpoint: str = "",
) -> str:
    """The page as HTML.

    Args:
        summary: The document of the test, see `temporal_attn.evaluation.summarise`.
        table: Its videos.
        class_names: K names.
        films: Pictures of mistakes.
        log: ``metrics.csv`` of the training; None leaves its curves out.
        checkpoint: What was tested, as text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("temporal_attn.result_page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.3f}"
    cells, clips = ({}, {}) if table.multi_label else _cells(table, class_names)
    matrix, largest = (cells, []) if len(class_names) <= _MOST_CLASSES else (None, _largest(cells))
    opened = [cell.key for cell in (cells.values() if matrix is not None else largest)]
    shown = {film.row for film in films}
    body = environment.get_template("result.html.j2").render(
        summary=summary,
        class_names=class_names,
        cells=matrix,
        largest=largest,
        strips=[_described(table, film, class_names) for film in films if len(film.pictures) > 1],
        charts=_charts(summary, log),
        classes=sorted(summary["per_class"], key=lambda row: (row["top1"] is None, row["top1"] or 0.0)),
        checkpoint=checkpoint,
        data={
            "cells": {key: [_clip(table, row, row in shown) for row in clips[key]] for key in opened},
            "stills": {str(film.row): film.pictures[0] for film in films if len(film.pictures) == 1},
        },
    )
    return render_page("Result of a test", Markup(body), _asset("result.js"), style=_asset("result.css"))


def _cells(table: VideoTable, class_names: Sequence[str]) -> tuple[dict[tuple[int, int], _Cell], dict[str, list[int]]]:
    """The cells of the confusion matrix that hold videos, and rows of those, the surest first."""
    read = table.was_read
    sure = np.where(read, table.probabilities.max(1, initial=0), 0)
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in np.argsort(-sure, kind="stable").tolist():
        if read[row]:
            rows[int(table.truth[row].argmax()), int(table.probabilities[row].argmax())].append(row)
    of_class = table.truth.sum(0)
    cells = {
        (true, said): _Cell(
            f"{true}-{said}",
            len(own),
            class_names[true],
            class_names[said],
            true == said,
            1 + min(_SHADES - 1, int(_SHADES * len(own) / of_class[true])),
        )
        for (true, said), own in rows.items()
    }
    return cells, {cells[place].key: own[:_MOST_CLIPS] for place, own in rows.items()}


def _largest(cells: Mapping[tuple[int, int], _Cell]) -> list[_Cell]:
    """The most frequent confusions."""
    wrong = [cell for cell in cells.values() if not cell.right]
    return sorted(wrong, key=lambda cell: (-cell.videos, cell.true, cell.said))[:_MOST_CELLS]


def _clip(table: VideoTable, row: int, pictured: bool) -> list[Any]:
    """What the page says of a clip: name, confidence, and the row under which its pictures are found."""
    return [table.rows[row].id, round(float(table.probabilities[row].max()), 3), row if pictured else None]


def _described(table: VideoTable, film: Film, class_names: Sequence[str]) -> dict[str, Any]:
    """A mistake in words beside its pictures."""
    said = int(table.probabilities[film.row].argmax())
    return {
        "row": film.row,
        "id": table.rows[film.row].id,
        "said": class_names[said],
        "p": float(table.probabilities[film.row, said]),
        "true": [class_names[k] for k in table.rows[film.row].classes],
        "pictures": film.pictures,
    }


def _charts(summary: Mapping[str, Any], log: Path | None) -> list[tuple[str, Markup]]:
    charts = []
    if summary["reliability"] is not None:
        charts.append(("Reliability", reliability_chart(**summary["reliability"])))
        curve = summary["risk_coverage"]
        # Among answers of one confidence the errors count as spread evenly, also among the first.
        points = list(zip([0.0, *curve["coverage"]], [curve["risk"][0], *curve["risk"]], strict=True))
        charts.append(("Risk over coverage", line_chart({"risk": points}, "share answered", "share wrong")))
    if log is not None:
        for title, unit, names in (
            ("Training: loss", "loss", {"train/loss": "training", "val/loss": "validation"}),
            ("Training: accuracy", "accuracy", {"train/top1": "training", "val/top1": "validation"}),
        ):
            curves = {names[name]: points for name, points in read_curves(log, names).items()}
            if curves:
                charts.append((title, line_chart(curves, "epoch", unit)))
    return charts


def _asset(name: str) -> str:
    return resources.files("temporal_attn.result_page").joinpath("templates").joinpath(name).read_text(encoding="utf-8")
