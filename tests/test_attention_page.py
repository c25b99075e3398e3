"""docs/attention.md: its tables are those that the code makes, and its pictures exist."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from temporal_attn.attention import names

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "attention.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attention_page", ROOT / "scripts" / "attention_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["attention_page"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_the_code_says(script: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert script.replace_section(page, f"{script.table()}\n\n{script.gallery()}") == page


def test_every_mechanism_has_a_picture() -> None:
    shown = re.findall(r"!\[[^\]]*\]\((images/attention/[^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == [f"images/attention/{name}.png" for name in names()]
    for picture in shown:
        assert 1_000 < (ROOT / "docs" / picture).stat().st_size < 1_000_000, picture


def test_a_card_without_its_paper_is_refused(script: ModuleType) -> None:
    class Nameless:
        """Does something.

        Equation: y = x
        """

    with pytest.raises(ValueError, match=r"Nameless.*'Paper'"):
        script.card(Nameless)


def test_cells_wrap_and_link(script: ModuleType) -> None:
    class Named:
        """Does something.

        Paper: Author, "A Title
            of two lines", VENUE 2020. https://example.org/a.b
        Equation: y = x
        Place: anywhere.

        Args:
            channels: C.
        """

    card = script.card(Named)
    assert card.summary == "Does something"
    assert script.linked(card.paper) == '[Author, "A Title of two lines", VENUE 2020.](https://example.org/a.b)'
    assert card.place == "anywhere."
