"""Videos to leave out: a text file that ``temporal-attn doctor --quarantine`` writes and datamodules read.

One video a line: its path, and after a tab why it is left out. A relative path starts at the folder of the file; lines
that begin with ``#`` are comments. A path that holds control characters stands in double quotes, as JSON writes it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.records import Account, Catalogue, RecordTable
from temporal_attn.types import UserError

__all__ = ["Exclusions", "read_exclusions", "without_excluded", "write_exclusions"]

_log = logging.getLogger(__name__)


class Exclusions(dict[str, str]):
    """Absolute path, its folder without links → why.

    A link to a video is a video of its own; whoever names the video itself means its links as well.
    """

    def key_of(self, path: str) -> str | None:
        """The path under which a video stands here, None where it does not."""
        return next((key for key in (_place(path), os.path.realpath(path)) if key in self), None)


def read_exclusions(path: str | Path) -> Exclusions:
    """Read such a file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"exclude: {path}: {error.strerror}; `temporal-attn doctor --quarantine` writes one") from None
    folder = os.path.dirname(os.path.abspath(path))
    lines = (line.strip() for line in text.split("\n"))  # names may hold what else Python counts as a line's end
    named = (_name_and_reason(line) for line in lines if line and not line.startswith("#"))
    return Exclusions({_place(os.path.join(folder, name)): reason for name, reason in named})


def write_exclusions(path: str | Path, reasons: Mapping[str, str]) -> None:
    """Write such a file.

    Args:
        path: The file.
        reasons: Why each video is left out, by its path.

    Raises:
        UserError: It cannot be written.
    """
    head = "# Videos to leave out: loader.exclude. A path, and after a tab the reason.\n"
    named = ((_quoted(os.path.abspath(name)), " ".join(reason.split())) for name, reason in sorted(reasons.items()))
    lines = (f"{name}\t{reason}\n" for name, reason in named)
    try:
        Path(path).write_bytes((head + "".join(lines)).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UserError(f"quarantine: {path}: cannot be written ({error.strerror}); choose another file") from None


def without_excluded(catalogue: Catalogue, path: str | Path) -> Catalogue:
    """A data set without the videos that such a file names, and its accounts without them.

    What the file names in vain is said in the log, and so are classes that it leaves without training clips.

    Raises:
        UserError: The file cannot be read, it leaves nothing, or nothing that it names is of this data set.
    """
    excluded = read_exclusions(path)
    keys = {split: [excluded.key_of(name) for name in records.paths] for split, records in catalogue.records.items()}
    kept = {
        split: records.take(row for row, key in enumerate(keys[split]) if key is None)
        for split, records in catalogue.records.items()
    }
    before, after = (sum(map(len, tables.values())) for tables in (catalogue.records, kept))
    _report_vain(excluded, {key for own in keys.values() for key in own if key is not None}, catalogue, path)
    _log.warning("%s: %d videos of the data set are left out", path, before - after)
    if before and not after:
        raise UserError(f"exclude: {path}: leaves out all {before} videos; take out the lines of those that are good")
    emptied = sorted(catalogue.records["train"].classes - kept["train"].classes)
    if emptied:
        names = ", ".join(catalogue.class_names[label] for label in emptied)
        _log.warning(
            "%s: leaves no clip to train %d classes: %s; name the others as `classes`", path, len(emptied), names
        )
    accounts = {split: _account(catalogue, kept, account) for split, account in catalogue.accounts.items()}
    return replace(catalogue, records=kept, accounts=accounts)


def _report_vain(excluded: Exclusions, matched: set[str], catalogue: Catalogue, path: str | Path) -> None:
    """Say which lines match no video, unless none does: then the file is of another data set, or of another place."""
    vain = sorted(set(excluded) - matched)
    if not vain:
        return
    said = f"{len(vain)} of {len(excluded)} lines match no video of the data set, e.g. {vain[0]}"
    if not matched and not _any_in_folder(vain, catalogue):
        raise UserError(f"exclude: {path}: {said}; give the list of this data set, with the paths of its videos")
    _log.warning("%s: %s", path, said)


def _any_in_folder(names: Sequence[str], catalogue: Catalogue) -> bool:
    """Whether one of them is a file beside the data set's own: a video of other classes, or in no list."""
    folders = {os.path.dirname(_place(name)) for records in catalogue.records.values() for name in records.paths}
    if not folders:
        return False
    top = Path(os.path.commonpath(folders))
    return any(Path(name).is_relative_to(top) and os.path.exists(name) for name in names)


def _account(catalogue: Catalogue, kept: Mapping[str, RecordTable], account: Account) -> Account:
    """An account of what is kept. Parts that were made of one list share theirs."""
    splits = [split for split, other in catalogue.accounts.items() if other is account]
    count = sum(len(catalogue.records[split]) - len(kept[split]) for split in splits)
    had, has = (set[int]().union(*(tables[split].classes for split in splits)) for tables in (catalogue.records, kept))
    emptied = [catalogue.class_names[label] for label in sorted(had - has)]
    return replace(account, excluded=count, empty_classes=(*account.empty_classes, *emptied))


def _place(path: str) -> str:
    """Where a file or link lies, however its folder is reached."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _quoted(name: str) -> str:
    return name if name.isprintable() and name == name.strip() else json.dumps(name)


def _name_and_reason(line: str) -> tuple[str, str]:
    if line.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(line)
        except ValueError:  # a name that begins so
            pass
        else:
            if line[end:] == "" or line[end:].startswith("\t"):
                return str(name), line[end:].strip()
    name, _, reason = line.partition("\t")
    return name.strip(), reason
