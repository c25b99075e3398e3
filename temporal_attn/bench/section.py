"""A part of a page that a program writes: what stands between its two markers, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from datamodules.atomic import write_atomically
from temporal_attn.types import UserError

__all__ = ["Section"]


class Section(NamedTuple):
    """A section of a Markdown page, between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.

    Args:
        name: What the markers say.
    """

    name: str

    @property
    def begin(self) -> str:
        """The marker before it."""
        return f"<!-- {self.name}: begin -->"

    @property
    def end(self) -> str:
        """The marker behind it."""
        return f"<!-- {self.name}: end -->"

    def replace(self, page: str, text: str) -> str:
        """The page with other text between the markers.

        Args:
            page: All of it.
            text: What comes between them, without the markers.

        Raises:
            ValueError: The page does not have both markers, in this order.
        """
        before, begin, rest = page.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not begin or not end:
            raise ValueError(f"has no place for the results: add the lines {self.begin} and {self.end}")
        return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"

    def write(self, path: str | Path, text: str | None) -> None:
        """Replace the section of a file.

        Args:
            path: The file.
            text: What comes between the markers; None only finds out whether that will do.

        Raises:
            UserError: The file cannot be read or written, or has no such section.
        """
        file = Path(path)
        try:
            with open(file, "r+", encoding="utf-8") as opened:
                page = self.replace(opened.read(), text or "")
            if text is not None:
                write_atomically(file, page.encode())
        except OSError as error:
            raise UserError(f"page {file}: cannot be changed ({error.strerror}); null writes no page") from None
        except ValueError as error:
            raise UserError(f"page {file}: {error}") from None
