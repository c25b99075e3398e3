"""Bars and lines as accessible HTML and SVG, without a plotting library.

Colours come from the page's style sheet by class name, so that charts follow its light and dark schemes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Bar", "ScoreBar", "ScoreBars", "bar_chart", "line_chart", "score_bars", "ticks"]


class Bar(NamedTuple):
    """One row of a bar chart.

    Args:
        label: What it is.
        value: Not negative.
        text: The value as written.
        strong: Whether it stands out.
    """

    label: str
    value: float
    text: str
    strong: bool = False


class ScoreBar(NamedTuple):
    """A signed bar that stands on or hangs from a common zero line; lengths in percent of the chart, y runs down.

    Args:
        y: Upper edge.
        height: From there down.
        positive: Whether it stands.
        interval: y of the lower and the upper end of the score's interval; None without one.
    """

    y: float
    height: float
    positive: bool
    interval: tuple[float, float] | None


class ScoreBars(NamedTuple):
    """Signed bars on one scale, and y of their zero line."""

    zero: float
    bars: list[ScoreBar]


def score_bars(scores: Sequence[float], ci: Sequence[tuple[float, float] | None] | None) -> ScoreBars:
    """Bars that fill the chart, with room for their intervals.

    Args:
        scores: P signed scores, at least one.
        ci: P intervals, each may be missing; None without any.
    """
    intervals = ci or [None] * len(scores)
    values = [*scores, *(end for interval in intervals if interval for end in interval)]
    top, bottom = max(0.0, *values), min(0.0, *values)
    span = (top - bottom) or 1.0

    def y_of(value: float) -> float:
        return 100 * (top - value) / span

    bars = [
        ScoreBar(
            y_of(max(score, 0.0)),
            100 * abs(score) / span,
            score > 0,
            None if interval is None else (y_of(interval[0]), y_of(interval[1])),
        )
        for score, interval in zip(scores, intervals, strict=True)
    ]
    return ScoreBars(y_of(0.0), bars)


def bar_chart(bars: Sequence[Bar], label: str, maximum: float = 1.0) -> Markup:
    """Horizontal bars with their names and values as text.

    Args:
        bars: Rows, top first.
        label: What the chart shows, for readers who hear the page.
        maximum: Value of a full bar; larger values are cut to it.
    """
    from markupsafe import Markup

    row = Markup(
        '<li class="{kind}"><span class="name">{label}</span><svg class="bar" viewBox="0 0 100 1" '
        'preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="1"/>'
        '<rect class="fill" width="{width:.2f}" height="1"/></svg><span class="value">{text}</span></li>'
    )
    rows = Markup("").join(
        row.format(
            kind="strong" if bar.strong else "plain",
            label=bar.label,
            width=100 * min(max(bar.value / maximum, 0.0), 1.0),
            text=bar.text,
        )
        for bar in bars
    )
    return Markup('<ul class="bars" aria-label="{}">{}</ul>').format(label, rows)


def line_chart(series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> Markup:
    """Lines over a common pair of axes, each named at its last point.

    Args:
        series: Name -> points (x, y) in the order of x; points that are not finite are left out.
        x_label: What runs to the right.
        y_label: What runs up.
    """
    from markupsafe import Markup

    drawn = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    xs = [x for points in drawn.values() for x, _ in points] or [0.0]
    ys = [y for points in drawn.values() for _, y in points] or [0.0]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    left, right, top, bottom = 44.0, 318.0, 24.0, 204.0

    def x_of(x: float) -> float:
        return left + (right - left) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])

    def y_of(y: float) -> float:
        return bottom - (bottom - top) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    rule = Markup('<line class="rule" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    parts = [text.format("axis", 0, 10, "start", y_label), text.format("axis", right, 240, "end", x_label)]
    for tick in y_ticks:
        parts.append(rule.format(left, right, y_of(tick), y_of(tick)))
        parts.append(text.format("tick", left - 8, y_of(tick) + 4, "end", f"{tick:g}"))
    parts += [text.format("tick", x_of(tick), bottom + 18, "middle", f"{tick:g}") for tick in x_ticks]
    name_y = math.inf
    ends = sorted((points[-1][1], name) for name, points in drawn.items() if points)
    for y, name in ends:
        hue = list(drawn).index(name) % 4
        way = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in drawn[name])
        parts.append(Markup('<polyline class="line hue{}" points="{}"/>').format(hue, way))
        end_x = x_of(drawn[name][-1][0])
        parts.append(Markup('<circle class="dot hue{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(hue, end_x, y_of(y)))
        name_y = min(y_of(y) + 3, name_y - 13)  # names of lines that end together stand above each other
        parts.append(text.format(f"series hue{hue}", right + 8, name_y, "start", name))
    title = f"{y_label} over {x_label}: " + "; ".join(f"{name} ends at {y:.3g}" for y, name in ends)
    return Markup('<svg class="lines" viewBox="0 0 420 246" role="img" aria-label="{}">{}</svg>').format(
        title, Markup("").join(parts)
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that enclose a range: multiples of 1, 2 or 5 · 10ⁿ, two to ``most`` of them.

    One number alone stands beside zero, so that a share stays in [0, 1].
    """
    if not high > low:
        low, high = (min(low, 0.0), max(low, 0.0)) if low else (0.0, 1.0)
    unit = 10 ** math.floor(math.log10((high - low) / most))
    for step in (unit * factor for factor in (1, 2, 5, 10, 20, 50)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            break
    return [round(i * step, 12) for i in range(first, last + 1)]
