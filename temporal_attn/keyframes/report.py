"""Pages that stand alone: one HTML file an inspection, and a gallery of several.

A page needs no network and no second file: style, script and pictures are inside, and its content security policy
allows nothing else, by hash. Every name from outside is escaped by the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from temporal_attn.keyframes.charts import Bar, bar_chart
from temporal_attn.keyframes.film_strip import render_film_strip
from temporal_attn.keyframes.page import environment, markup, render_page
from temporal_attn.keyframes.pictures import data_uri, data_uris

if TYPE_CHECKING:
    from markupsafe import Markup

    from temporal_attn.keyframes.inspection import Inspection

__all__ = ["GalleryEntry", "render_film_strip", "render_gallery", "render_page", "render_report", "render_report_body"]

KEYFRAME_BUDGET = 300_000
"""Characters of picture data; with those of the film strip a report stays below 1 MB."""


class GalleryEntry(NamedTuple):
    """A video on the gallery page.

    Args:
        folder: Where its report lies, beside the gallery.
        name: File name of the video.
        heading: The class that was asked about, with its probability.
        verdict: In words.
        picture: Data URI of its best frame.
        linked: Whether its folder has a report.
    """

    folder: str
    name: str
    heading: str
    verdict: str
    picture: str
    linked: bool = True

    @classmethod
    def from_saved(cls, folder: str, scores: Mapping[str, Any], poster: bytes, linked: bool = True) -> GalleryEntry:
        """The entry of an inspection that was saved in ``folder``.

        Args:
            folder: Where its report lies, beside the gallery.
            scores: Its `Inspection.scores`.
            poster: Its best frame as JPEG.
            linked: Whether a report was saved with it.
        """
        asked = scores["target"]["class"]
        if scores["against"] is not None:
            asked += f" not {scores['against']['class']}"
        return cls(
            folder=folder,
            name=PurePath(scores["video"]).name,
            heading=f"{asked}, p = {scores['evidence']['full']:.2f}",
            verdict=scores["verdict"],
            picture=data_uri(poster, "image/jpeg"),
            linked=linked,
        )


def render_report(inspection: Inspection) -> str:
    """The page of one video."""
    return render_page(f"{PurePath(inspection.video).name}: key frames", render_report_body(inspection))


def render_report_body(inspection: Inspection) -> Markup:
    """`render_report` without the page around it."""
    page = environment().get_template("report.html.j2")
    body = page.render(
        inspection=inspection,
        name=PurePath(inspection.video).name,
        exhibit=render_film_strip(inspection),
        evidence=_evidence_bars(inspection),
        faithfulness=_faithfulness(inspection),
        keyframes=list(zip(inspection.keyframes, data_uris(inspection.originals, KEYFRAME_BUDGET), strict=True)),
    )
    return markup(body)


def render_gallery(entries: Sequence[GalleryEntry], failures: Sequence[tuple[str, str]]) -> str:
    """The page that leads to several reports.

    Args:
        entries: Videos that were inspected.
        failures: (file, reason) of those that could not be.
    """
    page = environment().get_template("gallery.html.j2")
    return render_page("Key frames", markup(page.render(entries=entries, failures=failures)))


class _Compared(NamedTuple):
    """One measure of faithfulness beside chance."""

    name: str
    own: str
    chance: str
    better: str
    won: bool


class _Faithfulness(NamedTuple):
    """Faithfulness in words and numbers."""

    compared: list[_Compared]
    checks: list[tuple[str, str]]
    doubts: Sequence[str]


def _faithfulness(inspection: Inspection) -> _Faithfulness | None:
    f = inspection.faithfulness
    if f is None:
        return None
    rows = [
        ("Deletion: area left", f.deletion, f.random_deletion, False),
        ("Insertion: area gained", f.insertion, f.random_insertion, True),
        ("Comprehensiveness", f.comprehensiveness, f.random_comprehensiveness, True),
        ("Sufficiency: still missing", f.sufficiency, f.random_sufficiency, False),
    ]
    compared = [
        _Compared(
            name,
            _number(own),
            _number(chance),
            "higher" if high else "lower",
            own >= chance if high else own <= chance,
        )
        for name, own, chance, high in rows
    ]
    worded = [
        ("Deletion, 0 chance to 1 best", f.ndel),
        ("Insertion, 0 chance to 1 best", f.nins),
        ("Completeness gap", f.completeness_gap),
        ("Agreement of two halves, τ", f.split_half_tau),
        ("Agreement with a random head, τ", f.random_head_tau),
        ("Change by leaving out the least", f.missingness_drift),
    ]
    checks = [(term, _number(value)) for term, value in worded if value is not None]
    player = "stretch" if inspection.stretches else "frame"
    checks.append((f"Without the top {player} the class", "gains" if f.violation else "does not gain"))
    return _Faithfulness(compared, checks, f.doubts)


def _evidence_bars(inspection: Inspection) -> Markup:
    e = inspection.evidence
    key = f"{e.keyframes} key frame{'s' * (e.keyframes != 1)}"
    chance = f"{e.keyframes} random frame{'s' * (e.keyframes != 1)}"
    rows = [
        (f"All {e.frames} frames", e.full, False),
        (f"Only the {key}", e.only_key, True),
        (f"Only {chance}", e.only_random, False),
        (f"Without the {key}", e.without_key, True),
        (f"Without {chance}", e.without_random, False),
    ]
    return bar_chart([Bar(label, p, f"{p:.2f}", strong) for label, p, strong in rows], "Evidence")


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
