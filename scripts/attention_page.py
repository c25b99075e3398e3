"""Write the tables of docs/attention.md from the code, and the pictures beside them from trained nets.

python scripts/attention_page.py                                                    only the tables
python scripts/attention_page.py --root VIDEOS --splits LISTS --runs RUNS --cache C also the pictures

For a picture, the mechanism is put behind the fifth stage of an EfficientNet-Lite0 and trained for one epoch on six
classes of UCF101; then the weights that it uses on two photographs are drawn. The photographs are those that come with
scikit-learn, by danielbuechele and vultilion, CC BY 2.0.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from temporal_attn.attention import MultiScaleFusion, PyramidFeatureAttention, build, names, record_attention
from temporal_attn.attention.registry import find
from temporal_attn.attention.space_time import FactorisedSpaceTime, JointSpaceTime
from temporal_attn.attention_sheet import Row, draw_sheet, frame_row, place_row
from temporal_attn.cli import main
from temporal_attn.inference import load_classifier
from temporal_attn.show_attention import weight_rows

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURES = ROOT / "docs" / "attention.md", ROOT / "docs" / "images" / "attention"
BEGIN, END = "<!-- attention_page: begin -->", "<!-- attention_page: end -->"
CHANNELS, SIDE = 256, 14
STAGE = "blocks.4"
CLASSES = ("Archery", "HorseRace", "PlayingPiano", "Surfing", "Swing", "WalkingWithDog")
OTHERS = (PyramidFeatureAttention, MultiScaleFusion, JointSpaceTime, FactorisedSpaceTime)

Image = NDArray[np.uint8]


class Card(NamedTuple):
    """What a class says of itself in its docstring.

    Args:
        summary: First line.
        paper: Where it comes from.
        equation: What it computes.
        place: Where in a net it goes.
    """

    summary: str
    paper: str
    equation: str
    place: str


def card(made: Callable[..., nn.Module]) -> Card:
    """The card of a class.

    Raises:
        ValueError: Its docstring lacks an entry.
    """
    text = inspect.getdoc(made) or ""
    found = []
    for key in ("Paper", "Equation", "Place"):
        match = re.search(rf"^{key}: (.+?)(?=\n\n|\n[A-Z][a-z]+:|\Z)", text, re.MULTILINE | re.DOTALL)
        if match is None:
            raise ValueError(f"the docstring of {made.__name__} has no entry {key!r}")
        found.append(" ".join(match[1].split()).replace("``", "`"))  # Markdown's code, not that of docstrings
    return Card(text.splitlines()[0].rstrip("."), *found)


def parameters(module: nn.Module) -> str:
    """Number of parameters, in thousands from ten thousand on."""
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f} k"


@torch.no_grad()
def multiplications(module: nn.Module) -> str:
    """Multiply-adds of matrix products and convolutions on one map, in millions."""
    # Fused attention on a CPU is not counted; in the plain form its two matrix products are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros(1, CHANNELS, SIDE, SIDE))
    return f"{counter.get_total_flops() / 2e6:,.2f} M"


def linked(paper: str) -> str:
    """A paper with its address behind its title."""
    match = re.search(r"\s*<?(https?://[^\s>]+[^\s>.,;])>?\.?$", paper)
    return f"[{paper[: match.start()]}]({match[1]})" if match else paper


def table() -> str:
    """A row for each mechanism that `names` lists, and one for each class beside them."""
    lines = [
        f"Parameters and multiply-adds are those of the defaults on one map of {CHANNELS} channels, {SIDE} × {SIDE}.",
        "",
        "| name | what | paper | equation | parameters | multiply-adds | where it goes | on a frame |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names():
        told, module = card(find(name)), build(name, CHANNELS)
        picture = f"[picture](images/attention/{name}.png)"
        cells = (f"`{name}`", told.summary, linked(told.paper), told.equation)
        cost = (parameters(module), multiplications(module), told.place, picture)
        lines.append(f"| {' | '.join(cell.replace('|', '∣') for cell in (*cells, *cost))} |")
    lines += ["", "Classes of their own, because they take more than one map:", ""]
    lines += ["| class | what | paper | equation | where it goes |", "|---|---|---|---|---|"]
    for made in OTHERS:
        told = card(made)
        cells = (f"`{made.__name__}`", told.summary, linked(told.paper), told.equation, told.place)
        lines.append(f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |")
    return "\n".join(lines)


def gallery() -> str:
    """The pictures, each under its mechanism's name."""
    parts = [
        "## What they look at",
        "",
        f"Each behind the fifth stage ({STAGE}, 112 channels, 14 × 14) of an EfficientNet-Lite0 with ImageNet weights,",
        f'after one epoch on {len(CLASSES)} classes of UCF101 from `gate="identity"`: what so little training has',
        "made of them. The photographs come with scikit-learn and are by danielbuechele and vultilion (CC BY 2.0).",
        "",
    ]
    for name in names():
        parts += [f"### {name}", "", f"![Weights of {name} on two photographs](images/attention/{name}.png)", ""]
    return "\n".join(parts).rstrip()


def replace_section(page: str, text: str) -> str:
    """The page with the text in the place of what stands between the markers.

    Raises:
        SystemExit: The page has no such place.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has no section between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def photographs(side: int = 224) -> list[Image]:
    """Two photographs, cut to their middle square."""
    from PIL import Image as Pillow
    from sklearn.datasets import load_sample_image

    squares = []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        short = min(photo.shape[:2])
        top, left = (photo.shape[0] - short) // 2, (photo.shape[1] - short) // 2
        square = Pillow.fromarray(photo[top : top + short, left : left + short])
        squares.append(np.asarray(square.resize((side, side), Pillow.Resampling.BICUBIC)))
    return squares


def train(name: str, arguments: argparse.Namespace) -> Path:
    """Checkpoint of a net with the mechanism; what is trained already is not trained again."""
    folder = Path(arguments.runs) / name
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if not (folder / "done").exists():
        words = [
            f"--config={ROOT / 'configs' / 'ucf101_20.yaml'}",
            f"--data.root={arguments.root}",
            f"--data.splits={arguments.splits}",
            f"--data.cache_dir={arguments.cache}",
            f"--data.classes=[{','.join(CLASSES)}]",
            "--data.clip.num_frames=2",
            "--data.loader.batch_size=32",
            "--features.views=1",
            "--model.freeze=blocks.3",
            f"--model.attention={name}",
            f"--model.attention_at=[{STAGE}]",
            "--model.temporal=mean",
            "--model.dim=0",
            f"--trainer.max_epochs={arguments.epochs}",
            f"--trainer.default_root_dir={folder}",
            "--trainer.logger=false",
        ]
        if main(["fit", *words]) != 0:
            raise SystemExit(f"{folder}: the run failed; see above")
        (folder / "done").touch()
    return checkpoint


@torch.no_grad()
def picture(name: str, checkpoint: Path, frames: list[Image]) -> None:
    """Draw what a trained mechanism does with the photographs."""
    model = load_classifier(checkpoint).model
    seen: list[torch.Tensor] = []
    module = next(iter(model.backbone.net.frame_attention.children())).attention
    hook = module.register_forward_hook(lambda _m, inputs, output: seen.append(output - inputs[0]))
    video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    with record_attention(module) as maps:
        model.backbone.maps(video)
    hook.remove()
    rows: list[Row] = [frame_row(frames, ["china", "flower"])]
    rows += weight_rows(module, maps, frames)
    change = seen[0].square().mean(1).sqrt().double().numpy()
    rows.append(place_row("how much the map changes", frames, change))
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_sheet(name, card(find(name)).summary, rows).quantize(128).save(PICTURES / f"{name}.png", optimize=True)


def write() -> None:
    """Tables always, pictures where videos are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("root", "splits", "runs", "cache"):
        parser.add_argument(f"--{option}")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--names", nargs="+", help="draw only these")
    arguments = parser.parse_args()
    if arguments.root:
        frames = photographs()
        for name in arguments.names or names():
            picture(name, train(name, arguments), frames)
            print(PICTURES / f"{name}.png")
    PAGE.write_text(
        replace_section(PAGE.read_text(encoding="utf-8"), f"{table()}\n\n{gallery()}"), encoding="utf-8", newline="\n"
    )
    print(PAGE)


if __name__ == "__main__":
    write()
