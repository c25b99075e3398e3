"""The spatial transformer's classic experiment: digits turned, shifted and scaled at random, read with and without it.

After Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015, section 4.1. The same small network is trained on
the same digits for the same number of steps, once as it is and once behind a spatial transformer that nobody tells
where a digit is. Digits are scikit-learn's (1797 of 8×8 pixels), or MNIST's where its files are on disk. They are split
before they are distorted, so that no digit is in both parts, and intervals are over test digits.

python scripts/stn_digits.py --out runs/stn_digits.png
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from temporal_attn.attention import SpatialTransformer, attention_maps
from temporal_attn.evaluation import bootstrap_over_groups
from temporal_attn.output import writable_folder
from temporal_attn.types import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

CANVAS = 28
"""Side in pixels of what the networks see."""
DIGIT = 14
"""Side in pixels that a digit has on the canvas at scale 1."""
ANGLE, SCALES = math.pi / 4, (0.7, 1.2)  # as in the paper's set with rotation, scale and translation
POSES = 4
"""How often each test digit is put on a canvas."""
MNIST_DIGITS = (6000, 2000)
"""Digits of MNIST for training and test: all 70,000 would take an hour and leave nothing to gain."""

CELL, STEP, LEFT, FINE = 92, 102, 214, 2
"""Side of a cell, from cell to cell and width of the row labels, in pixels, and how many times finer it is drawn."""
INK, PALE, FRAME, WRONG, PAPER = "#1d2433", "#6b7280", "#ff9f1c", "#c1121f", "#ffffff"


class Digits(NamedTuple):
    """Images (N, 1, h, w) in [0, 1], cropped to the digit, and labels (N,)."""

    images: Tensor
    labels: Tensor


class Run(NamedTuple):
    """A trained network and which test canvases it read correctly."""

    net: nn.Module
    right: Tensor


def bundled_digits() -> tuple[Digits, Digits]:
    """Three quarters of scikit-learn's digits for training, the others for the test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the bundled digits come with scikit-learn: pip install scikit-learn, or give the folder of MNIST (--mnist)"
        ) from None
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 16
    labels = torch.from_numpy(bunch.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, train = order.split([450, len(order) - 450])
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def mnist_digits(root: Path) -> tuple[Digits, Digits]:
    """The first digits of each part of MNIST, from the files that torchvision keeps."""
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(str(root), train=train) for train in (True, False)]
    except RuntimeError:
        raise UserError(
            f"--mnist {root}: MNIST is not there; the folder must hold MNIST/raw as torchvision.datasets.MNIST makes it"
        ) from None
    train, test = (
        Digits(part.data[:count, None, 4:24, 4:24].float() / 255, part.targets[:count])
        for part, count in zip(parts, MNIST_DIGITS, strict=True)
    )
    return train, test


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Digits on canvases (N, 1, 28, 28), each turned by up to 45° either way, scaled and shifted within the canvas."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    angle, size = uniform(-ANGLE, ANGLE, count), uniform(*SCALES, count) * DIGIT / CANVAS
    centre = uniform(-1, 1, count, 2) * (1 - size)[:, None]
    cos, sin = angle.cos() / size, angle.sin() / size
    turn = torch.stack((cos, sin, -sin, cos), dim=1).view(count, 2, 2)
    theta = torch.cat((turn, -turn @ centre[:, :, None]), dim=2)
    grid = nn.functional.affine_grid(theta, [count, 1, CANVAS, CANVAS], align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def test_canvases(digits: Digits) -> Tensor:
    """Every digit in `POSES` poses, pose after pose: the same for every network and seed."""
    generator = torch.Generator().manual_seed(1)
    return torch.cat([distort(digits.images, generator) for _ in range(POSES)])


def reader() -> nn.Sequential:
    """The network that reads canvases (B, 1, 28, 28): two convolutions, two linear layers, 10 logits."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * (CANVAS // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def train(with_stn: bool, seed: int, digits: Digits, test: Digits, epochs: int) -> Run:
    """One network from the seed's initial weights on the seed's canvases, anew in every epoch."""
    torch.manual_seed(seed)
    net = reader()
    groups = [{"params": list(net.parameters()), "lr": 2e-3}]
    if with_stn:
        stn = SpatialTransformer(1, transform="similarity", padding="zeros")
        groups.append({"params": list(stn.parameters()), "lr": 6e-4})
        net.insert(0, stn)
    optimiser = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(digits.labels) / 64)
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.labels), generator=generator).split(64):
            logits = net(distort(digits.images[batch], generator))
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits, digits.labels[batch]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        answers = net.eval()(test_canvases(test)).argmax(1)
    return Run(net, answers == test.labels.repeat(POSES))


def accuracy(share: Tensor) -> str:
    """Mean of a share of correct answers (or of a difference) and its interval over test digits, in percent."""
    groups = [str(i) for i in range(len(share) // POSES)] * POSES
    low, high = bootstrap_over_groups(share.tolist(), groups)
    return f"{100 * share.mean().item():.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def quadrilateral(theta: Tensor, side: float) -> list[tuple[float, float]]:
    """Where the output's corners are taken from, in pixels of an input drawn `side` wide; clockwise from top left."""
    corners = torch.tensor([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], dtype=theta.dtype)
    return [(x, y) for x, y in ((corners @ theta.T + 1) * side / 2).tolist()]


def cell(image: Tensor) -> Image.Image:
    """An image (28, 28) in [0, 1] as a picture, light on dark."""
    from PIL import Image

    grey = Image.fromarray((image.clamp(0, 1) * 255).byte().numpy())
    return grey.resize((CELL * FINE, CELL * FINE), Image.Resampling.BICUBIC).convert("RGB")


def framed(image: Tensor, theta: Tensor) -> Image.Image:
    """The same with the frame that becomes the output; its top side is thick."""
    from PIL import ImageDraw

    picture = cell(image)
    corners = quadrilateral(theta, CELL * FINE)
    draw = ImageDraw.Draw(picture)
    draw.line([*corners, corners[0]], fill=FRAME, width=FINE, joint="curve")
    draw.line(corners[:2], fill=FRAME, width=4 * FINE)
    return picture


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own type face, so that the picture is the same everywhere."""
    from PIL import ImageFont

    return ImageFont.load_default(size * FINE)


class Row(NamedTuple):
    """A row of the picture: its name, a cell for each class, and what the two networks said below each cell."""

    name: str
    cells: list[Image.Image]
    said: list[tuple[int, int]]


@torch.no_grad()
def rows(without: Run, behind: Run, test: Digits) -> list[Row]:
    """The first test digit of every class in two poses, how it was straightened, and means over all of its class."""
    inputs, labels = test_canvases(test), test.labels.repeat(POSES)
    theta = attention_maps(behind.net, inputs)["0.localisation"]
    outputs = behind.net[0](inputs)
    said = [net(inputs).argmax(1).tolist() for net in (without.net, behind.net)]
    found = []
    for pose, name in enumerate(
        ("a digit, and the frame that\nthe transformer puts on it", "the same digit otherwise")
    ):
        shown = [int((test.labels == digit).nonzero()[0]) + pose * len(test.labels) for digit in range(10)]
        found.append(Row(name, [framed(inputs[i, 0], theta[i]) for i in shown], []))
        answers = [(said[0][i], said[1][i]) for i in shown]
        found.append(Row("what it hands on:\nwhat is in that frame", [cell(outputs[i, 0]) for i in shown], answers))
    for name, maps in (("mean of all test inputs", inputs), ("mean of all that it hands on", outputs)):
        means = torch.stack([maps[labels == digit, 0].mean(0) for digit in range(10)])
        found.append(Row(name, [cell(mean / means.max()) for mean in means], []))
    return found


def picture(found: Sequence[Row], heading: str, note: str) -> Image.Image:
    """All rows on one sheet; a wrong answer is red."""
    from PIL import Image, ImageDraw

    below = [20 if row.said else 0 for row in found]
    width, height = LEFT + 10 * STEP, 88 + len(found) * STEP + sum(below) + 6
    sheet = Image.new("RGB", (width * FINE, height * FINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((12 * FINE, 12 * FINE), heading, fill=INK, font=font(22))
    draw.text((12 * FINE, 46 * FINE), note, fill=PALE, font=font(14))
    top = 84
    for row, extra in zip(found, below, strict=True):
        middle = (top + CELL / 2) * FINE
        draw.multiline_text((12 * FINE, middle), row.name, fill=INK, font=font(14), anchor="lm", spacing=4 * FINE)
        for digit, content in enumerate(row.cells):
            sheet.paste(content, ((LEFT + digit * STEP) * FINE, top * FINE))
        if row.said:
            baseline = (top + CELL + 13) * FINE
            draw.text((12 * FINE, baseline), "read without · with", fill=PALE, font=font(14), anchor="lm")
        for digit, answers in enumerate(row.said):
            for answer, offset, anchor in zip(answers, (-8, 8), ("rm", "lm"), strict=True):
                place = ((LEFT + digit * STEP + CELL / 2 + offset) * FINE, (top + CELL + 13) * FINE)
                draw.text(place, str(answer), fill=INK if answer == digit else WRONG, font=font(15), anchor=anchor)
        top += STEP + extra
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


def main(words: Sequence[str] | None = None) -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder that holds MNIST/raw (default: data, where it does)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("stn_digits.png"), help="the picture, a PNG file")
    arguments = parser.parse_args(words)
    try:
        experiment(arguments.mnist, arguments.seeds, arguments.epochs, arguments.out)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def experiment(mnist: Path | None, seeds: Sequence[int], epochs: int, out: Path) -> None:
    """Both networks for every seed; their accuracies go to stdout, progress to stderr, the picture to a file."""
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the picture is a PNG; give a name that ends in .png")
    if epochs < 1:
        raise UserError(f"--epochs {epochs}: at least one is needed")
    writable_folder(out.parent, "--out")
    if mnist is None and Path("data/MNIST/raw").is_dir():
        mnist = Path("data")
    training, test = bundled_digits() if mnist is None else mnist_digits(mnist)
    source = "scikit-learn's digits" if mnist is None else "MNIST"
    runs: dict[bool, list[Run]] = {False: [], True: []}
    for seed in seeds:
        for with_stn in (False, True):
            runs[with_stn].append(train(with_stn, seed, training, test, epochs))
            share = runs[with_stn][-1].right.float().mean().item()
            print(f"seed {seed}, {'with' if with_stn else 'without'}: {100 * share:.1f} %", file=sys.stderr)
    plain, behind = (torch.stack([run.right.float() for run in runs[which]]).mean(0) for which in (False, True))
    sizes = [sum(p.numel() for p in runs[which][0].net.parameters()) for which in (False, True)]
    print(f"{source}: {len(training.labels)} to train on, {len(test.labels)} in {POSES} poses each to test")
    print(f"{len(seeds)} seeds of {epochs} epochs")
    print(f"without spatial transformer ({sizes[0]:,} parameters): {accuracy(plain)}")
    print(f"with spatial transformer ({sizes[1]:,} parameters): {accuracy(behind)}")
    print(f"gain: {accuracy(behind - plain)}, in points")
    heading = (
        f"Turned, shifted and scaled digits: {100 * plain.mean().item():.1f} % are read right without, "
        f"{100 * behind.mean().item():.1f} % with a spatial transformer"
    )
    note = (
        "The transformer was never told where a digit is, how large or how it is turned: it learned frames that make "
        "digits easy to read. A frame's thick side becomes the top."
    )
    picture(rows(runs[False][0], runs[True][0], test), heading, note).save(out)
    print(out)


if __name__ == "__main__":
    main()
