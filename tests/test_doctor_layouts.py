"""The doctor on every layout that a datamodule reads: nothing where nothing is wrong, and what is planted."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS
from patches import moving_patches
from PIL import Image
from videos import write_text, write_video

from datamodules import MMActionDataModule
from datamodules.doctor import run_doctor, take_inventory
from datamodules.doctor.image_folders import examine_folder
from datamodules.doctor.layouts import LAYOUTS as FORMS
from datamodules.doctor.layouts import recognise
from temporal_attn.types import UserError

NAMES = {
    "Diving48DataModule": "diving48",
    "HMDB51DataModule": "hmdb51",
    "JesterDataModule": "jester",
    "KineticsDataModule": "kinetics",
    "MMActionDataModule": "mmaction",
    "SSv2DataModule": "ssv2",
    "TableDataModule": "table",
}


def splits_of(base: Path, options: dict[str, str]) -> str:
    """What a person would give as --splits."""
    return options.get("splits") or options.get("annotations") or options.get("table") or str(base)


@pytest.mark.parametrize("module", NAMES)
def test_layouts_are_recognised_by_their_files(module, tmp_path):
    options = LAYOUTS[module](tmp_path)
    splits = splits_of(tmp_path, options)
    assert type(recognise(options["root"], splits)).__name__ == module
    assert type(recognise(options["root"], splits, layout=NAMES[module])).__name__ == module
    inventory = take_inventory(options["root"], splits)
    assert inventory.strays == inventory.missing == inventory.empty_classes == ()
    assert len({clip.label for clip in inventory.clips if clip.label is not None}) == 3
    is_split = module != "TableDataModule"  # whose table has no column for it
    assert {clip.split for clip in inventory.clips} >= ({"train", "test"} if is_split else {"train"})


def written_path(module: str, base: Path, options: dict[str, str]) -> Path:
    """A training video of the layout."""
    inventory = take_inventory(options["root"], splits_of(base, options))
    return Path(next(clip.path for clip in inventory.clips if clip.split == "train"))


@pytest.mark.parametrize("module", NAMES)
def test_planted_faults_are_found(module, tmp_path):
    base = tmp_path / "data"
    options = LAYOUTS[module](base)
    damaged = written_path(module, base, options)
    others = [clip.path for clip in take_inventory(options["root"], splits_of(base, options)).clips]
    gone = Path(sorted(path for path in set(others) if path != str(damaged))[-1])
    stray = Path(options["root"]) / "stray"
    if damaged.is_dir():
        shutil.copytree(damaged, stray)
        shutil.rmtree(gone)
        write_text(sorted(damaged.iterdir())[2])
    else:
        stray = stray.with_suffix(damaged.suffix)
        shutil.copy(damaged, stray)
        gone.unlink()
        write_text(damaged)
    status = run_doctor(
        options["root"],
        splits_of(base, options),
        json=str(tmp_path / "doctor.json"),
        cache_dir=str(tmp_path / "cache"),
        min_frames=2,
    )
    assert status == 1
    problems = json.loads((tmp_path / "doctor.json").read_text())["problems"]
    found = {(p["kind"], p["path"]) for p in problems}
    assert ("damaged" if damaged.is_dir() else "unreadable", str(damaged)) in found
    assert ("unlisted", str(stray)) in found
    assert sum(kind == "missing" for kind, _ in found) == 1
    assert all(str(path) not in (str(damaged), str(stray)) or kind != "missing" for kind, path in found)


def test_kinetics_in_one_file(tmp_path):
    options = LAYOUTS["KineticsDataModule"](tmp_path)
    rows = [
        row
        for part in ("train", "validate", "test")
        for row in csv.reader(io.StringIO((tmp_path / "annotations" / f"{part}.csv").read_text()))
    ]
    single = tmp_path / "kinetics.csv"
    text = io.StringIO()
    csv.writer(text).writerows([rows[0], *(row for row in rows if row != rows[0])])
    single.write_text(text.getvalue())
    one, several = (take_inventory(options["root"], splits) for splits in (str(single), options["annotations"]))
    assert sorted(one.clips, key=str) == sorted(several.clips, key=str)


def test_mmaction_lists_of_other_kinds(tmp_path):
    (tmp_path / "lists").mkdir()
    lines = {"folders": "a/one 30 2\nb/two 12 0\n", "several": "a/one.mp4 3 7\nb/two.mp4 1\n", "plain": "a/one.mp4 3\n"}
    expected = {"folders": (True, False), "several": (False, True), "plain": (False, False)}
    for kind, text in lines.items():
        (tmp_path / "lists" / "x_train_list.txt").write_text(text)
        data = recognise(str(tmp_path), str(tmp_path / "lists"))
        assert isinstance(data, MMActionDataModule)
        assert (data.frame_folders, data.multi_label) == expected[kind], kind
    (tmp_path / "lists" / "x_train_list.txt").unlink()
    (tmp_path / "lists" / "train.txt").write_text("a/clip 1\na/clip two\n")
    assert type(recognise(str(tmp_path), str(tmp_path / "lists"))).__name__ == "FolderDataModule"


def test_tables_of_tabs(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a, b.mp4", moving_patches(0))
    (tmp_path / "videos.tsv").write_text("path\tlabel\na, b.mp4\tjump\n")
    (clip,) = take_inventory(str(tmp_path / "videos"), str(tmp_path / "videos.tsv")).clips
    assert clip.label == "jump"


def test_links_that_lead_outside_if_that_is_meant(tmp_path):
    (tmp_path / "far").mkdir()
    write_video(tmp_path / "far" / "1.mp4", moving_patches(0))
    (tmp_path / "videos" / "jump").mkdir(parents=True)
    (tmp_path / "videos" / "jump" / "1.mp4").symlink_to(tmp_path / "far" / "1.mp4")
    with pytest.raises(UserError, match="allow_outside: true"):
        run_doctor(str(tmp_path / "videos"), cache_dir=str(tmp_path / "cache"))
    assert run_doctor(str(tmp_path / "videos"), cache_dir=str(tmp_path / "cache"), allow_outside=True) == 0
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("../far/1.mp4\n")
    listed = take_inventory(str(tmp_path / "videos"), str(tmp_path / "lists"), allow_outside=True)
    assert [clip.label for clip in listed.clips] == ["far"]


def test_wrong_layouts(tmp_path):
    with pytest.raises(UserError, match="layout: 'kinetcs' is unknown; choose one of ucf101"):
        take_inventory(str(tmp_path), str(tmp_path), layout="kinetcs")
    with pytest.raises(UserError, match=r"layout ssv2 needs splits: with labels\.json"):
        take_inventory(str(tmp_path), layout="ssv2")
    with pytest.raises(UserError, match="no such lists") as error:
        recognise(str(tmp_path), str(tmp_path))
    assert all(f"({name})" in str(error.value) for name in FORMS)
    with pytest.raises(UserError, match=r"expected one file that ends in labels\.json"):
        take_inventory(str(tmp_path), str(tmp_path), layout="ssv2")
    with pytest.raises(UserError, match=r"no \.txt file with train in its name"):
        recognise(str(tmp_path), str(tmp_path), layout="mmaction")


# Folders of images


def write_images(folder: Path, seed: int = 0, frames: int = 12, form: str = "img_{:05d}.jpg") -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(moving_patches(seed, frames=frames), start=1):
        Image.fromarray(frame).save(folder / form.format(number), quality=95)
    return folder


def test_an_undamaged_folder(tmp_path):
    found = examine_folder(str(write_images(tmp_path / "a")))
    assert (found.problem, found.frames, found.claimed, found.is_readable) == ("", 12, 12, True)
    assert (found.height, found.width) == moving_patches(0, frames=1).shape[1:3]
    assert found.size == sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    assert Image.open(io.BytesIO(found.thumbnail)).size
    assert examine_folder(str(write_images(tmp_path / "b"))).digest == found.digest
    assert examine_folder(str(write_images(tmp_path / "c", seed=1))).digest != found.digest


@pytest.mark.parametrize("form", ["{:05d}.jpg", "{}.png", "flow_x_{:03d}_rgb.jpeg"])
def test_numbers(tmp_path, form):
    folder = write_images(tmp_path / "a", form=form)
    assert examine_folder(str(folder)).problem == ""
    for number in (3, 7, 8, 9):
        (folder / form.format(number)).unlink()
    found = examine_folder(str(folder))
    assert (found.problem, found.reason) == ("misnumbered", "missing numbers: 3, 7 to 9")
    shutil.copy(folder / form.format(2), (folder / form.format(2)).with_suffix(".JPG"))
    assert examine_folder(str(folder)).reason == "number 2 appears twice"


def test_every_second_frame_and_names_without_numbers_are_no_gaps(tmp_path):
    folder = write_images(tmp_path / "a")
    for number in range(2, 13, 2):
        (folder / f"img_{number:05d}.jpg").unlink()
    assert examine_folder(str(folder)).problem == ""
    (folder / "cover.jpg").write_bytes((folder / "img_00001.jpg").read_bytes())
    assert examine_folder(str(folder)).problem == ""


def test_images_that_cannot_be_read(tmp_path):
    folder = write_images(tmp_path / "a")
    whole = (folder / "img_00005.jpg").read_bytes()
    (folder / "img_00005.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "img_00009.jpg").write_bytes(b"")
    os.mkfifo(folder / "img_00099.jpg")  # nobody writes into it: whoever opens it hangs
    found = examine_folder(str(folder))
    assert found.problem == "damaged"
    assert found.reason.startswith("3 of 13 images cannot be read, the first of them img_00005.jpg (")
    for file in folder.iterdir():
        file.unlink()
        file.write_text("no image")
    found = examine_folder(str(folder))
    assert (found.problem, found.is_readable) == ("unreadable", False)
    assert "none of its 13 images" in found.reason
    assert examine_folder(str(tmp_path / "gone")).reason == "the folder does not exist"


def test_sizes_that_change(tmp_path):
    folder = write_images(tmp_path / "a")
    height, width = moving_patches(0, frames=1).shape[1:3]
    Image.fromarray(np.zeros((height, width + 2, 3), np.uint8)).save(folder / "img_00007.jpg")
    found = examine_folder(str(folder))
    assert found.problem == "mixed-size"
    assert found.reason == f"img_00007.jpg has {width + 2} × {height} pixels, img_00001.jpg {width} × {height}"


def test_copies_between_folders_and_files(tmp_path):
    root = tmp_path / "root"
    write_images(root / "one" / "a")
    write_images(root / "two" / "b")
    write_images(root / "two" / "c", seed=5)
    write_video(root / "one" / "d.mp4", moving_patches(5, frames=12), fps=25)
    (tmp_path / "train.txt").write_text("one/a\ntwo/b\ntwo/c\none/d\n")
    status = run_doctor(str(root), str(tmp_path), json=str(tmp_path / "f.json"), cache_dir=str(tmp_path / "cache"))
    problems = json.loads((tmp_path / "f.json").read_text())["problems"]
    pairs = {frozenset(Path(p[side]).name for side in ("path", "other")) for p in problems if p["kind"] == "duplicate"}
    assert status == 1
    assert pairs == {frozenset({"a", "b"}), frozenset({"c", "d.mp4"})}
