"""A section of a page: what stands between its markers is replaced, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from temporal_attn.bench.section import Section
from temporal_attn.types import UserError

OURS, OTHER = Section("ours"), Section("other")


def test_other_sections_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n{OTHER.begin}\nb\n{OTHER.end}\n{OURS.begin}stale{OURS.end}\nc\n")
    OURS.write(page, None)
    assert "stale" in page.read_text()
    for _ in range(2):
        OURS.write(page, "fresh\n")
        assert page.read_text() == (f"a\n{OTHER.begin}\nb\n{OTHER.end}\n{OURS.begin}\n\nfresh\n\n{OURS.end}\nc\n")


@pytest.mark.parametrize("text", ["", OURS.begin, OURS.end, f"{OURS.end}{OURS.begin}", OTHER.begin + OTHER.end])
def test_a_page_without_the_section_is_refused(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=r"page\.md: has no place"):
        OURS.write(page, None)
    assert page.read_text() == text
    with pytest.raises(UserError, match="cannot be changed"):
        OURS.write(tmp_path / "nowhere.md", "text")
