from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.records import RecordTable
from temporal_attn.types import VideoRecord

names = st.text(st.characters(), max_size=12)  # lone surrogates included: names on a disk need not be UTF-8
seconds = st.none() | st.floats(0, 1e6)
labels = st.none() | st.integers(0, 2**31) | st.lists(st.integers(0, 500), max_size=4).map(tuple)
records = st.builds(VideoRecord, id=names, path=names, label=labels, group=names, start=seconds, end=seconds)
rows = st.lists(records, max_size=8)


@settings(deadline=None)
@given(rows)
def test_a_table_is_the_sequence_it_was_made_of(rows):
    table = RecordTable(rows)
    assert list(table) == rows
    assert len(table) == len(rows)
    assert list(reversed(table)) == rows[::-1]
    assert all(type(one.label) is type(two.label) for one, two in zip(table, rows, strict=True))
    assert [table[i] for i in range(-len(rows), len(rows))] == rows + rows
    assert (table.ids, table.paths) == ([row.id for row in rows], [row.path for row in rows])
    assert (table.groups, table.labels) == ([row.group for row in rows], [row.label for row in rows])
    for outside in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            table[outside]


@settings(deadline=None)
@given(rows, st.slices(8))
def test_slices(rows, part):
    table = RecordTable(rows)[part]
    assert isinstance(table, RecordTable)
    assert list(table) == rows[part]
    assert table == RecordTable(rows[part])


@settings(deadline=None)
@given(rows, st.data())
def test_taking(rows, data):
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=9) if rows else st.just([]))
    assert list(RecordTable(rows).take(chosen)) == [rows[i] for i in chosen]
    assert RecordTable(rows).take(iter(chosen)) == RecordTable(rows[i] for i in chosen)


@settings(deadline=None)
@given(rows, rows)
def test_equality_is_that_of_the_rows(one, two):
    assert (RecordTable(one) == RecordTable(two)) == (one == two)
    assert RecordTable(one) == RecordTable(RecordTable(one))
    assert RecordTable(one) != tuple(one)


@settings(deadline=None)
@given(rows)
def test_pickling(rows):
    table = RecordTable(rows)[::2]
    again = pickle.loads(pickle.dumps(table))
    assert again == table
    assert list(again) == rows[::2]
    assert not again._id.values.flags.writeable


def test_nothing_can_be_written():
    table = RecordTable([VideoRecord("a", "a.mp4", 0, "g", 0.0, 1.0)])
    for array in (table._id.values, table._label.values, table._label.offsets, table._kind, table._start, table._end):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(TypeError):
        hash(table)


def test_new_class_indices():
    rows = [VideoRecord("a", "a", label, "g") for label in (2, None, (0, 2), (), 1)]
    assert RecordTable(rows).relabel([7, 8, 9]).labels == [9, None, (7, 9), (), 8]
    assert RecordTable(rows).labels == [2, None, (0, 2), (), 1]
    assert RecordTable().relabel([]) == RecordTable()


def test_rows_cost_bytes_instead_of_objects():
    rows = [
        VideoRecord(f"class/video_{i}", f"/data/class/video_{i}.mp4", i % 7, f"group_{i // 4}") for i in range(5000)
    ]
    table = RecordTable(rows)
    arrays = [table._id, table._path, table._group, table._label]
    size = sum(array.values.nbytes + array.offsets.nbytes for array in arrays)
    size += table._kind.nbytes + table._start.nbytes + table._end.nbytes
    text = sum(len(row.id) + len(row.path) + len(row.group) for row in rows)
    assert size <= text + 5000 * (5 * 8 + 8 + 8 + 1) + 5 * 8
    assert len(pickle.dumps(table)) < size + 2000
