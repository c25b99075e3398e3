"""Splits by whole groups, so that clips of one source never face each other.

Everything follows from the records and a seed: no random state, the same split on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datamodules.records.table import Label, RecordTable
from temporal_attn.types import UserError, VideoRecord

__all__ = ["SplitPlan", "fold_by_groups", "split_by_groups"]


@dataclass(frozen=True)
class SplitPlan:
    """How training, validation and test are made where the data set does not say.

    Args:
        val_fraction: Share of each class's groups for validation, taken from training.
        test_fraction: Share for the test, where neither the data set nor `folds` says what tests.
        folds: Number of folds of a cross-validation; None splits by fractions.
        fold: Which of them tests, from 1.
        seed: Another one gives another split.

    Raises:
        UserError: A fraction is out of range or leaves nothing for training, or there is no such fold.
    """

    val_fraction: float = 0.2
    test_fraction: float = 0.0
    folds: int | None = None
    fold: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fractions(self.val_fraction, 0.0 if self.folds is not None else self.test_fraction)
        if self.folds is not None:
            _check_fold(self.folds, self.fold)
        elif self.fold != 1:
            raise UserError(f"fold is {self.fold}, but folds is not set; say how many folds there are")

    def __call__(self, records: Mapping[str, RecordTable]) -> dict[str, RecordTable]:
        """``train``, ``val`` and ``test`` of a data set's own parts.

        Args:
            records: By ``train``, ``val`` and ``test`` as far as the data set has them, or all under ``all``.
        """
        if "all" in records:
            if self.folds is None:
                return split_by_groups(records["all"], self.val_fraction, self.test_fraction, self.seed)
            records = fold_by_groups(records["all"], self.folds, self.fold, self.seed)
        train, test = records.get("train", RecordTable()), records.get("test", RecordTable())
        if "val" in records:
            return {"train": train, "val": records["val"], "test": test}
        return {**split_by_groups(train, self.val_fraction, seed=self.seed), "test": test}


def split_by_groups(
    records: Iterable[VideoRecord], val_fraction: float, test_fraction: float = 0.0, seed: int = 0
) -> dict[str, RecordTable]:
    """Splits each class by whole groups.

    Groups of a class are ranked by a hash of (seed, group): the test part is taken from the front, the validation part
    from the back. As long as groups keep to one class, a class's split therefore does not depend on other classes, and
    hardly on a clip that comes or goes. A group with clips of several classes goes where the class with the fewest
    groups puts it, and counts for the others. Each part that is asked for gets a group of every class as long as one is
    left for training; validation goes first.

    Args:
        records: The videos; those without a label count as a class of their own.
        val_fraction: Share of each class's groups for validation, in [0, 1).
        test_fraction: Share for the test, in [0, 1).
        seed: Another one gives another split.

    Returns:
        ``train``, ``val`` and ``test``, each in the records' order.

    Raises:
        UserError: A fraction is out of range, or nothing would be left for training.
    """
    _check_fractions(val_fraction, test_fraction)
    table = RecordTable(records)
    group_of_row = table.groups
    groups_of: dict[int, set[str]] = defaultdict(set)
    for label, group in zip(table.labels, group_of_row, strict=True):
        for class_index in _classes(label):
            groups_of[class_index].add(group)
    rank = _ranks(group_of_row, seed)
    part_of: dict[str, str] = {}
    for _, groups in sorted(groups_of.items(), key=lambda item: (len(item[1]), item[0])):
        taken = Counter(part_of[group] for group in groups if group in part_of)
        free = sorted((group for group in groups if group not in part_of), key=rank.__getitem__)
        spare = len(free) - (not taken["train"])
        num_val = _share(val_fraction, len(groups), taken["val"], spare)
        num_test = _share(test_fraction, len(groups), taken["test"], spare - num_val)
        for place, group in enumerate(free):
            in_val = place >= len(free) - num_val
            part_of[group] = "test" if place < num_test else "val" if in_val else "train"
    return {
        part: table.take(row for row, group in enumerate(group_of_row) if part_of[group] == part)
        for part in ("train", "val", "test")
    }


def fold_by_groups(records: Iterable[VideoRecord], folds: int, fold: int, seed: int = 0) -> dict[str, RecordTable]:
    """One fold of a cross-validation in which every group tests once, and classes are spread evenly.

    Groups are dealt from the largest to the smallest, each to the fold that holds the least of its classes. When groups
    keep to one class, two folds' counts of a class therefore differ by no more than the class's largest group, and a
    class with as many groups as folds is in each of them.

    Args:
        records: The videos; those without a label count as a class of their own.
        folds: Number of folds.
        fold: The one that tests, from 1.
        seed: Decides among groups of the same size.

    Returns:
        ``train`` and ``test``, each in the records' order.

    Raises:
        UserError: There is no such fold, or there are fewer groups than folds.
    """
    _check_fold(folds, fold)
    table = RecordTable(records)
    fold_of = _deal(table, folds, seed)
    if len(fold_of) < folds:
        raise UserError(f"folds is {folds}, but there are only {len(fold_of)} groups of clips; ask for fewer folds")
    tests = [fold_of[group] == fold - 1 for group in table.groups]
    return {
        "train": table.take(row for row, held in enumerate(tests) if not held),
        "test": table.take(row for row, held in enumerate(tests) if held),
    }


def _deal(table: RecordTable, folds: int, seed: int) -> dict[str, int]:
    """Fold of each group."""
    clips: dict[str, Counter[int]] = defaultdict(Counter)
    for label, group in zip(table.labels, table.groups, strict=True):
        clips[group].update(_classes(label))
    total: Counter[int] = Counter()
    for counts in clips.values():
        total.update(counts)
    share = {
        group: {name: count / total[name] for name, count in counts.items()} for group, counts in clips.items()
    }  # of each class that a group holds
    rank = _ranks(clips, seed)
    held: list[Counter[int]] = [Counter() for _ in range(folds)]  # clips of each class in a fold
    size = [0] * folds
    fold_of = {}
    for group in sorted(clips, key=lambda name: (-max(share[name].values()), rank[name])):
        # what the fold's sum of squared shares, and so the imbalance, grows with
        crowding = [sum(added * fold[name] / total[name] for name, added in share[group].items()) for fold in held]
        chosen = min(range(folds), key=lambda fold: (round(crowding[fold], 12), size[fold]))
        held[chosen].update(clips[group])
        size[chosen] += clips[group].total()
        fold_of[group] = chosen
    return fold_of


def _classes(label: Label) -> tuple[int, ...]:
    """Class indices to keep in balance; -1 stands for no class."""
    if isinstance(label, int):
        return (label,)
    return label or (-1,)


def _ranks(groups: Iterable[str], seed: int) -> dict[str, bytes]:
    return {name: hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest() for name in set(groups)}


def _share(fraction: float, count: int, taken: int, spare: int) -> int:
    """How many more groups a part gets."""
    wanted = max(1, round(fraction * count)) if fraction > 0 else 0
    return max(0, min(wanted - taken, spare))


def _check_fractions(val_fraction: float, test_fraction: float) -> None:
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise UserError(f"{name} is {fraction}; it has to be at least 0 and below 1")
    if val_fraction + test_fraction >= 1:
        raise UserError(f"val_fraction + test_fraction is {val_fraction + test_fraction}; leave a part for training")


def _check_fold(folds: int, fold: int) -> None:
    if folds < 2:
        raise UserError(f"folds is {folds}; a cross-validation has 2 or more")
    if not 1 <= fold <= folds:
        raise UserError(f"fold is {fold}; with {folds} folds it is a number from 1 to {folds}")
