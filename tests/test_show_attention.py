"""From a video to the picture of what attention does with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from videos import numbered_frames, write_video

from temporal_attn.attention import build, names, record_attention
from temporal_attn.attention_sheet import Row
from temporal_attn.cli import main
from temporal_attn.module import VideoClassificationModule
from temporal_attn.show_attention import weight_rows
from temporal_attn.types import ClipSpec

FRAMES = [np.zeros((32, 32, 3), np.uint8)] * 2


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("show") / "clip.mp4"
    write_video(path, numbered_frames(12, 64, 64), fps=4)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pytorch_lightning as pl

    spec = ClipSpec(num_frames=4, sampling="uniform", stride=1, resize=64, crop=64, repeat_short=False)
    module = VideoClassificationModule(
        ["walk", "run"], dict(spec), backbone="test_resnet", attention_at="stage", temporal="attention_pool", dim=16
    )
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.strategy.connect(module)
    path = tmp_path_factory.mktemp("ckpt") / "best.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_a_trained_model(video: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "sheet.png"
    assert main(["show-attention", str(video), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 4 * 160
        one_place = tmp_path / "one.png"
        words = ["--checkpoint", str(checkpoint), "--out", str(one_place), "--places", "1", "--num_frames", "2"]
        assert main(["show-attention", str(video), *words]) == 0
        with Image.open(one_place) as smaller:
            assert smaller.width < sheet.width
            assert smaller.height < sheet.height


def test_a_mechanism_in_a_net(video: Path, tmp_path: Path) -> None:
    pictures = []
    for name in ("a.png", "b.png"):
        out = tmp_path / name
        words = ["--backbone", "test_resnet", "--mechanism", "cbam", "--out", str(out), "--num_frames", "3"]
        assert main(["show-attention", str(video), *words]) == 0
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1]  # the same picture every time


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "a.png"], "either a checkpoint"),
        (["--out", "a.png", "--checkpoint", "a.ckpt", "--backbone", "resnet18"], "either a checkpoint"),
        (["--out", "a.jpg", "--backbone", "test_resnet"], "ends in .png"),
        (["--out", "a.png", "--backbone", "test_resnet", "--mechanism", "sebam"], "sebam"),
        (["--out", "a.png", "--backbone", "nosuch"], "nosuch"),
        (["--out", "a.png", "--backbone", "test_resnet", "--places", "0"], "places: 0"),
        (["--out", "a.png", "--backbone", "test_resnet", "--num_frames", "0"], "num_frames: 0"),
    ],
)
def test_wrong_use(words: list[str], said: str, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-attention", str(video), *words]) == 2
    assert said in capsys.readouterr().err


class Shows(nn.Module):
    def __init__(self, axes: str) -> None:
        super().__init__()
        self.attention_axes = axes


def rows_of(axes: str | None, weights: torch.Tensor) -> list[Row]:
    net = nn.Module()
    net.source = nn.Identity() if axes is None else Shows(axes)
    return weight_rows(net, {"source": weights}, FRAMES)


@pytest.mark.parametrize(
    ("axes", "shape", "note"),
    [
        (None, (2, 8, 1, 1), "8 channels"),
        (None, (2, 1, 7, 5), "where"),
        (None, (2, 8, 7, 5), "where"),
        (None, (2, 8, 7, 1), "where"),
        ("map", (2, 1, 1, 4), "where"),
        ("places", (2, 4, 49, 49), "where"),
        ("channels", (2, 1, 24, 24), "24 channels"),
        ("transform", (2, 2, 3), "outline"),
        ("branches", (2, 3, 8, 1, 1), "24 channels"),
    ],
)
def test_weights_are_drawn_by_what_their_axes_are(axes: str | None, shape: tuple[int, ...], note: str) -> None:
    (row,) = rows_of(axes, torch.ones(shape) / shape[-1])  # rows that sum to one do not make it self-attention
    assert note in row.note
    assert row.title.startswith("source") or not row.title


@pytest.mark.parametrize("name", names())
def test_every_mechanism_can_be_drawn(name: str) -> None:
    module = build(name, 16, gate="sigmoid").eval()
    with torch.no_grad(), record_attention(module) as maps:
        module(torch.randn(2, 16, 6, 6))
    rows = weight_rows(module, maps, FRAMES)
    assert len(rows) == len(maps)
    for row in rows:
        assert len(row.cells) == 2


def test_attention_received_is_where_others_look() -> None:
    weights = torch.zeros(2, 1, 36, 36)
    weights[..., 8] = 1  # all tokens look at row 1, column 2 of 6 × 6
    (row,) = rows_of("places", weights)
    light = row.cells[0].sum(-1, dtype=int)
    middle = np.argwhere(light == light.max()).mean(0)
    np.testing.assert_allclose(middle, [1.5 / 6 * 160, 2.5 / 6 * 160], atol=2)
