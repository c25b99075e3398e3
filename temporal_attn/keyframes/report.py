"""Pages that stand alone: one HTML file an inspection, and a gallery of several.

A page needs no network and no second file: style, script and pictures are inside, and its content security policy
allows nothing else, by hash. Every name from outside is escaped by the templates.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from temporal_attn.keyframes.charts import Bar, bar_chart
from temporal_attn.keyframes.pictures import data_uris

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from temporal_attn.keyframes.inspection import Inspection

__all__ = ["GalleryEntry", "render_film_strip", "render_gallery", "render_page", "render_report"]

STRIP_BUDGET = 450_000
KEYFRAME_BUDGET = 350_000
"""Characters of picture data in a report, which so stays below 1 MB."""

MOST_CLASSES = 5


class GalleryEntry(NamedTuple):
    """A video on the gallery page.

    Args:
        folder: Where its report lies, beside the gallery.
        name: File name of the video.
        heading: The class that was asked about, with its probability.
        verdict: In words.
        picture: Data URI of its best frame.
    """

    folder: str
    name: str
    heading: str
    verdict: str
    picture: str

    @classmethod
    def of(cls, folder: str, inspection: Inspection) -> GalleryEntry:
        """The entry of an inspection that was saved in ``folder``."""
        best = max(range(len(inspection.frames)), key=lambda i: inspection.frames[i].score)
        return cls(
            folder=folder,
            name=PurePath(inspection.video).name,
            heading=f"{inspection.target_name}, p = {inspection.evidence.full:.2f}",
            verdict=inspection.verdict,
            picture=data_uris([inspection.pictures[best]], budget=20_000, longest=320)[0],
        )


def render_report(inspection: Inspection) -> str:
    """The page of one video."""
    page = _environment().get_template("report.html.j2")
    body = page.render(
        inspection=inspection,
        name=PurePath(inspection.video).name,
        exhibit=render_film_strip(inspection),
        evidence=_evidence_bars(inspection),
        keyframes=list(zip(inspection.keyframes, data_uris(inspection.originals, KEYFRAME_BUDGET), strict=True)),
    )
    return render_page(f"{PurePath(inspection.video).name}: key frames", _markup(body))


def render_gallery(entries: Sequence[GalleryEntry], failures: Sequence[tuple[str, str]]) -> str:
    """The page that leads to several reports.

    Args:
        entries: Videos that were inspected.
        failures: (file, reason) of those that could not be.
    """
    page = _environment().get_template("gallery.html.j2")
    return render_page("Key frames", _markup(page.render(entries=entries, failures=failures)))


def render_film_strip(inspection: Inspection) -> Markup:
    """The exhibit of one clip for any page made by `render_page`.

    A large view of one frame, the verdict and the class scores beside it, and below the film strip: each frame over
    the bar of its score.
    """
    scores = [frame.score for frame in inspection.frames]
    top, bottom = max(0.0, *scores), min(0.0, *scores)
    macros = _environment().get_template("film_strip.html.j2")
    body = macros.render(
        inspection=inspection,
        pictures=data_uris(inspection.pictures, STRIP_BUDGET, longest=320),
        selected=max(range(len(scores)), key=scores.__getitem__),
        classes=_class_bars(inspection),
        top=top,
        span=(top - bottom) or 1.0,
    )
    return _markup(body)


def render_page(title: str, body: Markup) -> str:
    """A complete HTML file around a body: head, style, script, and the policy that allows only these.

    Args:
        title: Title of the window; escaped here.
        body: Content of the page; plain text in it is escaped, `Markup` is taken as it is.
    """
    style, script = _asset("page.css"), _asset("film_strip.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template("page.html.j2")
    return page.render(title=title, body=body, policy=policy, style=_markup(style), script=_markup(script))


def _class_bars(inspection: Inspection) -> Markup:
    """The most probable classes, and the target wherever it stands."""
    p = inspection.probabilities
    order = sorted(range(len(p)), key=p.__getitem__, reverse=True)
    shown = order[:MOST_CLASSES] if inspection.target in order[:MOST_CLASSES] else [*order[:4], inspection.target]
    bars = [Bar(inspection.class_names[c], p[c], f"{p[c]:.2f}", c == inspection.target) for c in shown]
    return bar_chart(bars, "Most probable classes")


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


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("temporal_attn.keyframes"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = _signed
    environment.filters["url"] = lambda text: quote(text, safe="/")
    return environment


def _signed(score: float) -> str:
    """A score with its sign, and a minus that is as wide as the plus."""
    text = f"{score:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def _asset(name: str) -> str:
    return resources.files("temporal_attn.keyframes").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _markup(text: str) -> Markup:
    """Mark what our own templates and assets made as safe."""
    from markupsafe import Markup

    return Markup(text)
