from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import pytest
from layouts import write_table

from datamodules import TableDataModule
from datamodules.records import Entry, TableColumns, read_video_table
from temporal_attn.types import UserError


def write(path, *rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return path


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def test_a_path_and_a_label_are_enough(tmp_path):
    path = write(tmp_path / "videos.csv", ["label", "path"], ["run", "a b/ö.mp4"], ["", "c.mp4"])
    assert read_video_table(path) == {"all": [Entry("a b/ö.mp4", "run"), Entry("c.mp4", None)]}


def test_segments_groups_and_parts(tmp_path):
    path = write(
        tmp_path / "videos.csv",
        ["path", "label", "start", "end", "group", "split"],
        ["a.mp4", "run", "0", "2.5", "p1", "train"],
        ["a.mp4", "jump", "2.5", "", "p1", "Train"],
        ["b.mp4", "run", "", "", "", "validation"],
        ["c.mp4", "run", "1", "2", "p2", "test"],
    )
    assert read_video_table(path) == {
        "train": [Entry("a.mp4", "run", "p1", 0.0, 2.5), Entry("a.mp4", "jump", "p1", 2.5)],
        "val": [Entry("b.mp4", "run")],
        "test": [Entry("c.mp4", "run", "p2", 1.0, 2.0)],
    }


def test_other_names_and_separators(tmp_path):
    rows = [["file", "tags", "group"], ["a.mp4", "run| jump |run", "x"], ["b.mp4", "", "y"]]
    path = write(tmp_path / "videos.tsv", *rows, delimiter="\t")
    columns = TableColumns(path="file", label="tags")
    entries = read_video_table(path, columns, "|", "\t")["all"]
    assert entries == [Entry("a.mp4", ("run", "jump"), "x"), Entry("b.mp4", (), "y")]
    with pytest.raises(UserError, match=r"no column person; expected file, tags, person; found file, tags, group"):
        read_video_table(path, TableColumns(path="file", label="tags", group="person"), "|", "\t")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["b.mp4", "run", "x", "", "train"], "'x' is no time"),
        (["b.mp4", "run", "3", "3", "train"], "the segment ends at 3 s, but starts at 3 s"),
        (["b.mp4", "run", "", "", "holdout"], "split is 'holdout'; it has to be train, val or test"),
        (["", "run", "", "", "train"], "no path"),
        (["../b.mp4", "run", "", "", "train"], "points outside"),
        (["a.mp4", "jump", "0", "1", "train"], "a.mp4 is listed twice"),
        (["b.mp4", "run"], "expected 5 values, found 2"),
    ],
)
def test_malformed_rows(tmp_path, row, said):
    header = ["path", "label", "start", "end", "split"]
    path = write(tmp_path / "videos.csv", header, ["a.mp4", "run", "0", "1", "train"], row)
    with pytest.raises(UserError) as error:
        read_video_table(path)
    assert f"{path}, line 3: " in str(error.value)
    assert said in str(error.value)


def test_parquet_says_what_the_same_text_says(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {
        "path": ["a.mp4", "b.mp4", "c.mp4"],
        "label": [3, 10, None],
        "start": [0.5, None, math.nan],
        "end": [2.0, None, None],
        "group": ["x", None, "y"],
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "videos.parquet")
    rows = [
        ["" if value in (None, math.nan) else str(value) for value in row] for row in zip(*table.values(), strict=True)
    ]
    text = write(tmp_path / "videos.csv", list(table), *rows)
    assert read_video_table(tmp_path / "videos.parquet") == read_video_table(text)
    several = pyarrow.table({"path": ["a.mp4", "b.mp4"], "label": [["x", "y"], []]})
    parquet.write_table(several, tmp_path / "several.parquet")
    assert read_video_table(tmp_path / "several.parquet")["all"] == [Entry("a.mp4", ("x", "y")), Entry("b.mp4", ())]
    with pytest.raises(UserError, match=r"several.parquet: no column file; expected file, label; found path, label"):
        read_video_table(tmp_path / "several.parquet", TableColumns(path="file"))
    with pytest.raises(UserError, match=r"gone.parquet: "):
        read_video_table(tmp_path / "gone.parquet")


def test_segments_of_one_file_stay_together(tmp_path):
    root = touch(tmp_path / "videos", *(f"{number}.mp4" for number in range(10)))
    rows = [[f"{n}.mp4", label, str(start), str(start + 2)] for n in range(10) for start, label in ((0, "x"), (2, "y"))]
    path = write(tmp_path / "videos.csv", ["path", "label", "start", "end"], *rows)
    records = TableDataModule(root, str(path)).catalogue.records
    assert {split: len(part) for split, part in records.items()} == {"train": 12, "val": 4, "test": 4}
    files = [set(part.paths) for part in records.values()]
    assert sum(map(len, files)) == len(set().union(*files)) == 10
    assert all((r.start, r.end) in ((0.0, 2.0), (2.0, 4.0)) for part in records.values() for r in part)


def test_several_labels_become_tuples_of_class_indices(tmp_path):
    root = touch(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4")
    path = write(tmp_path / "videos.csv", ["path", "label"], ["a.mp4", "run|jump"], ["b.mp4", ""], ["c.mp4", "sit"])
    options = {"label_separator": "|", "val_fraction": 0.0, "test_fraction": 0.0}
    catalogue = TableDataModule(root, str(path), **options).catalogue
    assert catalogue.class_names == ("jump", "run", "sit")
    assert catalogue.records["train"].labels == [(0, 1), (), (2,)]


def test_tables_of_their_own_for_validation_and_test(tmp_path):
    root = touch(tmp_path / "videos", *(f"{number}.mp4" for number in range(6)))
    header = ["path", "label"]
    tables = {
        name: str(write(tmp_path / f"{name}.csv", header, *([f"{n}.mp4", str(n % 2)] for n in numbers)))
        for name, numbers in {"table": range(4), "val_table": [4], "test_table": [5]}.items()
    }
    data = TableDataModule(root, **tables)
    assert [len(part) for part in data.catalogue.records.values()] == [4, 1, 1]
    assert data.class_names == ["0", "1"]
    with pytest.raises(UserError, match="folds is given, but the data set is split into train, val, test already"):
        TableDataModule(root, **tables, folds=2).setup("fit")
    both = write(tmp_path / "both.csv", [*header, "split"], ["0.mp4", "0", "train"])
    with pytest.raises(UserError, match="a column split says the split, and val_table or test_table too"):
        TableDataModule(root, **{**tables, "table": str(both)}).setup("fit")


def test_folds_keep_people_apart(tmp_path):
    options = write_table(tmp_path)
    tested = []
    for fold in (1, 2, 3):
        records = TableDataModule(**options, folds=3, fold=fold).catalogue.records
        people = {split: set(part.groups) for split, part in records.items()}
        assert [len(people[split]) for split in ("train", "val", "test")] == [3, 1, 2]
        assert len(set().union(*people.values())) == 6
        tested += sorted(people["test"])
    assert len(set(tested)) == 6


def test_absolute_paths_below_the_root_are_below_it(tmp_path):
    root = touch(tmp_path / "root", "x/a.mp4", "b.mp4")
    (tmp_path / "link").symlink_to(root)
    for named, given in ((root, root), (tmp_path / "link", root), (root, tmp_path / "link")):
        path = write(tmp_path / "videos.csv", ["path", "label"], [f"{named}/x/../x/a.mp4", "x"], ["b.mp4", "y"])
        data = TableDataModule(str(given), str(path), val_fraction=0.0, test_fraction=0.0)
        assert data.catalogue.records["train"].ids == ["x/a", "b"]


def test_two_files_that_differ_in_case(tmp_path):
    root = Path(touch(tmp_path / "root", "IMG_1.mp4", "img_1.mp4"))
    if len(list(root.iterdir())) < 2:
        pytest.skip("this disk does not tell letter cases apart")
    path = write(tmp_path / "videos.csv", ["path", "label"], ["IMG_1.mp4", "x"], ["img_1.mp4", "y"])
    data = TableDataModule(str(root), str(path), val_fraction=0.0, test_fraction=0.0)
    paths = data.catalogue.records["train"].paths
    assert [name.rpartition("/")[2] for name in paths] == ["IMG_1.mp4", "img_1.mp4"]
    (root / "img_1.mp4").unlink()
    with pytest.raises(UserError, match=r"IMG_1.mp4: listed twice, as IMG_1.mp4 and as img_1.mp4"):
        TableDataModule(str(root), str(path)).setup("fit")


def test_a_table_may_lead_outside_if_allowed(tmp_path):
    root = touch(tmp_path / "videos", "a.mp4")
    outside = touch(tmp_path / "elsewhere", "b.mp4")
    path = write(tmp_path / "videos.csv", ["path", "label"], ["a.mp4", "x"], [f"{outside}/b.mp4", "y"])
    with pytest.raises(UserError, match=r"videos.csv, line 3: .*b.mp4' points outside"):
        TableDataModule(root, str(path)).setup("fit")
    options = {"val_fraction": 0.0, "test_fraction": 0.0, "allow_outside": True}
    paths = TableDataModule(root, str(path), **options).catalogue.records["train"].paths
    assert [os.path.basename(found) for found in paths] == ["a.mp4", "b.mp4"]


def test_only_videos_of_the_test_may_have_no_label(tmp_path):
    root = touch(tmp_path / "videos", "a.mp4", "b.mp4")
    header = ["path", "label", "split"]
    path = write(tmp_path / "videos.csv", header, ["a.mp4", "x", "train"], ["b.mp4", "", "test"])
    assert TableDataModule(root, str(path)).catalogue.records["test"].labels == [None]
    write(path, header, ["a.mp4", "x", "test"], ["b.mp4", "", "train"])
    with pytest.raises(UserError, match=r"videos.csv: b.mp4 has no label; only test videos"):
        TableDataModule(root, str(path)).setup("fit")
