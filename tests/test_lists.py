"""Annotation files as people save them, and as nobody should."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.records import (
    read_class_index,
    read_diving48,
    read_hmdb51_lists,
    read_jester,
    read_kinetics,
    read_label_map,
    read_mmaction_list,
    read_path_list,
    read_ssv2,
    read_ucf101_list,
    read_video_table,
)
from datamodules.records.lists import only_file, read_columns, read_json, read_lines, relative_name, seconds
from temporal_attn.types import UserError

# What a cell may hold: spaces around it and the line ends that Python knows beside \n and \r\n do not survive
cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=8).map(str.strip)
tables = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=6))


@settings(deadline=None, max_examples=60)
@given(
    tables,
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_columns_in_every_dialect(tmp_path_factory, rows, delimiter, quoting, end, mark):
    header = [f"column {number}" for number in range(len(rows[0]))]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows([header, *rows])
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_bytes((text.getvalue() + end).encode("utf-8-sig" if mark else "utf-8"))
    read = [values for _, values in read_columns(path, header[:1], header[1:], delimiter)]
    assert read == [dict(zip(header, row, strict=True)) for row in rows if any(row)]


def test_lines_end_where_editors_end_them(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes("a/sep\u2028x.mp4\r\na/nel\x85x.mp4\n\na/1.mp4\r".encode())
    lines = read_lines(path, "lines")
    assert lines == [
        (f"{path}, line {n}", name) for n, name in ((1, "a/sep\u2028x.mp4"), (2, "a/nel\x85x.mp4"), (4, "a/1.mp4"))
    ]


def test_spaces_around_cells_and_columns_in_another_order(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('b , a, unused\n 1, "x, y" ,\n\n  2  ,z,9\n')
    rows = read_columns(path, ["a", "b"], ["c"])
    assert rows == [(f"{path}, line 2", {"a": "x, y", "b": "1"}), (f"{path}, line 4", {"a": "z", "b": "2"})]


def test_columns_that_are_not_there(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("file,class\na,b\n")
    with pytest.raises(UserError, match=r"no column path, label; expected path, label; found file, class"):
        read_columns(path, ["path", "label"])
    path.write_text("file,class\na,b\na,b,c\n")
    with pytest.raises(UserError, match=r"table.csv, line 3: expected 2 values, found 3"):
        read_columns(path, ["file"])
    path.write_text('file,class\n"a,b\nc,d\n')
    with pytest.raises(UserError, match=r"table.csv, line 3: a value runs over several lines; close its quotes"):
        read_columns(path, ["file"])
    path.write_text(" \n")
    with pytest.raises(UserError, match="empty; expected columns file"):
        read_columns(path, ["file"])


def test_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"a": [1]}', encoding="utf-8")
    assert read_json(path) == {"a": [1]}
    path.write_text('{"a":\n [1,}')
    with pytest.raises(UserError, match=r"a.json, line 2: no JSON"):
        read_json(path)


def test_one_file_of_a_kind(tmp_path):
    (tmp_path / "v2-Train.json").touch()
    (tmp_path / "labels.json").touch()
    assert only_file(tmp_path, "train.json").name == "v2-Train.json"
    with pytest.raises(UserError, match=r"expected one file that ends in test.json, found labels.json, v2-Train.json"):
        only_file(tmp_path, "test.json")
    (tmp_path / "train.json").touch()
    with pytest.raises(UserError, match=r"ends in train.json, found train.json, v2-Train.json"):
        only_file(tmp_path, "train.json")
    with pytest.raises(UserError, match="gone: No such file"):
        only_file(tmp_path / "gone", "train.json")


@pytest.mark.parametrize(("text", "time"), [("", None), ("0", 0.0), ("12.5", 12.5), ("1e2", 100.0)])
def test_times(text, time):
    assert seconds(text, "here") == time


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1:30", "one"])
def test_what_is_no_time(text):
    with pytest.raises(UserError, match=r"here: .* is no time; expected seconds"):
        seconds(text, "here")


@pytest.mark.parametrize("name", ["../a.mp4", "a/../../b.mp4", "/a/b.mp4", "..\\a.mp4", "C:\\a\\b.mp4", "C:/b.mp4"])
def test_names_that_lead_outside(name):
    with pytest.raises(UserError, match=r"^list, line 3: .* points outside .*allow_outside: true"):
        relative_name(name, "list, line 3")
    assert relative_name(name, "list, line 3", allow_outside=True) == name.replace("\\", "/")


@given(st.text(max_size=20))
def test_no_name_leads_outside_unnoticed(name):
    try:
        safe = relative_name(name, "here")
    except UserError:
        return
    assert not safe.startswith("/")
    assert ".." not in safe.split("/")


# Whatever lies there: entries, or one line that says what is wrong

READERS = {
    "columns.csv": read_video_table,
    "columns.parquet": read_video_table,
    "index.txt": read_class_index,
    "kinetics.csv": read_kinetics,
    "label_map.txt": read_label_map,
    "list.txt": lambda path: read_mmaction_list(path, frame_folders=True, multi_label=True),
    "paths.txt": read_path_list,
    "ucf101.txt": lambda path: read_ucf101_list(path, ["Archery"]),
}
FOLDERS = {
    "labels.csv train.csv validation.csv test.csv": read_jester,
    "labels.json train.json validation.json test.json": read_ssv2,
    "vocab.json train.json test.json": read_diving48,
    "catch_test_split1.txt": lambda path: read_hmdb51_lists(path, 1),
    "train.csv": read_kinetics,
}

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "template", "vid_name", "label", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
lines = st.lists(st.text(st.sampled_from('a/.;,"0129 \t\\:-é\x00'), max_size=14), max_size=4).map("\r\n".join)
contents = st.binary(max_size=40) | json_like | lines.map(str.encode) | st.text(max_size=40).map(str.encode)


def explanation(read, path):
    """What is said of an unreadable file or folder, nothing of a readable one."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return path.name


@pytest.mark.parametrize("name", sorted(READERS))
@settings(deadline=None, max_examples=50)
@given(content=contents)
def test_any_file_is_read_or_explained(tmp_path_factory, name, content):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    said = explanation(READERS[name], path)
    assert name in said
    assert "\n" not in said


@pytest.mark.parametrize("names", sorted(FOLDERS))
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_folder_is_read_or_explained(tmp_path_factory, names, data):
    folder = tmp_path_factory.mktemp("fuzz")
    for name in names.split():
        (folder / name).write_bytes(data.draw(contents))
    said = explanation(FOLDERS[names], folder)
    assert folder.name in said
    assert "\n" not in said


def test_lines_know_where_they_stand(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffone \r\n\r\n two\nthree".encode())
    assert read_lines(path, "'<name>'") == [
        (f"{path}, line 1", "one"),
        (f"{path}, line 3", "two"),
        (f"{path}, line 4", "three"),
    ]
