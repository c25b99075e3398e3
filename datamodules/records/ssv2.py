"""Annotations of Something-Something v2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.records.catalogue import Entry
from datamodules.records.lists import only_file, read_json, read_lines, unrepeated
from temporal_attn.types import UserError

__all__ = ["read_ssv2"]

_FORM = '[{"id": "78687", "template": "Holding [something] next to [something]"}, ...]'


def read_ssv2(folder: Path) -> tuple[tuple[str, ...], Mapping[str, list[Entry]]]:
    """Class names in label order, and the videos by ``train``, ``val`` and ``test``.

    Args:
        folder: Holds ``labels.json``, ``train.json``, ``validation.json`` and ``test.json``, whatever stands before
            these names, and perhaps ``test-answers.csv``, which was published later. Without it the classes of the
            test videos are unknown.

    Raises:
        UserError: A file is missing or malformed, a template is no class, or a video is listed twice.
    """
    names = _class_names(only_file(folder, "labels.json"))
    parts = {
        part: _videos(only_file(folder, f"{word}.json"), frozenset(names), has_labels=part != "test")
        for part, word in (("train", "train"), ("val", "validation"), ("test", "test"))
    }
    answers = sorted(folder.glob("*test-answers.csv"))
    if answers:
        class_of = dict(_answer(where, line, names) for where, line in read_lines(answers[0], "'<id>;<class>'"))
        parts["test"] = [entry._replace(classes=class_of.get(entry.name)) for entry in parts["test"]]
    return names, parts


def _class_names(path: Path) -> tuple[str, ...]:
    labels = read_json(path)
    try:
        numbered = {int(number): str(name) for name, number in labels.items()}
    except (AttributeError, TypeError, ValueError):
        numbered = {}
    if not numbered or sorted(numbered) != list(range(len(labels))):
        raise UserError(f'{path}: expected {{"<class>": "0", "<class>": "1", ...}} with numbers from 0, without gaps')
    return tuple(numbered[number] for number in range(len(numbered)))


def _videos(path: Path, names: frozenset[str], has_labels: bool) -> list[Entry]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: expected {_FORM}")
    located = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, entry {number}"
        class_name = _class_name(row, where, names) if has_labels else None
        located.append((where, Entry(_field(row, "id", where), class_name)))
    return unrepeated(located)


def _class_name(row: Any, where: str, names: frozenset[str]) -> str:  # noqa: ANN401 - whatever the file holds
    """The template without its brackets; they mark what the crowd workers filled in."""
    name = re.sub(r"[\[\]]", "", _field(row, "template", where))
    if name not in names:
        raise UserError(f"{where}: {name!r} is no class in labels.json")
    return name


def _field(row: Any, key: str, where: str) -> str:  # noqa: ANN401 - whatever the file holds
    if not isinstance(row, dict) or not str(row.get(key, "")).strip():
        raise UserError(f"{where}: no {key!r}; expected {_FORM}")
    return str(row[key]).strip()


def _answer(where: str, line: str, names: tuple[str, ...]) -> tuple[str, str]:
    video_id, _, name = (text.strip() for text in line.partition(";"))
    if name not in names:
        raise UserError(f"{where}: expected '<id>;<class>' with a class in labels.json, found {line!r}")
    return video_id, name
