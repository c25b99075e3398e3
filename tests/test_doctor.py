from __future__ import annotations

import html.parser
import io
import json
import os
import shutil

import numpy as np
import pytest
from patches import moving_patches
from videos import write_text, write_truncated, write_video

from datamodules import FolderDataModule
from datamodules.doctor import Clip, Inventory, Problem, find_problems, run_doctor, take_inventory
from datamodules.doctor.report import Diagnosis, print_table
from datamodules.examination import Examination
from datamodules.exclusion import read_exclusions, write_exclusions
from datamodules.fingerprint import FINGERPRINT_BYTES
from datamodules.options import LoaderOptions
from temporal_attn.types import UserError

# The checks, on made-up files


def seen(path, look=0, digest=None, seconds=5.0, frames=100, **fields):
    """A file that shows `look`: those of looks that differ by less than 0.1 are alike."""
    rng = np.random.default_rng(int(look))
    cells = rng.integers(0, 255, FINGERPRINT_BYTES) + (look % 1) * np.random.default_rng(99).normal(
        0, 40, FINGERPRINT_BYTES
    )
    return Examination(
        path,
        size=1,
        mtime_ns=1,
        frames=frames,
        claimed=frames,
        seconds=seconds,
        index=b"index",
        digest=(digest or path).encode(),
        print=np.clip(cells, 0, 255).astype(np.uint8).tobytes(),
        **fields,
    )


def check(*sides, strays=(), **options):
    """Problems of clips that are given with what is seen in them."""
    clips = tuple(clip for clip, _ in sides)
    found = {clip.path: file for clip, file in (*sides, *strays)}
    inventory = Inventory(clips, tuple(clip for clip, _ in strays), **options)
    return find_problems(inventory, found, min_frames=8)


def clip_of(path, look, split="train", label=None, group=None, **fields):
    label = label or path.split("/")[0]
    return Clip(path, label, split, group or path), seen(path, look, **fields)


def named(problems):
    return [(problem.kind, problem.severity, problem.path, problem.other) for problem in problems]


def test_nothing_wrong():
    assert check(clip_of("a/1", 1), clip_of("a/2", 2, "test"), clip_of("b/1", 3), clip_of("b/2", 4, "test")) == []


@pytest.mark.parametrize("copy", [{"look": 1, "digest": "x"}, {"look": 1.05}])
def test_content_under_two_labels_or_in_two_splits(copy):
    original = clip_of("a/1", 1, digest="x")
    assert named(check(original, clip_of("b/1", **copy))) == [("duplicate", "error", "a/1", "b/1")]
    assert named(check(original, clip_of("a/2", split="test", **copy))) == [("duplicate", "error", "a/1", "a/2")]
    stray = (Clip("b/9", "b"), clip_of("b/9", **copy)[1])
    problems = check(original, clip_of("b/2", 7), strays=[stray])
    assert named(problems) == [("duplicate", "error", "b/9", "a/1"), ("unlisted", "warning", "b/9", "")]
    (only,) = check(original, clip_of("a/2", **copy))
    assert only.severity == "warning"


def test_another_length_is_another_video():
    assert check(clip_of("a/1", 1), clip_of("b/1", 1, seconds=7.0, frames=140)) == []
    retimed = clip_of("b/1", 1, seconds=7.0)
    assert named(check(clip_of("a/1", 1), retimed)) == [("duplicate", "error", "a/1", "b/1")]


def test_clips_of_a_group_may_look_alike():
    group = [clip_of(f"a/{n}", 1 + n / 50, group="a_g01") for n in range(4)]
    assert named(check(*group)) == [("look-alike", "warning", "a/0", "a/1")]


def test_only_the_copied_one_of_look_alikes_is_named():
    group = [clip_of(f"a/{n}", 1 + n / 50, group="a_g01") for n in range(4)]
    problems = check(*group, clip_of("b/1", 1 + 2.1 / 50))
    assert ("duplicate", "error", "a/2", "b/1") in named(problems)
    assert sum(problem.severity == "error" for problem in problems) == 1


def test_groups_on_two_sides():
    mates = [clip_of(f"a/{n}", 10 + n, group="a_g01") for n in range(3)]
    strayed = clip_of("a/9", 50, "test", group="a_g01")
    others = clip_of("b/1", 60, "test", group="b_g01"), clip_of("b/2", 70, "val", group="b_g02")
    assert named(check(*mates, strayed, *others)) == [("leakage", "error", "a/9", "a/0")]
    twice = (Clip("a/1", "a", "test", "a_g01"), mates[1][1])
    (leak,) = check(*mates, twice)
    assert (leak.kind, leak.path, leak.other) == ("leakage", "a/1", "a/1")
    assert leak.detail == "in test, while the same file is in train"


def test_bad_files():
    bad = seen("a/1", 1, problem="truncated", reason="3 of 9 frames decode")
    harmless = seen("a/2", 2, problem="over-reported", reason="one more")
    problems = check((Clip("a/1", "a"), bad), (Clip("a/2", "a"), harmless), clip_of("a/3", 3))
    assert named(problems) == [("truncated", "error", "a/1", ""), ("over-reported", "warning", "a/2", "")]
    assert problems[0].detail == "3 of 9 frames decode"


def test_what_is_not_there():
    clips = [clip_of(f"a/{n}", n) for n in range(3)]
    missing = ("a/7", "c/1", "c/2", "d/1")
    problems = check(*clips, missing=missing, empty_classes=("c", "d"))
    assert named(problems) == [("empty-class", "warning", "c, d", ""), ("missing", "warning", "a/7", "")]
    assert problems[0].detail == "2 listed classes have no clip on disk (3 listed files)"


def test_imbalance_and_length():
    clips = [clip_of(f"a/{n}", n) for n in range(10)]
    assert named(check(*clips, clip_of("b/1", 90))) == [("imbalance", "warning", "b", "a")]
    assert check(*clips[:9], clip_of("b/1", 90)) == []
    short = clip_of("b/2", 91)[0], Examination("b/2", 1, 1, frames=7, index=b"index")
    assert named(check(*clips[:9], clip_of("b/1", 90), short)) == [("too-short", "warning", "b/2", "")]


def test_strict_makes_errors_of_warnings():
    inventory = Inventory((Clip("a/1", "a", "train", "g"),), missing=("a/2",))
    for strict, severity in ((False, "warning"), (True, "error")):
        (problem,) = find_problems(inventory, {"a/1": seen("a/1")}, 8, strict)
        assert (problem.kind, problem.severity) == ("missing", severity)


@pytest.mark.parametrize("name", ["caf\udce9.mp4", f"{'long' * 40}.mp4"])
def test_names_stay_in_one_piece_and_can_be_printed(name, monkeypatch):
    """In a pipe, whose reader looks for names, and which takes UTF-8 only."""
    problems = (Problem("unreadable", "error", f"root/{name}", f"root/{name}", "not a video"),)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(Diagnosis("root", None, 1, Inventory(()), {}, problems))
    stdout.flush()
    printed = stdout.buffer.getvalue().decode()
    assert printed.count(name.replace("\udce9", "\\udce9")) == 2


# The command, on real files


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """UCF101's layout: two classes, training groups 3 and 4, test groups 1 and 2."""
    base = tmp_path_factory.mktemp("healthy")
    (base / "splits").mkdir()
    (base / "splits" / "classInd.txt").write_text("1 Archery\n2 Diving\n3 Absent\n")
    lists = {"train": ["Absent/v_Absent_g03_c01.avi 3"], "test": []}
    for number, name in enumerate(("Archery", "Diving")):
        (base / "root" / name).mkdir(parents=True)
        for group in range(1, 5):
            clip = f"{name}/v_{name}_g{group:02d}_c01"
            write_video(base / "root" / f"{clip}.mp4", moving_patches(10 * number + group), fps=12)
            split, label = ("test", "") if group < 3 else ("train", f" {number + 1}")
            lists[split].append(f"{clip}.avi{label}")
    for split, lines in lists.items():
        (base / "splits" / f"{split}list01.txt").write_text("\n".join(lines))
    return base


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    def run(base, **options):
        status = run_doctor(
            str(base / "root"),
            str(base / "splits"),
            json=str(tmp_path / "doctor.json"),
            html=str(tmp_path / "doctor.html"),
            quarantine=str(tmp_path / "exclude.txt"),
            cache_dir=str(tmp_path / "cache"),
            **options,
        )
        return status, json.loads((tmp_path / "doctor.json").read_text())

    return run


def test_a_healthy_data_set(healthy, doctor, tmp_path, capsys):
    status, report = doctor(healthy)
    assert status == 0
    assert report["schema"] == "temporal_attn/doctor/1"
    assert (report["files"], report["classes"], report["train"], report["test"]) == (8, 2, 4, 4)
    assert report["seconds"] == pytest.approx(16.0)
    assert [problem["kind"] for problem in report["problems"]] == ["empty-class"]
    assert "0 errors, 1 warning" in capsys.readouterr().out
    assert read_exclusions(tmp_path / "exclude.txt") == {}
    assert doctor(healthy, strict=True)[0] == 1


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_everything_planted_is_found_and_nothing_else(healthy, doctor, tmp_path):
    base = tmp_path / "copy"
    shutil.copytree(healthy, base)
    root = base / "root"

    def path(name, group, clip=1, suffix=".mp4"):
        return root / name / f"v_{name}_g{group:02d}_c{clip:02d}{suffix}"

    def add(split, file, label=""):
        with (base / "splits" / f"{split}list01.txt").open("a") as lines:
            lines.write(f"\n{file.parent.name}/{file.stem}.avi{label}")

    same = path("Archery", 5)
    shutil.copy(path("Archery", 3), same)
    add("test", same)
    again = path("Diving", 6, suffix=".avi")
    write_video(again, moving_patches(4)[:, ::2, ::2], fps=12, codec="mpeg4")  # Archery's group 4
    add("train", again, " 2")
    leak = path("Diving", 1, clip=2)
    write_video(leak, moving_patches(77), fps=12)
    add("train", leak, " 2")
    cut = path("Archery", 7, suffix=".avi")
    write_truncated(cut, write_video(tmp_path / "whole.avi", moving_patches(50, frames=40), codec="mpeg4"), share=0.8)
    add("train", cut, " 1")
    words = write_text(path("Diving", 8))
    add("train", words, " 2")
    odd = root / "Diving" / "<b>ünlisted & odd<b>.mp4"
    write_video(odd, moving_patches(60, frames=6))

    status, report = doctor(base)
    assert status == 1
    problems = {(p["kind"], p["severity"], p["path"]): p for p in report["problems"] if p["kind"] != "empty-class"}
    assert set(problems) == {
        ("duplicate", "error", str(path("Archery", 3))),
        ("duplicate", "error", str(path("Archery", 4))),
        ("leakage", "error", str(leak)),
        ("truncated", "error", str(cut)),
        ("unreadable", "error", str(words)),
        ("too-short", "warning", str(odd)),
        ("unlisted", "warning", str(odd)),
    }
    assert problems["duplicate", "error", str(path("Archery", 3))]["other"] == str(same)
    assert problems["duplicate", "error", str(path("Archery", 4))]["other"] == str(again)
    assert problems["leakage", "error", str(leak)]["other"] == str(path("Diving", 1))

    excluded = read_exclusions(tmp_path / "exclude.txt")
    assert set(excluded) == {key[2] for key in problems if key[1] == "error"}
    page = Page()
    page.feed((tmp_path / "doctor.html").read_text(encoding="utf-8"))
    assert "Diving/<b>ünlisted & odd<b>.mp4" in page.text
    assert "b" not in page.tags
    assert len(page.sources) >= 8
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)


def test_a_hanging_file_is_one_line(healthy, doctor, tmp_path):
    base = tmp_path / "copy"
    shutil.copytree(healthy, base)
    doctor(base)  # all good files are known now, so that the time limit may be short
    os.mkfifo(base / "root" / "Diving" / "v_Diving_g09_c01.mp4")
    status, report = doctor(base, timeout=0.5)
    assert status == 1
    (error,) = [problem for problem in report["problems"] if problem["severity"] == "error"]
    assert (error["kind"], os.path.basename(error["path"])) == ("hanging", "v_Diving_g09_c01.mp4")


def test_class_folders_need_no_lists(healthy):
    inventory = take_inventory(str(healthy / "root"))
    assert {(clip.label, clip.split) for clip in inventory.clips} == {("Archery", None), ("Diving", None)}
    assert len(inventory.clips) == 8
    assert inventory.strays == inventory.missing == ()


def test_split_folders_and_lists_tell_the_split(healthy, tmp_path):
    for part, group in (("train", 3), ("test", 1)):
        (tmp_path / "root" / part).mkdir(parents=True)
        for name in ("Archery", "Diving"):
            (tmp_path / "root" / part / name).mkdir()
            shutil.copy(healthy / "root" / name / f"v_{name}_g{group:02d}_c01.mp4", tmp_path / "root" / part / name)
    folders = take_inventory(str(tmp_path / "root"))
    assert sorted({clip.split for clip in folders.clips}) == ["test", "train"]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("Archery/v_Archery_g03_c01.mp4\nArchery/v_Archery_g04_c01.mp4\n")
    (tmp_path / "lists" / "test.txt").write_text("Archery/v_Archery_g01_c01.mp4\nArchery/gone.mp4\n")
    lists = take_inventory(str(healthy / "root"), str(tmp_path / "lists"))
    assert sorted((clip.split, os.path.basename(clip.path)) for clip in lists.clips) == [
        ("test", "v_Archery_g01_c01.mp4"),
        ("train", "v_Archery_g03_c01.mp4"),
        ("train", "v_Archery_g04_c01.mp4"),
    ]
    assert lists.missing == ("Archery/gone",)
    assert len(lists.strays) == 5


def test_wrong_use(healthy, tmp_path):
    with pytest.raises(UserError, match=r"splits .*: no such lists; expected one of: a folder with classInd\.txt"):
        run_doctor(str(healthy / "root"), str(tmp_path))
    with pytest.raises(UserError, match="its folder does not exist"):
        run_doctor(str(healthy / "root"), json=str(tmp_path / "nowhere" / "doctor.json"))
    with pytest.raises(UserError, match="is a folder; choose a file"):
        run_doctor(str(healthy / "root"), html=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()  # found out before the scan
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no videos for train"):
        run_doctor(str(tmp_path / "empty"), cache_dir=str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        run_doctor(str(tmp_path / "gone"), cache_dir=str(tmp_path))


def test_what_is_quarantined_is_left_out(healthy, tmp_path):
    paths = sorted((healthy / "root").glob("*/*.mp4"))
    exclude = tmp_path / "exclude.txt"
    write_exclusions(exclude, {str(paths[0]): "damaged: by\nsomething", str(paths[5]): "hanging"})
    assert read_exclusions(exclude) == {str(paths[0]): "damaged: by something", str(paths[5]): "hanging"}
    data = FolderDataModule(str(healthy / "root"), loader=LoaderOptions(exclude=str(exclude)))
    left = {record.path for records in data.catalogue.records.values() for record in records}
    assert left == {str(path) for path in paths} - {str(paths[0]), str(paths[5])}
    exclude.write_text(f"# a comment\n\n{os.path.relpath(paths[1], tmp_path)}\twhy\n")
    assert set(read_exclusions(exclude)) == {str(paths[1])}
    with pytest.raises(UserError, match=r"exclude: .*No such file"):
        read_exclusions(tmp_path / "nothing.txt")
