"""What attention on frame maps gains on 20 classes of UCF101, into its own section of docs/results.md.

Everything below the last convolution is frozen and stored once; the last convolution, the attention behind it and the
temporal model train. Mechanisms share splits, seeds, steps and rates. What is trained already is not trained again, and
the table holds every finished run.

python scripts/ablate_attention.py --root VIDEOS --splits LISTS --runs runs/ablation --cache .cache/ucf101_20
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from temporal_attn.attention import build
from temporal_attn.bench.paired import Answers, Estimate, Runs, accuracy, difference, signed
from temporal_attn.bench.section import Section
from temporal_attn.cli import main

ROOT = Path(__file__).resolve().parents[1]
MECHANISMS = ("none", "se", "eca", "cbam", "coord", "danet")
CHANNELS = 1280  # of the last map of EfficientNet-Lite0
SECTION = Section("ablate_attention")

AllRuns = Mapping[str, Runs]
"""Mechanism and seed to the answers of that run."""


class ValidationAnswers(pl.Callback):
    """Writes which validation videos were right after the last epoch.

    Args:
        path: The JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Answers of this epoch; a later epoch replaces them."""
        source: Any = trainer
        records = source.datamodule.catalogue.records["val"]
        scores = module.recorder.scores.by_video()  # type: ignore[union-attr, operator]
        right = (scores.scores.argmax(1) == scores.label).tolist()
        answers = {records[index].id: hit for index, hit in zip(scores.index.tolist(), right, strict=True)}
        Path(self.path).write_text(json.dumps(answers, indent=0), encoding="utf-8")


def train(mechanism: str, seed: int, arguments: argparse.Namespace) -> None:
    """One run, unless it is finished already."""
    folder = Path(arguments.runs) / f"{mechanism}-{seed}"
    answers, done = folder / "answers.json", folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = [
            f"--config={ROOT / 'configs' / 'ucf101_20_one_stream.yaml'}",
            f"--data.root={arguments.root}",
            f"--data.splits={arguments.splits}",
            f"--data.cache_dir={arguments.cache}",
            f"--seed_everything={seed}",
            f"--trainer.default_root_dir={folder}",
            "--trainer.logger=false",
            "--trainer.callbacks=ablate_attention.ValidationAnswers",
            f"--trainer.callbacks.path={answers}",
            f"--model.attention={'null' if mechanism == 'none' else mechanism}",
        ]
        interrupted = folder / "checkpoints" / "last.ckpt"
        if interrupted.exists():
            words.append(f"--ckpt_path={interrupted}")
        if main(["fit", *words]) != 0:
            raise SystemExit(f"{folder}: the run failed; see above")
        done.touch()


def finished(runs: Path) -> dict[str, dict[int, Answers]]:
    """Answers of every finished run, by mechanism and seed."""
    found: dict[str, dict[int, Answers]] = {}
    for mechanism in MECHANISMS:
        folders = sorted(done.parent for done in runs.glob(f"{mechanism}-*/done"))
        if folders:
            found[mechanism] = {
                int(folder.name.rpartition("-")[2]): json.loads((folder / "answers.json").read_text(encoding="utf-8"))
                for folder in folders
            }
    return found


def group_of(video: str) -> str:
    """Class and number of the source video: `Archery/v_Archery_g22_c01` is of Archery_g22."""
    class_name, _, name = video.partition("/")
    match = re.search(r"_(g\d+)_", name)
    assert match is not None, video
    return f"{class_name}_{match[1]}"


def against_none(runs: AllRuns, mechanism: str, groups: Sequence[str]) -> Estimate:
    """Difference of the accuracy to none and its interval, paired by seed and video, in shares."""
    found = difference(runs[mechanism], runs["none"], groups)
    assert found is not None, f"{mechanism} and none have no seed in common"
    return found


def groups_of(runs: AllRuns) -> list[str]:
    """Group of each video, in the order of their names."""
    return [group_of(video) for video in sorted(next(iter(runs["none"].values())))]


def table(runs: AllRuns) -> str:
    """Rows of accuracy and of what it differs from none, each with its interval over groups."""
    groups = groups_of(runs)
    lines = [
        "| mechanism | parameters | seeds | top-1, mean (lowest–highest seed) | interval over groups | against none |",
        "|---|---|---|---|---|---|",
    ]
    for mechanism, answers in runs.items():
        top1 = accuracy(answers, groups)
        tops = [100 * float(np.mean(list(answers[seed].values()))) for seed in answers]
        against = "–"
        if mechanism != "none":
            mean, less, more = against_none(runs, mechanism, groups)
            against = f"{signed(mean)} points ({signed(less)} to {signed(more)})"
        size = 0 if mechanism == "none" else sum(p.numel() for p in build(mechanism, CHANNELS).parameters())
        lines.append(
            f"| {mechanism} | {size:,} | {len(answers)} | {100 * top1.value:.1f} % "
            f"({min(tops):.1f}–{max(tops):.1f}) | {100 * top1.low:.1f}–{100 * top1.high:.1f} % | {against} |"
        )
    return "\n".join(lines)


def conclusion(runs: AllRuns) -> str:
    """In words: which mechanisms differ from none by more than chance."""
    groups = groups_of(runs)
    better, worse = [], []
    for mechanism in runs:
        if mechanism != "none":
            _, low, high = against_none(runs, mechanism, groups)
            if low > 0:
                better.append(mechanism)
            if high < 0:
                worse.append(mechanism)
    if not better and not worse:
        return "No mechanism differs from none by more than chance: every interval of a difference holds zero."
    words = []
    if better:
        words.append(f"Better than none by more than chance: {', '.join(better)}.")
    if worse:
        words.append(f"Worse than none by more than chance: {', '.join(worse)}.")
    return " ".join([*words, "All others cannot be told from none."])


def section(runs: AllRuns) -> str:
    """The text between the markers."""
    groups = groups_of(runs)
    return (
        f"`scripts/ablate_attention.py`: `configs/ucf101_20_one_stream.yaml` with each mechanism behind the "
        f"last convolution ({CHANNELS} channels, 7 × 7), after the last epoch, {len(groups)} validation videos of "
        f"{len(set(groups))} groups. Intervals are 95 % bootstraps over groups of the seeds' mean; the last column is "
        f"paired by seed and video.\n\n{table(runs)}\n\n{conclusion(runs)}"
    )


def ablate() -> None:
    """Train what is missing, then write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("root", "splits", "runs", "cache"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mechanisms", nargs="+", default=list(MECHANISMS), help="train these")
    parser.add_argument("--page", default=str(ROOT / "docs" / "results.md"))
    arguments = parser.parse_args()
    # Seed by seed, so that an interrupted run leaves a comparison and not one mechanism with all its seeds.
    for seed in arguments.seeds:
        for mechanism in arguments.mechanisms:
            train(mechanism, seed, arguments)
    text = section(finished(Path(arguments.runs)))
    SECTION.write(arguments.page, text)
    print(text)


if __name__ == "__main__":
    ablate()
