"""torchcodec as an engine, by a stand-in with its interface: the library itself needs an FFmpeg of the system."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import videos

from datamodules.readers import open_reader, scan_video, select
from datamodules.readers.exactness import why_not_torchcodec
from temporal_attn.types import UserError


class StandIn:
    """What of `torchcodec.decoders.VideoDecoder` is used."""

    short_by = 0

    def __init__(self, source, *, stream_index, dimension_order, num_ffmpeg_threads, seek_mode):
        assert (dimension_order, num_ffmpeg_threads, seek_mode) == ("NHWC", 1, "exact")
        self._frames = torch.from_numpy(videos.sequential_decode(source))

    def __len__(self):
        return len(self._frames) - self.short_by

    def get_frames_at(self, indices):
        return SimpleNamespace(data=self._frames[indices])


@pytest.fixture
def installed(monkeypatch):
    decoders = ModuleType("torchcodec.decoders")
    decoders.VideoDecoder = StandIn
    package = ModuleType("torchcodec")
    package.decoders = decoders
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: object())


@pytest.fixture
def path(tmp_path):
    return videos.write_video(tmp_path / "a.mp4", videos.numbered_frames(20, 90, 120), b_frames=2)


@pytest.mark.usefixtures("installed")
def test_it_reads_behind_the_common_interface(path):
    for index in (None, scan_video(path)):
        with open_reader(path, "torchcodec", index=index) as reader:
            assert reader.engine == "torchcodec"
            np.testing.assert_array_equal(reader.get_batch([9, 2, 9]), videos.sequential_decode(path)[[9, 2, 9]])
        with open_reader(path, "torchcodec", short_side=72, index=index) as reader:
            assert reader.size == (72, 96)
            assert videos.read_numbers(reader.get_batch([3, 19])) == [3, 19]


@pytest.mark.usefixtures("installed")
def test_it_is_refused_where_it_is_not_exact(tmp_path, path, monkeypatch):
    avi = videos.write_video(tmp_path / "b.avi", videos.numbered_frames(20, 90, 120), codec="mpeg4", b_frames=2)
    turned = videos.write_video(tmp_path / "c.mp4", videos.numbered_frames(20, 90, 120), rotation=90)
    assert not why_not_torchcodec(scan_video(path))
    for file, reason in ((avi, "not exact on avi"), (turned, "turned")):
        with open_reader(file, "torchcodec") as reader:
            assert reader.engine == "pyav"
            assert reason in reader.note
    monkeypatch.setattr(StandIn, "short_by", 1)
    with open_reader(path, "torchcodec") as reader:
        assert reader.engine == "pyav"
        assert "torchcodec counts 19 frames, 20 decode" in reader.note


def test_without_it_the_remedy_is_named(path, monkeypatch):
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install torchcodec"):
        open_reader(path, "torchcodec")


def test_without_its_ffmpeg_the_remedy_is_named(path, monkeypatch):
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(UserError, match="pip install torchcodec"):
        open_reader(path, "torchcodec")
