"""The program ``temporal-attn``: fit, validate, test, predict by LightningCLI, and the commands of this package.

Exit status: 0 done, 1 found or failed as reported, 2 wrong use, 130 interrupted, 141 nobody reads stdout any longer,
143 terminated.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import signature
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from temporal_attn.allocator import keep_large_blocks
from temporal_attn.types import UserError, VideoError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["main"]

_LIGHTNING = {
    "fit": "train a classifier; writes checkpoints/best.ckpt and last.ckpt",
    "validate": "evaluate on the validation part",
    "test": "evaluate on the test part; writes metrics.json and result.html",
    "predict": "classify files; writes predictions.jsonl",
}


class _Command(NamedTuple):
    """A function that is a command.

    Args:
        module: Where the function lives.
        function: Its name; it takes the options as arguments and returns the exit status.
        help: One line.
        positional: The argument that is given without its name; one that ends in "s" takes several words.
        words: What the positional stands for.
        takes_settings: Whether words such as ``--data.root ROOT``, as `fit` knows them, are its argument ``options``.
    """

    module: str
    function: str
    help: str
    positional: str | None = None
    words: str = ""
    takes_settings: bool = False


_COMMANDS = {
    "inspect": _Command(
        "temporal_attn.keyframes",
        "inspect_videos",
        "say which frames decided; writes scores.json and report.html",
        "videos",
        "files, folders or globs",
    ),
    "show-attention": _Command(
        "temporal_attn.show_attention",
        "show_attention",
        "draw channel weights, places and frame weights over the frames of a video; writes a PNG",
        "video",
        "the file",
    ),
    "serve": _Command("temporal_attn.serve", "serve", "ask in a browser which frames decided; needs the extra serve"),
    "compare": _Command(
        "temporal_attn.evaluation.compare",
        "compare_runs",
        "say whether one of two tested runs is better, video by video",
        "runs",
        "folders of two runs that `test` has written into",
    ),
    "crossval": _Command(
        "temporal_attn.crossval",
        "crossval",
        "train and test on every fold; writes crossval.json",
    ),
    "demo": _Command("temporal_attn.demo", "run_demo", "everything on the embedded data set, in some minutes"),
    "doctor": _Command(
        "datamodules.doctor",
        "run_doctor",
        "say what is wrong with a data set: damage, duplicates, leaks between splits",
        "root",
        "the folder that holds the videos",
    ),
    "cache frames": _Command(
        "temporal_attn.caching",
        "cache_frames",
        "decode videos once; training reads small frames from there",
        "videos",
        "files, folders or globs",
    ),
    "cache features": _Command(
        "temporal_attn.caching",
        "cache_features",
        "compute once what the frozen part of the backbone makes of each video",
        takes_settings=True,
    ),
    "tune": _Command(
        "temporal_attn.tuning",
        "tune",
        "search the settings of an experiment; writes best.yaml for fit; needs the extra tune",
    ),
    "bench loader": _Command(
        "temporal_attn.bench.loader",
        "bench_loader",
        "where the time of a training step goes, and what each change gains",
        takes_settings=True,
    ),
    "bench decode": _Command(
        "temporal_attn.bench.decode",
        "bench_decode",
        "readers of video: CPU time by kind of file, and whether the frames are the right ones",
    ),
    "bench keyframes": _Command(
        "temporal_attn.bench.keyframes",
        "bench_keyframes",
        "frame scores beside random, uniform, motion, centre and greedy ones, on known and on real key frames",
    ),
    "bench attention": _Command(
        "temporal_attn.bench.attention",
        "bench_attention",
        "attention mechanisms beside timm, torchvision and the papers' equations",
    ),
    "bench training": _Command(
        "temporal_attn.bench.training",
        "bench_training",
        "temporal models one factor at a time, Lightning's overhead, and what the order of frames is worth",
    ),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: Words after the program's name; None takes them from the command line.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if args is None else args)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without a letter of a name costs that letter only
    # Lightning 2.6 asks torch in a way that torch is about to give up; nobody who types a command can change it.
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    if words[:1] != ["bench"]:  # each benchmark decides for itself what it measures under
        keep_large_blocks()
    try:
        status = _run(words or ["--help"])
        sys.stdout.flush()  # not left to the end of the interpreter, where what it raises cannot be caught
    except BrokenPipeError:  # whoever reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _run(words: list[str]) -> int:
    try:
        _check_datamodules()
        if words[0] in _LIGHTNING:
            return _run_lightning(words)
        for length in (2, 1):  # a command of two words has options of its own
            if " ".join(words[:length]) in _COMMANDS:
                return _run_command(" ".join(words[:length]), words[length:])
        return _usage(words[0], words[1:])
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning makes a plain failure of it
            return _fail("interrupted", 130)
        # The parsers end the program after --help and after a usage error.
        return stop.code if isinstance(stop.code, int) else 2 if stop.code else 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except UserError as error:
        return _fail(str(error), 2)
    except VideoError as error:
        return _fail(str(error), 1)


def _fail(message: str, status: int) -> int:
    print(f"temporal-attn: error: {message}", file=sys.stderr)
    return status


def _usage(command: str, rest: list[str]) -> int:
    every = {**_LIGHTNING, **{name: known.help for name, known in _COMMANDS.items()}}
    if command in ("--version", "-V"):
        from temporal_attn import __version__

        print(f"temporal-attn {__version__}")
        return 0
    suites = {name: text for name, text in every.items() if name.startswith(f"{command} ")}
    if suites and rest and rest[0] not in ("--help", "-h"):
        return _fail(f"'{command} {rest[0]}' is not a command; choose one of: {', '.join(suites)}", 2)
    if not suites and command not in ("--help", "-h"):
        return _fail(f"{command!r} is not a command; choose one of: {', '.join(every)}", 2)
    shown = suites or every
    print(f"usage: temporal-attn {f'{command} ' if suites else ''}COMMAND [options]\n")
    print("Train video classifiers with attention, and see which frames decided.\n")
    for name, text in shown.items():
        print(f"  {name:<{max(map(len, shown))}}  {text}")
    print("\n`temporal-attn COMMAND --help` shows the options of a command.")
    return 0


def _check_datamodules() -> None:
    """`datamodules` is a common folder name: make sure that the one found is ours."""
    import datamodules

    found = Path(datamodules.__file__ or "").resolve().parent
    if found.parent != Path(__file__).resolve().parents[1]:
        raise UserError(
            f"another package named 'datamodules' is in the way: {found}; run from a folder without it, or use the "
            "temporal-attn program instead of python -m"
        )


def _run_command(name: str, words: list[str]) -> int:
    command = _COMMANDS[name]
    from jsonargparse import ArgumentParser

    run: Callable[..., int] = getattr(import_module(command.module), command.function)
    parser: ArgumentParser = ArgumentParser(prog=f"temporal-attn {name}", description=command.help)
    positional = command.positional
    if positional:
        metavar = positional.rstrip("s").upper()
        several: dict[str, Any] = {"nargs": "+"} if positional.endswith("s") else {}
        parser.add_argument(positional, metavar=metavar, help=command.words, **several)
    more: dict[str, Any] = {}
    if command.takes_settings:
        words, more["options"] = _split_settings(words)
    # Required arguments of a function would become positional; the commands name all but their inputs.
    parser.add_function_arguments(run, as_positional=False, skip={*more, *([positional] if positional else ())})
    config: Any = parser.parse_args(_lists_together(_flags_with_values(words, run), run))
    return run(**config.as_dict(), **more)


def _split_settings(words: list[str]) -> tuple[list[str], list[str]]:
    """A command's own words, and those that set something of the experiment: options with a dot in their names."""
    own: list[str] = []
    settings: list[str] = []
    taken = own
    for word in words:
        if word.startswith("--"):
            taken = settings if "." in word.partition("=")[0] else own
        taken.append(word)
    return own, settings


def _flags_with_values(words: list[str], run: Callable[..., int]) -> list[str]:
    """A switch that stands alone is true: ``--strict`` means ``--strict=true``, which is what the parser wants."""
    switches = {
        f"--{name}" for name, known in signature(run, eval_str=True).parameters.items() if known.annotation is bool
    }
    alone = [
        word in switches and (after.startswith("-") or not after)
        for word, after in zip_longest(words, words[1:], fillvalue="")
    ]
    return [f"{word}=true" if is_alone else word for word, is_alone in zip(words, alone, strict=True)]


def _lists_together(words: list[str], run: Callable[..., int]) -> list[str]:
    """An option that takes a list may be given several times: ``--config A --config B`` means ``--config=[A, B]``.

    With a ``+`` behind its name it always could.
    """
    known = signature(run, eval_str=True).parameters.items()
    lists = {f"--{name}" for name, own in known if get_args(own.annotation) and list[str] in get_args(own.annotation)}
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    pending = iter(words)
    for word in pending:
        name, is_joined, value = word.partition("=")
        if name.removesuffix("+") in lists:
            values.setdefault(name.removesuffix("+"), []).append(value if is_joined else next(pending, ""))
        else:
            rest.append(word)
    return [*rest, *(f"{name}={_joined(own)}" for name, own in values.items())]


def _joined(values: list[str]) -> str:
    """One value as it stands; several, each of which may be a list by itself, as one list."""
    if len(values) == 1:
        return values[0]
    import yaml  # type: ignore[import-untyped]

    each = [yaml.safe_load(value) if value.startswith("[") else [value] for value in values]
    return json.dumps([one for own in each for one in own])


def _run_lightning(words: list[str]) -> int:
    from temporal_attn.lightning_cli import run

    return run(words)
