"""The exhibit of one clip: a frame large, a scrubber over time, the verdict, and the frames over their scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from temporal_attn.keyframes.charts import Bar, bar_chart, score_bars
from temporal_attn.keyframes.page import environment, markup, signed
from temporal_attn.keyframes.pictures import HEAT_STOPS, data_uris, heat_uris

if TYPE_CHECKING:
    from markupsafe import Markup

    from temporal_attn.keyframes.inspection import InspectedFrame, Inspection

__all__ = ["render_film_strip"]

STRIP_BUDGET = 400_000
HEAT_BUDGET = 120_000
"""Characters of picture data."""

MOST_CLASSES = 5
_DIGITS = 4


def render_film_strip(inspection: Inspection) -> Markup:
    """The exhibit of one clip for any page made by `render_page`.

    A large view of one frame, the verdict and the class scores beside it, and below the film strip: each frame over
    the bar of its score.
    """
    scores = [frame.score for frame in inspection.frames]
    heat = None if inspection.heatmaps is None else heat_uris(list(inspection.heatmaps), HEAT_BUDGET)
    views = _views(inspection)
    ci = views[0]["ci"] or [None] * len(scores)
    body = (
        environment()
        .get_template("film_strip.html.j2")
        .render(
            inspection=inspection,
            name=PurePath(inspection.video).name,
            pictures=data_uris(inspection.pictures, STRIP_BUDGET, longest=320),
            heat=heat,
            ramp=["#{:02x}{:02x}{:02x}".format(*stop) for stop in HEAT_STOPS],
            captions=[_caption(frame, ends) for frame, ends in zip(inspection.frames, ci, strict=True)],
            selected=max(range(len(scores)), key=scores.__getitem__),
            classes=_class_bars(inspection),
            bars=score_bars(scores, ci),
            marks=_marks(inspection),
            first_ms=round(1000 * inspection.frames[0].pts),
            last_ms=round(1000 * inspection.frames[-1].pts),
            intervals=any(view["ci"] for view in views),
            options=_options(inspection),
            whisker=lambda ends: "M5 {1:.2f}V{0:.2f}M3 {1:.2f}H7M3 {0:.2f}H7".format(*ends),
            data={
                # A class stands against the mean of the other K − 1, so the difference of two is K / (K − 1) times that
                # of their logits; where classes do not exclude each other it is that of their logits.
                "share": 1 if inspection.multi_label else 1 - 1 / len(inspection.class_names),
                "topk": inspection.topk,
                "gap": inspection.min_gap_s,
                "frames": [{"index": frame.index, "pts": frame.pts} for frame in inspection.frames],
                "views": views,
                "heat": heat,
            },
        )
    )
    return markup(body)


class _Mark(NamedTuple):
    """A frame's place on the time line, in thousandths of its length."""

    x: float
    width: float


def _marks(inspection: Inspection) -> list[_Mark]:
    """Where the frames' bars stand over the scrubber."""
    seconds = [frame.pts for frame in inspection.frames]
    span = (seconds[-1] - seconds[0]) or 1.0
    width = min(40.0, 700 / len(seconds))
    return [_Mark(1000 * (second - seconds[0]) / span - width / 2, width) for second in seconds]


def _caption(frame: InspectedFrame, interval: Sequence[float] | None) -> str:
    """What a frame is, in words; the script says the same of other classes."""
    ci = "" if interval is None else f" ({signed(interval[0])} to {signed(interval[1])})"
    role = f" · key frame {frame.rank}" if frame.keyframe else ""
    return f"Frame {frame.index} · {frame.pts:.2f} s · score {signed(frame.score)}{ci}{role}"


def _intervals(ci: Sequence[tuple[float, float] | None] | None) -> list[list[float]] | None:
    """Intervals as they are drawn; None where there are none, or none of them could be seen."""
    found = [[round(end, _DIGITS) for end in ends] for ends in ci or () if ends is not None]
    return found if any(high - low >= 0.005 for low, high in found) else None


def _views(inspection: Inspection) -> list[dict[str, Any]]:
    """What the page can switch between; the question that was asked comes first."""
    asked = {
        "target": inspection.target,
        "against": inspection.against,
        "name": inspection.question,
        "scores": [round(frame.score, _DIGITS) for frame in inspection.frames],
        "ci": _intervals([frame.ci for frame in inspection.frames]),
        "keyframes": [inspection.frames.index(frame) for frame in inspection.keyframes],
        "verdict": inspection.verdict,
        "known": [stretch.looked_into for stretch in inspection.stretches for _ in stretch.frames] or None,
    }
    others = [
        {
            "target": view.target,
            "against": None,
            "name": inspection.class_names[view.target],
            "scores": [round(score, _DIGITS) for score in view.scores],
            "ci": _intervals(view.ci),
            "keyframes": list(view.keyframes),
            "verdict": view.verdict,
            "known": view.looked_into,
        }
        for view in inspection.classes
    ]
    return [asked, *others]


class _Option(NamedTuple):
    """A class that the page can be asked about."""

    target: int
    name: str
    p: float


def _options(inspection: Inspection) -> list[_Option]:
    """Classes with scores of their own, the most probable first."""
    known = {view.target for view in inspection.classes}
    if inspection.against is None:
        known.add(inspection.target)
    options = [_Option(c, inspection.class_names[c], inspection.probabilities[c]) for c in known]
    return sorted(options, key=lambda option: -option.p)


def _class_bars(inspection: Inspection) -> Markup:
    """The most probable classes, and the target wherever it stands."""
    p = inspection.probabilities
    order = sorted(range(len(p)), key=p.__getitem__, reverse=True)
    shown = order[:MOST_CLASSES] if inspection.target in order[:MOST_CLASSES] else [*order[:4], inspection.target]
    bars = [Bar(inspection.class_names[c], p[c], f"{p[c]:.2f}", c == inspection.target) for c in shown]
    return bar_chart(bars, "Most probable classes")
