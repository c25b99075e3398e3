"""Which clips are one video, and that several processes test as one where the loader says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.callbacks import MetricsWriter
from temporal_attn.evaluation.recorder import EvaluationRecorder
from tests.bright_clips import Clips, Numbered, loader, module, trainer


def summary(folder: Path, clips: Clips, **options: Any) -> dict[str, Any]:
    """`metrics.json` of a test of a fresh module, the same each time."""
    pl.seed_everything(0)
    trainer(folder, callbacks=[MetricsWriter()], **options).test(
        module(), DataLoader(clips, batch_size=4), verbose=False
    )
    return json.loads((folder / "metrics.json").read_text())  # type: ignore[no-any-return]


def test_two_processes_test_as_one(tmp_path: Path) -> None:
    """15 clips on two ranks: the sampler repeats one, the summary counts it once."""

    one = summary(tmp_path / "one", Numbered(size=15))
    assert summary(tmp_path / "two", Numbered(size=15), devices=2, strategy="ddp_fork") == one
    assert sum(map(sum, one["confusion"])) == 15
    assert one["videos"] == 15


@pytest.mark.parametrize("named", ["text", "number"])
def test_names_make_two_processes_exact(tmp_path: Path, named: str) -> None:
    """Without an index the name of a video tells which clips are the same; numbers are names too."""

    class Named(Clips):
        def __getitem__(self, index: int) -> dict[str, Any]:
            name = f"v{index}" if named == "text" else 1000 + index
            return {**super().__getitem__(index), "video_id": name, "group": name}

    one = summary(tmp_path / "one", Named(size=15))
    assert one["videos"] == one["groups"] == 15
    assert summary(tmp_path / "two", Named(size=15), devices=2, strategy="ddp_fork") == one


def test_clips_of_one_name_are_views_of_one_video(tmp_path: Path) -> None:
    class Views(Clips):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {**super().__getitem__(index), "label": 0, "video_id": f"v{index // 2}"}

    net = module()
    trainer(tmp_path).test(net, DataLoader(Views(), batch_size=3), verbose=False)
    with torch.no_grad():
        probabilities = net.eval().model(Clips().video).logits.softmax(1).view(8, 2, 2).mean(1)
    assert net.test_table is not None
    assert net.test_table.probabilities[[row.id == "v5" for row in net.test_table.rows]][0] == pytest.approx(
        probabilities[5].double().numpy(), abs=1e-5
    )
    assert len(net.test_table.rows) == 8


def test_clips_without_a_name_on_two_processes_are_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(every: list[Any], own: Any) -> None:
        every[:] = [own] * len(every)

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    batch: Any = next(iter(loader()))
    for extra, warnings in (({"video_id": list("abcd")}, 0), ({"index": torch.arange(4)}, 0), ({}, 1)):
        recorder = EvaluationRecorder(2)
        for processes, expected in ((1, 0), (2, warnings), (2, warnings)):  # a second evaluation does not say it again
            recorder.forget()
            recorder.record({**batch, **extra}, torch.zeros(4, 2), torch.arange(4))
            recorder.merge(processes)
            assert len(caplog.records) == expected, (extra, processes)
