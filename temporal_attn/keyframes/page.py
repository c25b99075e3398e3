"""Pages that stand alone: style, script and pictures are inside, and the content security policy allows nothing else.

The policy names the style and the script by hash, so that nothing that came in with a name can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["asset", "environment", "json_schema", "markup", "render_page", "signed"]


def render_page(title: str, body: Markup, script: str = "", connect: str = "'none'", style: str = "") -> str:
    """A complete HTML file around a body: head, style, script, and the policy that allows only these.

    Args:
        title: Title of the window; escaped here.
        body: Content of the page; plain text in it is escaped, `Markup` is taken as it is.
        script: Runs after the film strips' own.
        connect: Where scripts may connect to, as the policy says it; a page that stands alone connects to nothing.
        style: Rules that come after the common ones.
    """
    style, code = asset("page.css") + style, asset("film_strip.js") + script
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(code)}'; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    page = environment().get_template("page.html.j2")
    return page.render(title=title, body=body, policy=policy, style=markup(style), script=markup(code))


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates of this package: everything is escaped, and nothing may be missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("temporal_attn.keyframes"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    environment.filters["url"] = lambda text: quote(text, safe="/")
    return environment


def signed(score: float) -> str:
    """A score with its sign, and a minus that is as wide as the plus."""
    text = f"{score:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def asset(name: str) -> str:
    """Text of a file beside the templates."""
    return resources.files("temporal_attn.keyframes").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def markup(text: str) -> Markup:
    """Mark what our own templates and assets made as safe."""
    from markupsafe import Markup

    return Markup(text)


def json_schema(name: str) -> dict[str, Any]:
    """A published JSON Schema of this package."""
    path = resources.files("temporal_attn.keyframes").joinpath("schemas").joinpath(name)
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema
