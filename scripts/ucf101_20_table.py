"""Train every row of the table in docs/results.md and print it; what is there already is not trained again.

python scripts/ucf101_20_table.py --root VIDEOS --splits LISTS --runs runs/table --cache .cache/ucf101_20
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from temporal_attn.cli import main

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ucf101_20.yaml"
FROZEN = ["--model.freeze=all", "--model.attention=null", "--trainer.max_epochs=15"]
# name: (over time, trained in the backbone, CBAM, options beside the configuration)
ROWS = {
    "frozen_mean": (
        "mean pooling",
        "none (all frozen)",
        "–",
        [*FROZEN, "--model.temporal=mean", "--model.dim=0"],
    ),
    "frozen_transformer": ("self-attention, 2 blocks", "none (all frozen)", "–", FROZEN),
    "conv_mean": (
        "mean pooling",
        "last convolution",
        "–",
        ["--model.attention=null", "--model.temporal=mean"],
    ),
    "conv_transformer": ("self-attention, 2 blocks", "last convolution", "–", ["--model.attention=null"]),
    "cbam_mean": ("mean pooling", "last convolution", "trained", ["--model.temporal=mean"]),
    "cbam_transformer": ("self-attention, 2 blocks", "last convolution", "trained", []),
}


def last_validation(folder: Path) -> dict[str, float] | None:
    """Values that the last epoch of a finished run logged, None for a run that did not finish."""
    logs = sorted(folder.glob("lightning_logs/version_*/metrics.csv"))
    if not logs or not (folder / "done").exists():
        return None
    with logs[-1].open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/top1")]
    return {name: float(value) for name, value in rows[-1].items() if name.startswith("val/") and value}


def train(folder: Path, seed: int, arguments: argparse.Namespace, options: list[str]) -> None:
    """One run of the program, with its values logged as CSV."""
    words = [
        f"--config={CONFIG}",
        f"--data.root={arguments.root}",
        f"--data.splits={arguments.splits}",
        f"--data.cache_dir={arguments.cache}",
        f"--seed_everything={seed}",
        f"--trainer.default_root_dir={folder}",
        "--trainer.logger=pytorch_lightning.loggers.CSVLogger",
        f"--trainer.logger.save_dir={folder}",
    ]
    if main(["fit", *words, *options]) != 0:
        raise SystemExit(f"{folder}: the run failed; see above")
    (folder / "done").touch()


def line(cells: tuple[str, str, str], runs: list[dict[str, float]]) -> str:
    """A row of the table: mean, lowest and highest of the seeds, and the first seed's interval over groups."""
    top1 = [100 * run["val/top1"] for run in runs]
    spread = f"{statistics.mean(top1):.1f} % ({min(top1):.1f}–{max(top1):.1f})"
    interval = f"{100 * runs[0]['val/top1_low']:.1f}–{100 * runs[0]['val/top1_high']:.1f} %"
    return f"| {' | '.join(cells)} | {spread} | {interval} |"


def table() -> None:
    """Train what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("root", "splits", "runs", "cache"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    lines = []
    for name, (*cells, options) in ROWS.items():
        runs = []
        for seed in arguments.seeds:
            folder = Path(arguments.runs) / f"{name}-{seed}"
            if last_validation(folder) is None:
                train(folder, seed, arguments, options)
            runs.append(last_validation(folder) or {})
        lines.append(line((cells[0], cells[1], cells[2]), runs))
    print("| over time | trained in the backbone | CBAM | top-1 | interval |\n|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    table()
