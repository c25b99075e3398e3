"""The server's pages: the first one, where a video is chosen, and the report with live switches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from temporal_attn.keyframes.inspection import Inspection
from temporal_attn.keyframes.page import markup, render_page
from temporal_attn.keyframes.removal import REMOVALS
from temporal_attn.keyframes.report import render_report_body
from temporal_attn.keyframes.scores import names
from temporal_attn.serve.jobs import Job
from temporal_attn.serve.library import Video
from temporal_attn.serve.limits import Limits

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_inspection", "render_start"]


def render_start(videos: Sequence[Video], limits: Limits) -> str:
    """The page where a video is dropped or chosen."""
    body = _environment().get_template("start.html.j2").render(videos=videos, limits=limits)
    return render_page("Which frames decided?", markup(body), _script(), "'self'")


def render_inspection(job: Job, inspection: Inspection) -> str:
    """The report of a job, under a bar that asks the same video again in another way."""
    bar = _environment().get_template("bar.html.j2")
    head = bar.render(job=job, inspection=inspection, methods=names(), removals=list(REMOVALS))
    return render_page(inspection.video, markup(head) + render_report_body(inspection), _script(), "'self'")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("temporal_attn.serve"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _script() -> str:
    return resources.files("temporal_attn.serve").joinpath("templates").joinpath("live.js").read_text(encoding="utf-8")
