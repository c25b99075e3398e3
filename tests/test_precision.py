"""Half precision in a Trainer: what may be narrowed, and the seconds of frames, which may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.metrics import VideoScore, VideoScores, average_views
from temporal_attn.module import VideoClassificationModule
from temporal_attn.precision import keep_seconds

SECONDS = [600.0, 600.5, 601.0, 601.5]


class Watching(VideoClassificationModule):
    """Keeps the batches that the model sees."""

    def forward(self, batch: Any) -> Any:
        self.seen = batch
        return super().forward(batch)


def clips() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (4, 4, 3, 32, 32), generator=generator).byte()
    rows = [{"video": clip, "label": i % 2, "pts": torch.tensor(SECONDS)} for i, clip in enumerate(video)]
    return DataLoader(rows, batch_size=2)  # type: ignore[arg-type]


def trainer(folder: Path, precision: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_every_stage_sees_the_seconds_that_the_loader_gives(tmp_path: Path, precision: str) -> None:
    net = Watching(class_names=["a", "b"], backbone="test_resnet", attention=None, dim=8, heads=2, depth=1)
    run = trainer(tmp_path, precision)
    run.fit(net, clips(), clips())
    assert net.seen["pts"].tolist() == [SECONDS] * 2
    run.test(net, clips(), verbose=False)
    assert net.seen["pts"].tolist() == [SECONDS] * 2
    batches = run.predict(net, clips())
    assert net.seen["pts"].tolist() == [SECONDS] * 2
    assert sum(map(len, batches or [])) == 4


def test_all_else_is_narrowed_as_before(tmp_path: Path) -> None:
    run = trainer(tmp_path, "bf16-true")
    for _ in range(2):  # a second stage of the same Trainer changes nothing
        keep_seconds(run)
        batch = {"pts": torch.tensor(SECONDS), "video": torch.rand(2), "label": torch.tensor([1])}
        found = run.precision_plugin.convert_input(batch)
        kinds = {name: value.dtype for name, value in found.items()}
        assert kinds == {"pts": torch.float32, "video": torch.bfloat16, "label": torch.int64}
        assert batch["video"].dtype == torch.float32
        assert run.precision_plugin.convert_input(torch.rand(1)).dtype == torch.bfloat16


def test_views_are_averaged_in_single_under_any_default(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.bfloat16)
    scores = torch.tensor([[0.2501, 0.7499], [0.2503, 0.7497], [0.5, 0.5]], dtype=torch.float32)
    found = average_views(VideoScore(torch.tensor([7, 7, 9]), scores, torch.tensor([1, 1, 0])))
    assert found.scores.dtype == torch.float32
    assert torch.allclose(found.scores[0], scores[:2].mean(0))
    assert VideoScores(2).scores[0].dtype == torch.float32
