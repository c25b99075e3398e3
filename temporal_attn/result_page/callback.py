"""The callback that writes ``result.html`` after a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from temporal_attn.callbacks import run_folder
from temporal_attn.evaluation import VideoTable
from temporal_attn.result_page.curves import find_log
from temporal_attn.result_page.films import film_of
from temporal_attn.result_page.page import Film, mistakes, render_result
from temporal_attn.types import UserError

__all__ = ["ResultPage"]


class ResultPage(pl.Callback):
    """``result.html`` in the run's folder after a test of a module that has a ``test_summary`` and a ``test_table``.

    Args:
        filename: Name of the file; null writes none.
        strips: So many of the surest mistakes are shown as film strips. Their videos are read once more.
        stills: So many further mistakes get a single picture.
        frames: Pictures of a strip.

    Raises:
        UserError: A number is negative.
    """

    def __init__(
        self, filename: str | None = "result.html", strips: int = 12, stills: int = 48, frames: int = 6
    ) -> None:
        if min(strips, stills) < 0 or frames < 1:
            raise UserError(f"page: strips, stills and frames count pictures, got {strips}, {stills} and {frames}")
        self.filename = filename
        self.strips = strips
        self.stills = stills
        self.frames = frames
        self.path: str | None = None

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the page on rank zero."""
        module = cast(Any, pl_module)
        table: VideoTable | None = getattr(module, "test_table", None)
        if self.filename is None or table is None or not trainer.is_global_zero:
            return
        page = render_result(
            module.test_summary,
            table,
            module.class_names,
            self._films(trainer, table),
            find_log(_folders(trainer)),
            checkpoint=str(trainer.ckpt_path or ""),
        )
        path = run_folder(trainer) / self.filename
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
        self.path = str(path)

    def _films(self, trainer: pl.Trainer, table: VideoTable) -> list[Film]:
        """Pictures of the surest mistakes, as far as the data set can give any."""
        dataset = getattr(getattr(trainer, "datamodule", None), "test_dataset", None)
        if dataset is None:
            return []
        # A batch that does not say where its videos stand gives them numbers that are no place in the data set.
        placed = [row for row in mistakes(table) if table.rows[row].place < len(dataset)]
        chosen = placed[: self.strips + self.stills]
        films = [
            Film(row, film_of(dataset, table.rows[row].place, self.frames if place < self.strips else 1))
            for place, row in enumerate(chosen)
        ]
        return [film for film in films if film.pictures]


def _folders(trainer: pl.Trainer) -> list[Path]:
    """Where the log of the training may lie: in the run that the checkpoint is of, or in this one."""
    own = Path(trainer.default_root_dir)
    return [Path(trainer.ckpt_path).absolute().parent.parent, own] if trainer.ckpt_path else [own]
