"""What attention on frame maps gains on 20 classes of UCF101, into its own section of docs/results.md.

Everything below the last convolution is frozen and stored once; the last convolution, the attention behind it and the
temporal model train. Mechanisms share splits, seeds, steps and rates. What is trained already is not trained again.

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
from numpy.typing import NDArray

from temporal_attn.attention import build
from temporal_attn.cli import main
from temporal_attn.evaluation.intervals import bootstrap_over_groups

ROOT = Path(__file__).resolve().parents[1]
MECHANISMS = ("none", "se", "eca", "cbam", "coord", "danet")
CHANNELS = 1280  # of the last map of EfficientNet-Lite0
BEGIN, END = "<!-- ablate_attention: begin -->", "<!-- ablate_attention: end -->"

Answers = dict[str, bool]
"""Video id to whether it was classified correctly."""


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
        scores = module.video_scores.by_video()  # type: ignore[union-attr, operator]
        right = (scores.probabilities.argmax(1) == scores.label).tolist()
        answers = {records[index].id: hit for index, hit in zip(scores.index.tolist(), right, strict=True)}
        Path(self.path).write_text(json.dumps(answers, indent=0), encoding="utf-8")


def train(mechanism: str, seed: int, arguments: argparse.Namespace) -> Answers:
    """Answers of one run, from its file where it is finished."""
    folder = Path(arguments.runs) / f"{mechanism}-{seed}"
    answers, done = folder / "answers.json", folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = [
            f"--config={ROOT / 'configs' / 'ucf101_20.yaml'}",
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
        if main(["fit", *words]) != 0:
            raise SystemExit(f"{folder}: the run failed; see above")
        done.touch()
    found: Answers = json.loads(answers.read_text(encoding="utf-8"))
    return found


def group_of(video: str) -> str:
    """Class and number of the source video: `Archery/v_Archery_g22_c01` is of Archery_g22."""
    class_name, _, name = video.partition("/")
    match = re.search(r"_(g\d+)_", name)
    assert match is not None, video
    return f"{class_name}_{match[1]}"


def share_of_seeds(runs: Sequence[Answers], videos: Sequence[str]) -> NDArray[np.float64]:
    """Share of the seeds that classified each video correctly."""
    share: NDArray[np.float64] = np.array([[run[video] for video in videos] for run in runs]).mean(0)
    return share


def table(runs: Mapping[str, Sequence[Answers]]) -> str:
    """Rows of accuracy and of what it differs from none, each with its interval over groups."""
    videos = sorted(runs["none"][0])
    groups = [group_of(video) for video in videos]
    base = share_of_seeds(runs["none"], videos)
    lines = [
        "| mechanism | parameters | top-1, mean (lowest–highest seed) | interval over groups | against none |",
        "|---|---|---|---|---|",
    ]
    for mechanism, answers in runs.items():
        share = share_of_seeds(answers, videos)
        seeds = [100 * float(np.mean([run[video] for video in videos])) for run in answers]
        low, high = bootstrap_over_groups(share.tolist(), groups)
        against = "–"
        if mechanism != "none":
            less, more = bootstrap_over_groups((share - base).tolist(), groups)
            against = f"{signed(float((share - base).mean()))} points ({signed(less)} to {signed(more)})"
        size = 0 if mechanism == "none" else sum(p.numel() for p in build(mechanism, CHANNELS).parameters())
        lines.append(
            f"| {mechanism} | {size:,} | {100 * float(share.mean()):.1f} % ({min(seeds):.1f}–{max(seeds):.1f}) "
            f"| {100 * low:.1f}–{100 * high:.1f} % | {against} |"
        )
    return "\n".join(lines)


def signed(share: float) -> str:
    """A share in points, with its sign, and a minus that is as wide as the plus."""
    return f"{100 * share:+.1f}".replace("-", "−")


def conclusion(runs: Mapping[str, Sequence[Answers]]) -> str:
    """In words: which mechanisms differ from none by more than chance."""
    videos = sorted(runs["none"][0])
    groups = [group_of(video) for video in videos]
    base = share_of_seeds(runs["none"], videos)
    better, worse = [], []
    for mechanism, answers in runs.items():
        if mechanism != "none":
            low, high = bootstrap_over_groups((share_of_seeds(answers, videos) - base).tolist(), groups)
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


def section(runs: Mapping[str, Sequence[Answers]], seeds: int) -> str:
    """The text between the markers."""
    count, groups = len(runs["none"][0]), len({group_of(video) for video in runs["none"][0]})
    return (
        f"{BEGIN}\n\n`scripts/ablate_attention.py`: `configs/ucf101_20.yaml` with each mechanism behind the last "
        f"convolution ({CHANNELS} channels, 7 × 7), {seeds} seeds, after the last epoch, {count} validation videos of "
        f"{groups} groups. Intervals are 95 % bootstraps over groups of the seeds' mean; the last column is paired by "
        f"video.\n\n{table(runs)}\n\n{conclusion(runs)}\n\n{END}"
    )


def replace_section(page: str, text: str) -> str:
    """The page with the text in the place of what stands between the markers.

    Raises:
        SystemExit: The page has no such place.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"docs/results.md has no section between {BEGIN} and {END}")
    return before + text + after


def ablate() -> None:
    """Train what is missing, then write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("root", "splits", "runs", "cache"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--mechanisms", nargs="+", default=list(MECHANISMS), help="the first is none")
    parser.add_argument("--page", default=str(ROOT / "docs" / "results.md"))
    arguments = parser.parse_args()
    # Seed by seed, so that an interrupted run leaves a comparison and not one mechanism with all its seeds.
    runs: dict[str, list[Answers]] = {mechanism: [] for mechanism in arguments.mechanisms}
    for seed in arguments.seeds:
        for mechanism in arguments.mechanisms:
            runs[mechanism].append(train(mechanism, seed, arguments))
    text = section(runs, len(arguments.seeds))
    page = Path(arguments.page)
    page.write_text(replace_section(page.read_text(encoding="utf-8"), text), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    ablate()
