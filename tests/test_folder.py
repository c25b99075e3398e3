from __future__ import annotations

import pytest

from datamodules import FolderDataModule
from datamodules.records import read_path_list
from temporal_attn.types import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def ids(dataset):
    return {record.id for record in dataset.records}


def labels(dataset):
    return {(record.id, record.label) for record in dataset.records}


def test_one_folder_a_class(tmp_path):
    root = touch(tmp_path, *(f"{c}/{i}.mp4" for c in ("b", "a") for i in range(10)), "a/notes.txt")
    (tmp_path / "empty").mkdir()
    data = FolderDataModule(root, val_fraction=0.2, test_fraction=0.3)
    assert data.class_names == ["a", "b"]
    for stage in ("fit", "test"):
        data.setup(stage)
    parts = [data.train_dataset, data.val_dataset, data.test_dataset]
    assert [len(part) for part in parts] == [10, 4, 6]
    assert set().union(*map(ids, parts)) == {f"{c}/{i}" for c in "ab" for i in range(10)}
    assert {record.label for record in data.val_dataset.records} == {0, 1}
    assert data.account.empty_classes == ("empty",)
    assert (data.account.found, data.account.listed) == (20, 20)


def test_folders_of_images_are_videos(tmp_path):
    images = (f"{c}/film{i}/{k:05d}.jpg" for c in "ab" for i in range(5) for k in range(3))
    touch(tmp_path / "mixed", *(f"{c}/{i}.mp4" for c in "ab" for i in range(3)), *images, "a/cover.jpg", "b/x/1.avi")
    touch(tmp_path / "mixed", "b/x/poster.png", "cover.jpg")
    data = FolderDataModule(str(tmp_path / "mixed"))
    assert data.class_names == ["a", "b"]
    found = {id_ for split in ("train", "val", "test") for id_ in ids(data.dataset(split))}
    names = ("0", "1", "2", *(f"film{i}" for i in range(5)))
    assert found == {"b/x/1", *(f"{c}/{name}" for c in "ab" for name in names)}
    touch(tmp_path / "split", *(f"{part}/{c}/film/1.jpg" for part in ("train", "test") for c in "ab"))
    split = FolderDataModule(str(tmp_path / "split"))
    assert ids(split.train_dataset) == {"train/a/film", "train/b/film"}
    touch(tmp_path / "split", "extra/film/1.jpg")
    with pytest.raises(UserError, match="extra beside the split folders test, train"):
        FolderDataModule(str(tmp_path / "split")).setup("fit")


def test_a_video_and_its_images_are_not_two(tmp_path):
    root = touch(tmp_path, "a/1.mp4", "a/1/00001.jpg")
    with pytest.raises(UserError, match=r"a.1: two videos differ in their suffix only.*folder of images"):
        FolderDataModule(root).setup("fit")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"(.+_g\d+)_", "v_{cls}_g{group:02d}_c{clip}"),
        (r"person\d+", "person{group}-{clip}"),
        (r"^(.+)\.\d", "film{group}.{clip}"),
    ],
)
def test_groups_stay_whole(tmp_path, pattern, name):
    root = touch(
        tmp_path, *(f"{c}/{name.format(cls=c, group=g, clip=k)}.avi" for c in "ab" for g in range(5) for k in range(4))
    )
    data = FolderDataModule(root, group_pattern=pattern)
    groups = [{r.group for r in part.records} for part in (data.train_dataset, data.val_dataset, data.test_dataset)]
    classes = 2 if "{cls}" in name else 1  # the same people may be in both classes
    assert [len(part) for part in groups] == [3 * classes, classes, classes]
    assert len(set().union(*groups)) == 5 * classes


@pytest.mark.parametrize("pattern", [r"p\d+", r"/(p\d+)/"])
def test_groups_may_be_folders(tmp_path, pattern, caplog):
    root = touch(tmp_path, *(f"{c}/p{person}/v{i}.mp4" for c in "ab" for person in range(5) for i in range(3)))
    data = FolderDataModule(root, group_pattern=pattern)
    groups = [set(records.groups) for records in data.catalogue.records.values()]
    assert set().union(*groups) == {f"p{person}" for person in range(5)}
    assert sum(map(len, groups)) == 5
    assert "group_pattern" not in caplog.text


def test_a_file_name_says_the_group_before_its_folders_do(tmp_path):
    root = touch(tmp_path, "a/p1/v_p7.mp4", "a/p1/w.mp4")
    data = FolderDataModule(root, group_pattern=r"p\d+", val_fraction=0.0, test_fraction=0.0)
    assert sorted(data.train_dataset.records.groups) == ["p1", "p7"]
    plain = FolderDataModule(touch(tmp_path / "x", "a_g1_b/1.mp4", "a_g1_b/2.mp4"), val_fraction=0.0, test_fraction=0.0)
    assert sorted(plain.train_dataset.records.groups) == ["a_g1_b/1", "a_g1_b/2"]  # the default looks at file names


def test_a_pattern_that_finds_no_group_is_said(tmp_path, caplog):
    root = touch(tmp_path, *(f"{c}/{i}.mp4" for c in "ab" for i in range(4)))
    FolderDataModule(root).setup("fit")
    assert "group_pattern" not in caplog.text
    FolderDataModule(root, group_pattern=r"person\d+").setup("fit")
    assert "group_pattern 'person\\\\d+' matches none of 8 videos, e.g. a/0: each is a group" in caplog.text


def test_split_folders(tmp_path):
    root = touch(tmp_path, "train/a/1.mp4", "train/b/1.webm", "val/b/1.mov", "test/a/1.mkv", "test/c/1.mp4")
    data = FolderDataModule(root)
    assert data.class_names == ["a", "b", "c"]
    assert labels(data.train_dataset) == {("train/a/1", 0), ("train/b/1", 1)}
    assert labels(data.val_dataset) == {("val/b/1", 1)}
    assert labels(data.test_dataset) == {("test/a/1", 0), ("test/c/1", 2)}
    data.setup("test")
    assert (data.account.found, data.account.empty_classes) == (2, ("b",))


def test_split_folders_without_validation(tmp_path):
    root = touch(tmp_path, *(f"train/{c}/{i}.mp4" for c in "ab" for i in range(5)), "test/a/1.mp4")
    data = FolderDataModule(root, val_fraction=0.4)
    assert (len(data.train_dataset), len(data.val_dataset), len(data.test_dataset)) == (6, 4, 1)


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("training", "validation", "testing"), ("TRAIN", "valid", "test")]
)
def test_split_folders_have_many_names(tmp_path, names):
    train, val, test = names
    root = touch(tmp_path, f"{train}/a/1.mp4", f"{train}/b/1.mp4", f"{val}/a/2.mp4", f"{test}/b/3.mp4")
    data = FolderDataModule(root)
    assert data.class_names == ["a", "b"]
    assert labels(data.train_dataset) == {(f"{train}/a/1", 0), (f"{train}/b/1", 1)}
    assert (ids(data.val_dataset), ids(data.test_dataset)) == ({f"{val}/a/2"}, {f"{test}/b/3"})


def test_two_folders_of_one_part_are_refused(tmp_path):
    root = touch(tmp_path, "train/a/1.mp4", "val/a/1.mp4", "validation/a/1.mp4")
    with pytest.raises(UserError, match="val and validation are both val; put them into one folder"):
        FolderDataModule(root).setup("fit")


def test_classes_that_look_like_parts_have_to_be_meant(tmp_path):
    root = touch(tmp_path, *(f"{c}/{i}.mp4" for c in ("train", "test") for i in range(4)))
    with pytest.raises(UserError, match=r"the only classes are test, train, .* classes: \[test, train\] if"):
        FolderDataModule(root).setup("fit")
    assert FolderDataModule(root, classes=["train", "test"]).class_names == ["train", "test"]
    touch(tmp_path, *(f"bus/{i}.mp4" for i in range(4)))
    assert FolderDataModule(root).class_names == ["bus", "test", "train"]


def test_lists_of_split_folders(tmp_path):
    root = touch(
        tmp_path / "videos", *(f"{part}/{c}/{i}.mp4" for part in ("train", "Test") for c in "ab" for i in "01")
    )
    for part in ("train", "Test"):
        lines = [f"{part}/{c}/{i}.mp4" for c in "ab" for i in "01"]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines))
    lists = {"train_list": str(tmp_path / "train.txt"), "test_list": str(tmp_path / "Test.txt")}
    data = FolderDataModule(root, **lists, val_fraction=0.0)
    assert data.class_names == ["a", "b"]
    assert labels(data.train_dataset) == {("train/a/0", 0), ("train/a/1", 0), ("train/b/0", 1), ("train/b/1", 1)}
    (tmp_path / "train.txt").write_text("train/a/0.mp4\nb/1.mp4")  # one that is a class is a class
    assert [entry.classes for entry in read_path_list(tmp_path / "train.txt")] == ["train", "b"]


def test_split_folders_beside_others_are_refused(tmp_path):
    root = touch(tmp_path, "train/a/1.mp4", "extra/a/1.mp4")
    with pytest.raises(UserError, match="extra beside the split folders train"):
        FolderDataModule(root).setup("fit")


def test_lists(tmp_path, caplog):
    root = touch(tmp_path / "videos", *(f"{c}/{i}_g0{i}_.mp4" for c in "ab" for i in range(6)))
    (tmp_path / "train.txt").write_text("a/0_g00_.mp4\nb/1_g01_.avi\nb/2_g02_.mp4\na/9_g09_.mp4\n")
    (tmp_path / "val.txt").write_text("a/1_g01_\n")
    (tmp_path / "test.txt").write_text("b/4_g04_.mp4\nb/2_g02_.mp4\n")
    lists = {f"{split}_list": str(tmp_path / f"{split}.txt") for split in ("train", "val", "test")}
    data = FolderDataModule(root, **lists)
    data.setup("fit")
    assert labels(data.train_dataset) == {("a/0_g00_", 0), ("b/1_g01_", 1), ("b/2_g02_", 1)}
    assert labels(data.val_dataset) == {("a/1_g01_", 0)}
    assert ids(data.test_dataset) == {"b/4_g04_", "b/2_g02_"}
    assert data.account.missing == ("a/9_g09_",)
    assert "train and test share 1 groups of clips, e.g. 2_g02" in caplog.text
    lists["val_list"] = None
    assert len(FolderDataModule(root, **lists, val_fraction=0.5).val_dataset) == 1
    with pytest.raises(UserError, match="neither train_list nor test_list"):
        FolderDataModule(root, val_list=str(tmp_path / "val.txt"))


def test_a_list_that_leads_nowhere(tmp_path):
    root = touch(tmp_path / "videos", "a/1.mp4", "a/2.mp4")
    (tmp_path / "train.txt").write_text("a/1.mp4\n")
    (tmp_path / "test.txt").write_text("a/8.mp4\n")
    data = FolderDataModule(root, train_list=str(tmp_path / "train.txt"), test_list=str(tmp_path / "test.txt"))
    data.setup("fit")
    assert data.val_dataloader() == []  # one group alone trains
    with pytest.raises(UserError, match=r"none of the videos in .*test.txt is here; expected lines <class>/<video>"):
        data.setup("test")


def test_nothing_to_find(tmp_path):
    with pytest.raises(UserError, match="gone: no such folder"):
        FolderDataModule(str(tmp_path / "gone")).setup("fit")
    root = touch(tmp_path, "1.mp4", "a/notes.txt")
    with pytest.raises(UserError, match=r"no videos for train; expected <root>/<class>/<video>, <root>/train/"):
        FolderDataModule(root).setup("fit")
    touch(tmp_path, "a/1.mp4", "a/2.mp4")
    data = FolderDataModule(root, test_fraction=0.0)
    data.setup("fit")
    with pytest.raises(UserError, match="test_fraction above 0"):
        data.setup("test")


def test_ambiguous_names_and_patterns(tmp_path):
    root = touch(tmp_path, "a/1.mp4", "a/1.avi")
    with pytest.raises(UserError, match=r"a.1: two videos differ in their suffix only"):
        FolderDataModule(root).setup("fit")
    with pytest.raises(UserError, match=r"group_pattern: .* no regular expression"):
        FolderDataModule(root, group_pattern="(")


def test_classes_can_be_chosen(tmp_path):
    root = touch(tmp_path, *(f"{c}/{i}.mp4" for c in "abc" for i in range(5)))
    data = FolderDataModule(root, classes=["c", "a"])
    assert data.class_names == ["c", "a"]
    assert {record.id[0]: record.label for record in data.train_dataset.records} == {"c": 0, "a": 1}
    data.setup("fit")
    assert data.account.listed == 10


def test_folds(tmp_path):
    root = touch(tmp_path, *(f"{c}/p{g}_{k}.mp4" for c in "ab" for g in range(8) for k in range(2)))
    tested = []
    for fold in range(1, 5):
        data = FolderDataModule(root, group_pattern=r"p\d+", folds=4, fold=fold)
        parts = [{r.group for r in part.records} for part in (data.train_dataset, data.val_dataset, data.test_dataset)]
        assert [len(part) for part in parts] == [5, 1, 2]
        assert len(set().union(*parts)) == 8
        tested += sorted(parts[2])
    assert sorted(tested) == [f"p{g}" for g in range(8)]
    with pytest.raises(UserError, match="folds is 9, but there are only 8 groups"):
        FolderDataModule(root, group_pattern=r"p\d+", folds=9).setup("fit")


def test_folds_of_what_is_split_already(tmp_path):
    root = touch(tmp_path, "train/a/1.mp4", "test/a/2.mp4")
    with pytest.raises(UserError, match="folds is given, but the folders train, test say"):
        FolderDataModule(root, folds=2).setup("fit")
    with pytest.raises(UserError, match="folds is given beside lists"):
        FolderDataModule(root, train_list="train.txt", folds=2)


def test_lists_that_lead_outside(tmp_path):
    root = touch(tmp_path / "root", "a/1.mp4")
    touch(tmp_path, "b/2.mp4")
    (tmp_path / "train.txt").write_text("a/1.mp4\n../b/2.mp4\n")
    options = {"train_list": str(tmp_path / "train.txt"), "val_fraction": 0.0}
    with pytest.raises(UserError, match=r"train.txt, line 2: '../b/2.mp4' points outside .*allow_outside: true"):
        FolderDataModule(root, **options).setup("fit")
    data = FolderDataModule(root, **options, allow_outside=True)
    assert data.class_names == ["a", "b"]
    assert len(data.train_dataset) == 2


def test_a_list_for_the_test_alone(tmp_path):
    root = touch(tmp_path / "videos", "a/1.mp4", "b/2.mp4")
    (tmp_path / "test.txt").write_text("a/1.mp4\nb/2.mp4\n")
    data = FolderDataModule(root, test_list=str(tmp_path / "test.txt"))
    data.setup("test")
    assert (len(data.test_dataset), data.account.listed) == (2, 2)
    with pytest.raises(UserError, match="no videos for train"):
        data.setup("fit")
