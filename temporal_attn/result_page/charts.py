"""The reliability diagram: accuracy over confidence, beside the line on which they are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["reliability_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 318.0, 24.0, 204.0


def reliability_chart(
    videos: Sequence[int], confidence: Sequence[float | None], accuracy: Sequence[float | None]
) -> Markup:
    """Bars of accuracy, one for each bin of confidence that holds videos, and a tick at their mean confidence.

    Args:
        videos: How many videos each of the M bins holds.
        confidence: Their mean confidence; None in an empty bin.
        accuracy: The share of them that is right; likewise.
    """
    from markupsafe import Markup

    bins = len(videos)

    def x_of(share: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * share

    def y_of(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * share

    rule = Markup('<line class="rule" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    bar = Markup('<rect class="bin" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    tick = Markup('<line class="said" x1="{0:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{2:.1f}"/>')
    parts = [text.format("axis", 0, 10, "start", "accuracy"), text.format("axis", _RIGHT, 240, "end", "confidence")]
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(rule.format(_LEFT, _RIGHT, y_of(share), y_of(share)))
        parts.append(text.format("tick", _LEFT - 8, y_of(share) + 4, "end", f"{share:g}"))
        parts.append(text.format("tick", x_of(share), _BOTTOM + 18, "middle", f"{share:g}"))
    spoken = []
    width = (_RIGHT - _LEFT) / bins
    for number, (count, sure, right) in enumerate(zip(videos, confidence, accuracy, strict=True)):
        if sure is None or right is None:
            continue
        left = x_of(number / bins)
        parts.append(bar.format(left + 1, y_of(right), width - 2, _BOTTOM - y_of(right)))
        parts.append(tick.format(left + 1, left + width - 1, y_of(sure)))
        spoken.append(f"{count} videos with confidence {sure:.2f}: {right:.0%} right")
    parts.append(
        Markup('<line class="ideal" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            x_of(0), x_of(1), y_of(0), y_of(1)
        )
    )
    title = "Accuracy over confidence; " + "; ".join(spoken)
    return Markup('<svg class="lines" viewBox="0 0 420 246" role="img" aria-label="{}">{}</svg>').format(
        title, Markup("").join(parts)
    )
