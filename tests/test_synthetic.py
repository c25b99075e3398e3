"""Rendered videos: real files, true time reversals, disjoint looks, and nothing that gives a pair's order away."""

from __future__ import annotations

import json
from collections import Counter

import av
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from datamodules.options import LoaderOptions
from datamodules.readers import open_reader
from datamodules.records import parse_ucf101_name
from datamodules.synthetic import TASKS, SyntheticDataModule, frame_average_bound, key_frames
from datamodules.synthetic.drawing import GLYPHS, SHAPES, draw
from datamodules.synthetic.library import write_video
from temporal_attn.types import UserError, VideoError

ACTIONS = TASKS["actions"]
SMALL = {"train_groups": 2, "val_groups": 1, "test_groups": 1, "clips_per_group": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    module = SyntheticDataModule(root=str(tmp_path_factory.mktemp("synthetic")), **SMALL)
    module.setup("fit")
    return module


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def path_of(data, class_name, group=1, clip=1):
    return data.library.path(class_name, group, clip)


# The task


def test_six_of_eight_classes_are_reversals_of_each_other():
    assert len(ACTIONS.class_names) == 8
    assert len({name for pair in ACTIONS.pairs for name in pair}) == 6


def test_bound_is_the_best_answer_to_unordered_frames():
    """Reference: enumerate all answers that an order-blind model can give to one video of each class."""
    pair_of = {name: pair for pair in ACTIONS.pairs for name in pair}
    sets = Counter(pair_of.get(name, (name,)) for name in ACTIONS.class_names)
    best = sum(max(members.count(name) for name in members) for members in sets)
    assert frame_average_bound("actions") == best / len(ACTIONS.class_names) == 0.625


def test_unknown_task_names_the_known_ones():
    with pytest.raises(UserError, match="choose one of: actions"):
        SyntheticDataModule(task="counting")


@pytest.mark.parametrize(("name", "value"), [("train_groups", 0), ("test_groups", 0), ("val_groups", -1)])
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}"):
        SyntheticDataModule(**{name: value})


def test_default_test_set_is_large_and_balanced():
    data = SyntheticDataModule(root="unused")
    labels = Counter(record.label for record in data.catalogue.records["test"])
    assert sum(labels.values()) >= 160
    assert len(set(labels.values())) == 1


# The pictures


@pytest.mark.parametrize("shape", [*SHAPES.values(), *GLYPHS.values()])
def test_shapes_cover_their_centre_of_mass_and_grow_with_the_radius(shape):
    radii = np.array([0, 4, 8, 12], np.float32)
    frames = np.zeros((4, 64, 64, 3), np.float32)
    draw(frames, shape, np.full(4, 30.0), np.full(4, 34.0), radii, np.ones(3, np.float32))
    area = frames[..., 0].sum((1, 2))
    assert area[0] == 0
    assert np.all(np.diff(area) > 0)
    # Strokes and filled shapes alike scale: area goes with the square of the radius.
    assert area[3] / area[1] == pytest.approx(9, rel=0.15)
    column = frames[3, :, :, 0].sum(0)
    assert (column * np.arange(64)).sum() / column.sum() == pytest.approx(30, abs=0.1)


def test_disc_has_its_area():
    frames = np.zeros((1, 64, 64, 3), np.float32)
    draw(frames, SHAPES["disc"], np.array([31.3]), np.array([30.6]), np.array([9.0]), np.ones(3, np.float32))
    assert frames[..., 0].sum() == pytest.approx(np.pi * 81, rel=0.01)


def test_groups_are_reproducible_and_differ():
    def first(seed, group):
        return next(iter(ACTIONS.render_group(seed, group, 1))).frames

    assert np.array_equal(first(0, 3), first(0, 3))
    assert np.abs(first(0, 3).mean((0, 1, 2)) - first(0, 4).mean((0, 1, 2))).max() > 2
    assert not np.array_equal(first(0, 3), first(1, 3))


def test_rendered_pairs_hold_the_same_frames_backwards():
    videos = {video.class_name: video.frames for video in ACTIONS.render_group(0, 5, 1)}
    for forward, backward in ACTIONS.pairs:
        assert np.array_equal(videos[forward], videos[backward][::-1])
        assert not np.array_equal(videos[forward], videos[backward])


def test_glyph_is_in_the_key_frames_and_nowhere_else():
    """Take the decided video apart: only in key frames does the picture hold the glyph at its best place."""
    stencil = np.zeros((1, 29, 29, 3), np.float32)
    centre = np.full(1, 14.0, np.float32)
    draw(stencil, GLYPHS["X"], centre, centre, np.full(1, 11.0, np.float32), np.ones(3, np.float32))
    stencil = stencil[0, ..., 0] - stencil[0, ..., 0].mean()
    right = 0
    videos = [
        video for group in range(8) for video in ACTIONS.render_group(0, group, 1) if video.class_name == "FlashX"
    ]
    for video in videos:
        grey = torch.from_numpy(video.frames.astype(np.float32)).mean(-1)[:, None]
        match = torch.nn.functional.conv2d(grey, torch.from_numpy(stencil)[None, None]).amax((1, 2, 3)).numpy()
        right += set(np.argsort(match)[-3:]) == set(video.key_frames)
    assert right >= 7


# The files


def test_files_are_playable_and_named_like_ucf101(data):
    for split in ("train", "val", "test"):
        for record in data.catalogue.records[split]:
            name, group = parse_ucf101_name(record.id.split("/")[1])
            assert (name, f"g{group:02d}") == (ACTIONS.class_names[record.label], record.group)
    with open_reader(path_of(data, "Grow")) as video:
        assert (len(video), video.size, video.fps) == (16, (64, 64), 12.5)


def test_encoded_pairs_decode_to_the_same_pictures_backwards(data):
    """The codec leaves no trace of direction, to the bit."""
    for forward, backward in ACTIONS.pairs:
        assert np.array_equal(decode(path_of(data, forward)), decode(path_of(data, backward))[::-1])


def test_encoding_keeps_the_picture(data):
    videos = {video.class_name: video.frames for video in ACTIONS.render_group(0, 1, 1)}
    error = decode(path_of(data, "Grow")).astype(float) - videos["Grow"]
    assert 10 * np.log10(255**2 / (error**2).mean()) > 30


def test_frame_statistics_do_not_tell_a_pair_apart(data):
    """A linear classifier on order-blind statistics of the decoded files stays at chance, on its own training set."""
    frames = [decode(path_of(data, name, group)) for name in ("Grow", "Shrink") for group in range(1, 5)]
    features = np.stack([np.concatenate([x.mean((0, 1, 2)), x.std((0, 1, 2)), x.std(0).mean((0, 1))]) for x in frames])
    labels = np.repeat([0, 1], 4)
    assert LogisticRegression().fit(features, labels).score(features, labels) == 0.5


def test_one_frame_video_can_be_written(tmp_path):
    write_video(tmp_path / "one.mp4", np.full((1, 32, 48, 3), 77, np.uint8))
    assert decode(tmp_path / "one.mp4").shape == (1, 32, 48, 3)


def test_key_frames_stand_beside_event_videos_only(data):
    for event in ACTIONS.others:
        indices = key_frames(path_of(data, event))
        assert len(set(indices)) == 3
        assert list(indices) == sorted(indices)
        assert 0 <= min(indices) <= max(indices) < 16
    assert key_frames(path_of(data, "Grow")) == ()


def test_key_frames_of_another_video_are_unknown(tmp_path):
    with pytest.raises(VideoError, match="no key frames are noted"):
        key_frames(tmp_path / "holiday.mp4")
    (tmp_path / "holiday.json").write_text('{"place": "sea"}')
    with pytest.raises(VideoError, match=r"holiday\.mp4"):
        key_frames(tmp_path / "holiday.mp4")


# Rendering once


def test_second_module_finds_all_and_writes_nothing(data, capsys):
    before = {path: path.stat().st_mtime_ns for path in data.library.folder.rglob("*")}
    SyntheticDataModule(root=str(data.library.root), **SMALL).setup("fit")
    assert {path: path.stat().st_mtime_ns for path in data.library.folder.rglob("*")} == before
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_stderr(tmp_path, capsys):
    data = SyntheticDataModule(root=str(tmp_path), train_groups=1, val_groups=0, test_groups=1, clips_per_group=1)
    data.prepare_data()
    out, err = capsys.readouterr()
    assert out == ""
    assert "Rendering" in err


@pytest.mark.parametrize("damage", ["list lost", "video lost", "video cut short", "list garbled"])
def test_interrupted_rendering_is_completed(tmp_path, damage):
    data = SyntheticDataModule(root=str(tmp_path), train_groups=1, val_groups=0, test_groups=1, clips_per_group=1)
    data.prepare_data()
    video, listed = path_of(data, "Grow", group=2), data.library.folder / "g02.json"
    whole, untouched = video.read_bytes(), path_of(data, "Grow", group=1).stat().st_mtime_ns
    if damage == "list lost":
        listed.unlink()
    elif damage == "video lost":
        video.unlink()
    elif damage == "video cut short":
        video.write_bytes(whole[:500])
    else:
        listed.write_text("{")
    assert data.library.missing([1, 2]) == [2]
    data.prepare_data()
    assert data.library.missing([1, 2]) == []
    assert video.read_bytes() == whole
    assert path_of(data, "Grow", group=1).stat().st_mtime_ns == untouched
    assert not list(data.library.folder.rglob("*.part"))


def test_failure_while_writing_leaves_no_group_behind(tmp_path, monkeypatch):
    data = SyntheticDataModule(root=str(tmp_path), train_groups=1, val_groups=0, test_groups=1, clips_per_group=1)

    def full_disk(path, frames):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("datamodules.synthetic.library.write_video", full_disk)
    with pytest.raises(OSError, match="No space"):
        data.prepare_data()
    assert not list(tmp_path.rglob("*.mp4"))
    assert not list(tmp_path.rglob("*.part"))
    assert data.library.missing([1, 2]) == [1, 2]


def test_other_settings_go_to_another_folder(tmp_path):
    def folder(**options):
        return SyntheticDataModule(root=str(tmp_path), **options).library.folder

    folders = [folder(), folder(video_seed=1), folder(clips_per_group=3)]
    assert len(set(folders)) == 3
    assert folder(train_groups=5, seed=9) == folders[0]


def test_settings_are_written_down(data):
    settings = json.loads((data.library.folder / "settings.json").read_text())
    assert settings == data.library.settings


def test_cache_folder_of_the_user_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert SyntheticDataModule().library.root == tmp_path / "temporal_attn" / "synthetic"


# The datamodule


def test_groups_never_cross_a_split_and_test_stays_as_training_grows(data):
    groups = {split: {record.group for record in records} for split, records in data.catalogue.records.items()}
    assert not groups["train"] & groups["val"]
    assert not (groups["train"] | groups["val"]) & groups["test"]
    larger = SyntheticDataModule(root=str(data.library.root), **{**SMALL, "train_groups": 9})
    assert larger.catalogue.records["test"] == data.catalogue.records["test"]


def test_training_batch_holds_every_frame_unflipped(data):
    module = SyntheticDataModule(root=str(data.library.root), loader=LoaderOptions(batch_size=4), **SMALL)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert batch["video"].shape == (4, 16, 3, 64, 64)
    assert batch["mask"].all()
    assert batch["failed"] == []
    augmented = module.augment(batch)["video"]
    for clip, name in zip(augmented, batch["video_id"], strict=True):
        whole = torch.from_numpy(decode(module.library.folder / f"{name}.mp4")).permute(0, 3, 1, 2)
        assert (clip.int() - whole.int()).abs().float().mean() < 2


def test_empty_validation_says_how_to_fill_it(tmp_path):
    data = SyntheticDataModule(root=str(tmp_path), train_groups=1, val_groups=0, test_groups=1, clips_per_group=1)
    with pytest.raises(UserError, match="set val_groups"):
        data.setup("validate")
