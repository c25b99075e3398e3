"""`result.html`: what a test found, as one page that needs no network."""

from __future__ import annotations

from temporal_attn.result_page.callback import ResultPage
from temporal_attn.result_page.page import Film, render_result

__all__ = ["Film", "ResultPage", "render_result"]
