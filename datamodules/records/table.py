"""Records by the hundred thousand: columns of numbers and bytes instead of an object a row.

A Python object counts its references inside itself, so that merely reading a list of records in a forked worker
writes to every memory page of it, and the kernel copies them all: memory grows with the workers. Arrays are read in
place. They also pickle at the speed of a copy, which is what a spawned worker waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from temporal_attn.types import VideoRecord

__all__ = ["RecordTable"]

Label = int | tuple[int, ...] | None
Indices = NDArray[np.int64]

_UNKNOWN, _SINGLE, _SEVERAL = 0, 1, 2  # what a label is: None, a class, a tuple of classes
_Scalar = TypeVar("_Scalar", np.uint8, np.int64)


class RecordTable(Sequence[VideoRecord]):
    """An immutable sequence of `VideoRecord`, stored by columns. A record is built when it is asked for.

    Args:
        records: The rows. A start or end of NaN is no second, and reads as None.

    Example:
        >>> table = RecordTable([VideoRecord("a/1", "root/a/1.mp4", 0, "a_g01"), VideoRecord("b/1", "b.mp4", 1, "b")])
        >>> table[0].path, len(table[1:]), table.labels
        ('root/a/1.mp4', 1, [0, 1])
    """

    __slots__ = ("_end", "_group", "_id", "_kind", "_label", "_path", "_start")

    def __init__(self, records: Iterable[VideoRecord] = ()) -> None:
        if isinstance(records, RecordTable):
            self.__setstate__(records.__getstate__())
            return
        rows = tuple(records)
        labels = [_classes(row.label) for row in rows]
        self._id = _strings([row.id for row in rows])
        self._path = _strings([row.path for row in rows])
        self._group = _strings([row.group for row in rows])
        self._label = _Ragged.join([np.asarray(classes, dtype=np.int64) for classes in labels], np.int64)
        self._kind = _frozen(np.array([_kind(row.label) for row in rows], dtype=np.uint8))
        self._start = _seconds([row.start for row in rows])
        self._end = _seconds([row.end for row in rows])

    # A sequence of records

    def __len__(self) -> int:
        """Number of records."""
        return len(self._kind)

    @overload
    def __getitem__(self, index: int) -> VideoRecord: ...
    @overload
    def __getitem__(self, index: slice) -> RecordTable: ...
    def __getitem__(self, index: int | slice) -> VideoRecord | RecordTable:
        """One record, or the table of a slice."""
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        row = range(len(self))[index]  # counts from the end, refuses what is outside
        return VideoRecord(
            id=_text(self._id[row]),
            path=_text(self._path[row]),
            label=self._label_at(row),
            group=_text(self._group[row]),
            start=_second(self._start[row]),
            end=_second(self._end[row]),
        )

    def __eq__(self, other: object) -> bool:
        """Whether another table holds the same records in the same order."""
        if not isinstance(other, RecordTable):
            return NotImplemented
        theirs = other.__getstate__()
        return all(_same(column, theirs[name]) for name, column in self.__getstate__().items())

    __hash__ = None  # type: ignore[assignment]  # as long as the data set: nothing to look up by

    def __repr__(self) -> str:
        return f"RecordTable({len(self)} records)"

    # Columns

    @property
    def ids(self) -> list[str]:
        """Names of the videos."""
        return _texts(self._id)

    @property
    def paths(self) -> list[str]:
        """Their files."""
        return _texts(self._path)

    @property
    def groups(self) -> list[str]:
        """Their leakage groups."""
        return _texts(self._group)

    @property
    def have_seconds(self) -> bool:
        """Whether some of them are segments of their files."""
        return not bool(np.isnan(self._start).all() and np.isnan(self._end).all())

    @property
    def classes(self) -> set[int]:
        """Indices of the classes that have a video."""
        return set(np.unique(self._label.values).tolist())

    @property
    def labels(self) -> list[Label]:
        """Their labels."""
        return [self._label_at(row) for row in range(len(self))]

    # Other tables

    def take(self, indices: Iterable[int]) -> RecordTable:
        """The records at some positions, in that order.

        Args:
            indices: In [0, len).
        """
        chosen = np.fromiter(indices, dtype=np.int64)
        return self._of(
            {
                name: column.take(chosen) if isinstance(column, _Ragged) else column[chosen]
                for name, column in self.__getstate__().items()
            }
        )

    def relabel(self, label_of: Sequence[int]) -> RecordTable:
        """The same records under other class indices; unknown labels stay unknown.

        Args:
            label_of: New class index of each old one.
        """
        new = np.asarray(label_of, dtype=np.int64)[self._label.values]
        return self._of({**self.__getstate__(), "_label": _Ragged(new, self._label.offsets)})

    # Inside

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, column in state.items():
            setattr(self, name, column if isinstance(column, _Ragged) else _frozen(column))

    @classmethod
    def _of(cls, columns: dict[str, Any]) -> RecordTable:
        table = cls.__new__(cls)
        table.__setstate__(columns)
        return table

    def _label_at(self, row: int) -> Label:
        if self._kind[row] == _UNKNOWN:
            return None
        classes = self._label[row].tolist()
        return int(classes[0]) if self._kind[row] == _SINGLE else tuple(classes)


class _Ragged(Generic[_Scalar]):
    """Rows of different lengths, end to end.

    Args:
        values: All rows.
        offsets: Where each row begins, and at last where the last one ends.
    """

    __slots__ = ("offsets", "values")

    def __init__(self, values: NDArray[_Scalar], offsets: Indices) -> None:
        self.values = _frozen(values)
        self.offsets = _frozen(offsets)

    @classmethod
    def join(cls, rows: Sequence[NDArray[_Scalar]], dtype: type[_Scalar]) -> _Ragged[_Scalar]:
        values = np.concatenate(rows) if rows else np.empty(0, dtype)
        return cls(values, _offsets([len(row) for row in rows]))

    def __getitem__(self, row: int) -> NDArray[_Scalar]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Ragged):
            return NotImplemented
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: Indices) -> _Ragged[_Scalar]:
        first = self.offsets[rows]
        lengths = self.offsets[rows + 1] - first
        offsets = _offsets(lengths)
        place = np.repeat(first - offsets[:-1], lengths) + np.arange(offsets[-1])
        return _Ragged(self.values[place], offsets)

    def __getstate__(self) -> tuple[NDArray[_Scalar], Indices]:
        return (self.values, self.offsets)

    def __setstate__(self, state: tuple[NDArray[_Scalar], Indices]) -> None:
        self.values, self.offsets = _frozen(state[0]), _frozen(state[1])


def _same(one: Any, two: Any) -> bool:  # noqa: ANN401 - a column, ragged or not
    if isinstance(one, _Ragged):
        return bool(one == two)
    return np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def _strings(texts: Sequence[str]) -> _Ragged[np.uint8]:
    # names of files may hold bytes that are no UTF-8, which Python keeps as lone surrogates
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    values = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return _Ragged(values, _offsets([len(text) for text in encoded]))


def _texts(column: _Ragged[np.uint8]) -> list[str]:
    encoded, offsets = column.values.tobytes(), column.offsets.tolist()
    return [encoded[first:last].decode("utf-8", "surrogatepass") for first, last in pairwise(offsets)]


def _text(encoded: NDArray[np.uint8]) -> str:
    return encoded.tobytes().decode("utf-8", "surrogatepass")


def _offsets(lengths: Sequence[int] | Indices) -> Indices:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.asarray(lengths, dtype=np.int64))])


def _classes(label: Label) -> tuple[int, ...]:
    return () if label is None else label if isinstance(label, tuple) else (label,)


def _kind(label: Label) -> int:
    return _UNKNOWN if label is None else _SEVERAL if isinstance(label, tuple) else _SINGLE


def _seconds(times: Sequence[float | None]) -> NDArray[np.float64]:
    return _frozen(np.array([np.nan if time is None else time for time in times], dtype=np.float64))


def _second(time: np.float64) -> float | None:
    return None if np.isnan(time) else float(time)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
