"""What real disks and downloads do to videos: nothing is lost without a word, hangs, or is replaced by another."""

from __future__ import annotations

import os
import random
import struct

import numpy as np
import pytest
import sandboxed
import torch
from patches import moving_patches
from test_datamodule_lightning import Foreign, make_trainer, names
from videos import numbered_frames, read_numbers, write_truncated, write_video

from datamodules import FolderDataModule
from datamodules.base import TooManyFailures
from datamodules.dataset import VideoDataset
from datamodules.decoding import SafeOpener
from datamodules.examination import examine_safely
from datamodules.options import ClipOptions, LoaderOptions
from datamodules.sandbox import Incident, Sandbox
from temporal_attn.types import UserError, VideoRecord

CLIP = ClipOptions(num_frames=4, resize=48, crop=48)
GENEROUS = 60.0
SHORT = 0.5
SUFFIXES = (".mp4", ".avi")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(GENEROUS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {
        ".mp4": write_video(folder / "clip.mp4", moving_patches(3, frames=30)),
        ".avi": write_video(folder / "clip.avi", moving_patches(3, frames=30), codec="mpeg4", gop=5),
    }


@pytest.fixture(scope="module")
def opener():
    return SafeOpener(timeout=GENEROUS)


def load(path, opener, train=False):
    record = VideoRecord(id=path.name, path=str(path), label=0, group=path.name)
    return VideoDataset([record], CLIP.spec(), train, open_video=opener)[0]


def assert_honest(outcome, path):
    """A clip of this file, or its name and a reason."""
    if "reason" in outcome:
        assert outcome["reason"]
        assert (outcome["id"], outcome["path"]) == (path.name, str(path))
    else:
        assert outcome["video_id"] == path.name
        assert outcome["video"].shape[:3] == (4, 3, 48)
        assert outcome["mask"].any()
        assert torch.isfinite(outcome["pts"]).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seeds", [range(10 * tens, 10 * tens + 10) for tens in range(5)], ids=str)
def test_flipped_bits(sources, tmp_path, opener, suffix, seeds):
    whole = sources[suffix].read_bytes()
    for seed in seeds:
        draw = random.Random(f"{suffix}{seed}")
        data = bytearray(whole)
        for _ in range(draw.choice((1, 8, 64))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{seed}{suffix}"
        path.write_bytes(data)
        assert_honest(load(path, opener, train=bool(seed % 2)), path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_off_and_zero_filled(sources, tmp_path, opener, sandbox, suffix):
    whole = sources[suffix].read_bytes()
    for share in (0.0, 0.001, 0.3, 0.8, 0.999):
        kept = int(len(whole) * share)
        for name, data in (("cut", whole[:kept]), ("zero", whole[:kept].ljust(len(whole), b"\0"))):
            path = tmp_path / f"{name} {share}{suffix}"
            path.write_bytes(data)
            assert_honest(load(path, opener), path)
            if share < 0.9:
                assert examine_safely(str(path), sandbox).problem in ("unreadable", "truncated", "damaged"), path.name


def test_a_header_that_promises_too_much(tmp_path, opener, sandbox):
    path = write_video(tmp_path / "boastful.avi", numbered_frames(12), codec="mpeg4")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, 1000)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 1000)
    path.write_bytes(data)
    assert load(path, opener)["frame_index"].tolist() == [1, 4, 7, 10]
    item = load(path, opener, train=True)  # whole frames
    assert read_numbers(item["video"].permute(0, 2, 3, 1).numpy()) == item["frame_index"].tolist()
    assert examine_safely(str(path), sandbox).reason == "12 of 1000 frames decode"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (sandboxed.hang_with_the_lock, "made no progress for 0.5 s"),
        (sandboxed.be_killed, "was killed by SIGKILL"),
        (sandboxed.crash, "was killed by SIGSEGV"),
    ],
)
def test_a_reader_that_never_returns_or_takes_its_process_along(sources, function, reason):
    inner = Sandbox(GENEROUS)

    class Stub:
        """A reader that opens its file, and then does the worst."""

        pts = np.arange(30.0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def get_batch(self, indices):
            assert inner.call("clip.mp4", sandboxed.process_id)
            inner.timeout = SHORT if function is sandboxed.hang_with_the_lock else GENEROUS
            return inner.call("clip.mp4", function)

    with inner:
        failed = load(sources[".mp4"], lambda *_: Stub())
    assert reason in failed["reason"]


# Whole runs


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("archery", "ünusual diving")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for group in range(4):
            path = tmp_path / "videos" / name / f"v é {name}+!!!_g{group:02d}_c01.mp4"
            write_video(path, numbered_frames(6, height=32, width=48, first=100 * number + 10 * group))
    return tmp_path / "videos"


def make(root, num_workers=0, timeout=GENEROUS, **options):
    loader = LoaderOptions(batch_size=1, num_workers=num_workers, decode_timeout=timeout, sandbox=True)
    clip = ClipOptions(num_frames=2, resize=24, crop=16)
    fractions = {"val_fraction": 0.0, "test_fraction": 0.0, **options}
    return FolderDataModule(str(root), clip=clip, loader=loader, **fractions)


def replace_by_pipe(path):
    """A file that never ends: who opens it waits for a writer that never comes."""
    os.unlink(path)
    os.mkfifo(path)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_hanging_file_costs_one_sample_and_not_the_run(root, tmp_path, num_workers):
    data, module = make(root, num_workers, timeout=3.0), Foreign(num_classes=2)
    hanging = data.train_dataset.records[3]
    replace_by_pipe(hanging.path)
    make_trainer(tmp_path).fit(module, datamodule=data)
    seen = names(module.seen["train"])
    assert hanging.id not in seen
    assert list(data.failures["train"]) == [hanging.id]
    assert "made no progress for 3 s" in data.failures["train"][hanging.id]["reason"]
    assert sorted(seen) == sorted(record.id for record in data.train_dataset.records if record != hanging)


def test_evaluation_names_a_hanging_file_and_replaces_nothing(root, tmp_path):
    data, module = make(root, timeout=3.0, test_fraction=0.5), Foreign(num_classes=2)
    records = list(data.test_dataset.records)
    replace_by_pipe(records[1].path)
    make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert names(module.seen["test"]) == [record.id for record in records if record != records[1]]
    assert [video["id"] for batch in module.seen["test"] for video in batch["failed"]] == [records[1].id]


def test_incidents_are_capped(root, tmp_path, monkeypatch):
    data = make(root, timeout=SHORT)

    def incident(path, *_):
        raise Incident(path, "its decoding process was killed by SIGKILL", "crash")

    monkeypatch.setattr(data.train_dataset.source, "open_video", incident)
    with pytest.raises(TooManyFailures, match=r"6 training videos cannot be read .*SIGKILL"):
        make_trainer(tmp_path).fit(Foreign(num_classes=2), datamodule=data)


def test_names_with_spaces_accents_and_signs(root, tmp_path):
    data, module = make(root), Foreign(num_classes=2)
    make_trainer(tmp_path).fit(module, datamodule=data)
    assert len(names(module.seen["train"])) == 8
    assert data.failures["train"] == {}


def test_a_folder_of_ten_thousand_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
    for number in range(10_000):
        os.close(os.open(tmp_path / "root" / "ab"[number % 2] / f"v_g{number // 4:05d}_c{number % 4}.mp4", os.O_CREAT))
    data = FolderDataModule(str(tmp_path / "root"))
    assert sum(map(len, data.catalogue.records.values())) == 10_000
    assert all(map(len, data.catalogue.records.values()))


# Out of the root


def test_lists_do_not_lead_out_of_the_root(root, tmp_path):
    outside = write_video(tmp_path / "outside.mp4", numbered_frames(6))
    for line in (f"../{outside.name}", f"archery/../../{outside.name}", str(outside)):
        (tmp_path / "list.txt").write_text(f"{line}\n")
        with pytest.raises(UserError, match=r"list\.txt, line 1"):
            _ = make(root, train_list=str(tmp_path / "list.txt")).catalogue


def test_links_out_of_the_root_are_refused_unless_allowed(root, tmp_path):
    outside = write_video(tmp_path / "outside.mp4", numbered_frames(6))
    (root / "archery" / "link_g09_c01.mp4").symlink_to(outside)
    with pytest.raises(UserError, match="allow_outside"):
        _ = make(root).catalogue
    assert len(make(root, allow_outside=True).train_dataset) == 9


@pytest.mark.slow
def test_memory_does_not_grow_with_the_files_that_are_opened(tmp_path):
    """Opening and reading 5,000 files, with everything that is kept between them."""
    paths = [write_video(tmp_path / f"clip{suffix}", numbered_frames(2, 16, 16), codec="mpeg4") for suffix in SUFFIXES]
    records = [VideoRecord(path.name, str(path), 0, "g") for path in paths]
    clip = ClipOptions(num_frames=1, resize=16, crop=16).spec()
    dataset = VideoDataset(records, clip, open_video=SafeOpener(sandbox=False))

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for n in range(200):
        dataset[n % 2]
    before = resident()
    for n in range(5_000):
        dataset[n % 2]
    assert resident() - before < 40 << 20


def test_truncated_files_keep_their_true_frames(tmp_path, opener):
    whole = write_video(tmp_path / "whole.avi", numbered_frames(40, height=256, width=384), codec="mpeg4", gop=4)
    cut = write_truncated(tmp_path / "cut.avi", whole, share=0.7)
    item = load(cut, opener, train=True)
    shown = read_numbers(item["video"].permute(0, 2, 3, 1).numpy())
    assert shown == item["frame_index"].tolist()
    assert max(shown) < 40
