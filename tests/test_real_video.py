"""The main job on real files: UCF101's own AVIs and files that break naive readers, with either engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from temporal_attn.cli import main

pytestmark = pytest.mark.shared_data

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ucf101_20.yaml"
SMALL = [
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--model.backbone=test_resnet",
    "--model.weights=none",
    "--model.freeze=none",
    "--model.attention_at=[layer3,layer4]",
    "--model.dim=32",
    "--model.depth=1",
    "--data.clip.num_frames=4",
    "--data.clip.resize=48",
    "--data.clip.crop=48",
    "--data.loader.batch_size=8",
    "--data.cache_dir=null",
    "--data.val_groups=null",
    "--data.val_fraction=0.5",
]


def options(data: Path, folder: Path, reader: str, fold: int) -> list[str]:
    return [
        f"--config={CONFIG}",
        *SMALL,
        f"--data.root={data / 'ucf101_avi'}",
        f"--data.splits={data / 'splits' / 'ucf101'}",
        f"--data.reader={reader}",
        f"--data.fold={fold}",
        f"--trainer.default_root_dir={folder}",
    ]


@pytest.fixture(scope="module", params=["auto", "decord"])
def fitted(request: Any, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    if request.param == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    folder = tmp_path_factory.mktemp(f"real_{request.param}")
    assert main(["fit", *options(shared_data, folder, request.param, 2)]) == 0
    return request.param, folder


def test_validate_test_and_predict(fitted: tuple[str, Path], shared_data: Path, capsys: Any) -> None:
    reader, folder = fitted
    arguments = [*options(shared_data, folder, reader, 2), f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}"]
    assert main(["validate", *arguments]) == 0
    assert main(["test", *arguments]) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["videos"] > 0
    assert metrics["failed"] == []
    assert main(["predict", *arguments]) == 0
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == metrics["videos"]
    hits = [row["class"] == row["video_id"].split("/")[0] for row in rows]
    assert metrics["top1"] == pytest.approx(sum(hits) / len(hits))


def test_a_fold_without_test_files_is_a_clear_error(fitted: tuple[str, Path], shared_data: Path, capsys: Any) -> None:
    reader, folder = fitted
    arguments = [*options(shared_data, folder, reader, 1), f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}"]
    capsys.readouterr()
    assert main(["test", *arguments]) == 2
    assert "testlist01.txt" in capsys.readouterr().err


def test_inspect_every_odd_file(fitted: tuple[str, Path], shared_data: Path, tmp_path: Path) -> None:
    reader, folder = fitted
    files = sorted(str(path) for path in (shared_data / "odd").iterdir())
    broken = [path for path in files if "corrupted" in path]
    words = ["--checkpoint", str(folder / "checkpoints" / "best.ckpt"), "--reader", reader]
    good = [path for path in files if path not in broken]
    assert main(["inspect", *good, *words, "--out", str(tmp_path / "good")]) == 0
    reports = [json.loads(path.read_text()) for path in (tmp_path / "good").glob("*/scores.json")]
    assert {Path(report["video"]).name for report in reports} == {Path(path).name for path in good}
    for report in reports:
        seconds = [frame["pts"] for frame in report["frames"]]
        assert seconds == sorted(seconds)
    assert broken
    assert main(["inspect", *broken, *words, "--out", str(tmp_path / "bad")]) in (0, 1)
