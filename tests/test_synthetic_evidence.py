"""Tasks of known key frames: where the evidence stands, and that nothing but the glyphs gives it away."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.synthetic import TASKS, SyntheticDataModule, frame_average_bound, key_frames
from datamodules.synthetic.drawing import GLYPHS, draw
from temporal_attn.bench.keyframe_baselines import motion_energy

KEYED = ("or", "set", "weak", "order", "event")


def videos(task, groups=4, clips=1, seed=0):
    return [video for group in range(groups) for video in TASKS[task].render_group(seed, group, clips)]


def match(frames, glyph):
    """How well each frame holds a glyph at its best place: normalised correlation, (N,)."""
    stencil = np.zeros((1, 25, 25, 3), np.float32)
    centre = np.full(1, 12.0, np.float32)
    draw(stencil, GLYPHS[glyph], centre, centre, np.full(1, 10.5, np.float32), np.ones(3, np.float32))
    kernel = torch.from_numpy(stencil[0, ..., 0] - stencil[0, ..., 0].mean())[None, None]
    grey = torch.from_numpy(frames.astype(np.float32)).mean(-1)[:, None]
    mean = torch.nn.functional.avg_pool2d(grey, 25, 1)
    spread = (torch.nn.functional.avg_pool2d(grey**2, 25, 1) - mean**2).clamp(min=1).sqrt()
    found = torch.nn.functional.conv2d(grey, kernel) / (spread * kernel.norm() * 25)
    return found.amax((1, 2, 3)).numpy()


@pytest.mark.parametrize("task", KEYED)
def test_every_video_has_sixteen_frames_of_which_three_decide(task):
    for video in videos(task, groups=2):
        assert video.frames.shape == (16, 64, 64, 3)
        assert video.frames.dtype == np.uint8
        assert len(set(video.key_frames)) == 3
        assert list(video.key_frames) == sorted(video.key_frames)


@pytest.mark.parametrize("task", KEYED)
def test_groups_are_reproducible_and_seeds_differ(task):
    first, again, other = (videos(task, groups=1, seed=seed)[0].frames for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("task", ["or", "event"])
def test_glyph_of_the_class_stands_in_its_key_frames(task):
    right = [set(np.argsort(match(v.frames, v.class_name))[-3:]) == set(v.key_frames) for v in videos(task)]
    assert np.mean(right) >= 0.8


def test_key_frames_of_an_event_and_of_an_order_follow_one_another():
    assert all(v.key_frames[2] - v.key_frames[0] == 2 for task in ("event", "order") for v in videos(task))
    assert any(v.key_frames[2] - v.key_frames[0] > 2 for v in videos("or"))


def test_set_shows_every_glyph_but_the_one_of_its_class():
    right = []
    for video in videos("set"):
        found = {glyph: match(video.frames[list(video.key_frames)], glyph).max() for glyph in "HOTX"}
        right.append(f"No{min(found, key=found.get)}" == video.class_name)
    assert np.mean(right) >= 0.8


def test_classes_of_order_are_each_others_reversal():
    forward, backward = videos("order", groups=1)
    assert (forward.class_name, backward.class_name) == ("XOT", "TOX")
    assert np.array_equal(forward.frames, backward.frames[::-1])
    assert [15 - key for key in forward.key_frames] == list(backward.key_frames)[::-1]
    assert frame_average_bound("order") == 0.5
    shown = [
        "XOT"[int(np.argmax([match(forward.frames[[key]], glyph)[0] for glyph in "XOT"]))] for key in forward.key_frames
    ]
    assert shown == ["X", "O", "T"]


def test_glyphs_of_weak_are_fainter():
    def contrast(task):
        return np.mean(
            [np.ptp(v.frames[list(v.key_frames)].astype(float), axis=(1, 2)).mean() for v in videos(task, 2)]
        )

    assert contrast("weak") < 0.8 * contrast("or")


@pytest.mark.parametrize("task", KEYED)
def test_brightness_and_motion_do_not_give_key_frames_away(task):
    wins = []
    for video in videos(task, groups=6, clips=2):
        key = np.isin(np.arange(16), video.key_frames)
        brightest = np.argsort(video.frames.mean((1, 2, 3)))[-3:]
        assert not key[brightest].any(), "three flashes are brighter than any key frame"
        motion = motion_energy(torch.from_numpy(video.frames.copy()).permute(0, 3, 1, 2)).numpy()
        wins.append((motion[key][:, None] > motion[~key][None, :]).mean())
    assert np.mean(wins) < 0.55


def test_files_carry_the_key_frames(tmp_path):
    data = SyntheticDataModule(
        "set", root=str(tmp_path), train_groups=1, val_groups=0, test_groups=1, clips_per_group=1
    )
    data.setup("test")
    rendered = {video.class_name: video for video in TASKS["set"].render_group(0, 1, 1)}
    assert data.class_names == ["NoH", "NoO", "NoT", "NoX"]
    for record in data.catalogue.records["test"]:
        assert key_frames(record.path) == rendered[data.class_names[record.label]].key_frames
    clip = data.dataset("test")[0]
    assert clip["video"].shape == (16, 3, 64, 64)
