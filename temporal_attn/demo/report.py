"""The demo's page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from temporal_attn.demo.result import DemoResult, Run
from temporal_attn.keyframes.charts import Bar, bar_chart, line_chart
from temporal_attn.keyframes.report import render_film_strip, render_page

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["render_demo"]


def render_demo(result: DemoResult) -> str:
    """The page of a demo: accuracies against the bound, film strips of some test videos, training, and classes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("temporal_attn.demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    shown_events = {event.inspection.target: event for event in reversed(result.events)}  # the first of each class
    body = environment.get_template("demo.html.j2").render(
        result=result,
        keyframes=result.keyframes,
        accuracies=_accuracies(result),
        events=[
            (PurePath(event.inspection.video).name, event, render_film_strip(event.inspection))
            for event in shown_events.values()
        ],
        pair=[
            (PurePath(inspection.video).name, inspection, render_film_strip(inspection)) for inspection in result.pair
        ],
        curves=[
            ("Training", line_chart(_by_epoch(result.temporal.loss, result.mean_pool.loss), "epoch", "loss")),
            (
                "Validation",
                line_chart(_by_epoch(result.temporal.accuracy, result.mean_pool.accuracy), "epoch", "accuracy"),
            ),
        ],
        classes=[
            ("Classes, with attention over time", _classes(result.temporal)),
            ("Classes, by averaging frames", _classes(result.mean_pool)),
        ],
    )
    return render_page("temporal_attn demo", Markup(body))


def _accuracies(result: DemoResult) -> Markup:
    rows = [
        ("Attention over time", result.temporal.top1, True),
        ("Mean of frames", result.mean_pool.top1, False),
        ("Best possible without order", result.bound, False),
    ]
    return bar_chart([Bar(name, value, f"{100 * value:.1f} %", strong) for name, value, strong in rows], "Accuracy")


def _classes(run: Run) -> Markup:
    """Accuracy of each class."""
    rows = run.summary["per_class"]
    return bar_chart([Bar(row["class"], row["top1"], f"{100 * row['top1']:.0f} %") for row in rows], "By class")


def _by_epoch(temporal: Sequence[float], mean_pool: Sequence[float]) -> dict[str, list[tuple[float, float]]]:
    series = {"over time": temporal, "mean": mean_pool}
    return {name: [(float(epoch), value) for epoch, value in enumerate(values, 1)] for name, values in series.items()}
