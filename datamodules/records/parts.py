"""The words by which data sets call the parts of their split, in columns, folders and names of files."""

from __future__ import annotations

import re

__all__ = ["part_called", "part_in_name"]

_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_LETTER = r"[^\W\d_]"
_WORD = re.compile(rf"(?<!{_LETTER})({'|'.join(sorted(_PARTS, reverse=True))})(?:list|set|split)?(?!{_LETTER})")


def part_called(word: str) -> str | None:
    """``train``, ``val`` or ``test``, whatever a data set calls it and in whatever case; None for another word."""
    return _PARTS.get(word.casefold())


def part_in_name(name: str) -> str | None:
    """The part that a name speaks of in a word of its own, None where none does.

    Example:
        >>> part_in_name("k400_latest_train"), part_in_name("testlist01"), part_in_name("latest")
        ('train', 'test', None)
    """
    match = _WORD.search(name.casefold())
    return None if match is None else _PARTS[match[1]]
