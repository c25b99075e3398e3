"""`temporal-attn bench attention`: what each mechanism costs beside timm, torchvision and the paper's equations.

The same weights and the same maps go through ours and the reference, in turns. Maps are those of the four stages of
ResNet-50 for 8 frames of 224² where a mechanism goes into every stage, and those of the third stage where it does not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from temporal_attn.allocator import keep_large_blocks
from temporal_attn.attention import insert_attention
from temporal_attn.attention import names as known_mechanisms
from temporal_attn.bench.attention_references import Reference, references
from temporal_attn.bench.results import Results, check_writable
from temporal_attn.bench.roof import memory_roof
from temporal_attn.bench.timing import Times, cpp_compiler, interleave, machine, ratio
from temporal_attn.types import UserError

__all__ = ["bench_attention"]

SCHEMA = "temporal-attn/bench-attention/1"
MODES = ("eager", "compiled")
STAGES = ((8, 256, 56, 56), (8, 512, 28, 28), (8, 1024, 14, 14), (8, 2048, 7, 7))
IMAGES = (8, 3, 224, 224)

_EVERY_STAGE = {"bam", "cbam", "cbam_spatial", "channel_gate", "conv1x1", "coord", "eca", "gc", "scse", "se"}
_NARROW = {"torchvision aspp": (8, 256, 14, 14)}  # at full width its convolutions cost as much as a whole net


class _Effort(NamedTuple):
    """How long a comparison is measured: rounds at most, seconds after which none begins; and the seed of its turns."""

    rounds: int
    seconds: float
    seed: int


class _Pair(NamedTuple):
    """One comparison, timed: what a row says of it, and milliseconds of both in each round."""

    row: dict[str, Any]
    ours: Times
    theirs: Times


def bench_attention(
    json: str | None = None,
    names: list[str] | None = None,
    modes: list[str] | None = None,
    rounds: int = 20,
    seconds: float = 3.0,
    net: bool = True,
    seed: int = 0,
) -> int:
    """Measure attention mechanisms against timm, torchvision and the papers' equations, one thread each.

    The table goes to stdout, progress to stderr. Without a C++ compiler nothing can be compiled for a CPU; those rows
    are left out, and the JSON says why.

    Args:
        json: File for the results, as JSON. It is written after each mechanism, and what it holds from a run with the
            same settings is not measured again.
        names: Mechanisms; null takes all.
        modes: ``eager``, ``compiled``; null takes both. Compiled are the mechanisms that a library has too, CBAM at
            all stages and the others at one, because each takes the compiler some seconds.
        rounds: How often each pair is measured at most.
        seconds: Wall-clock time after which a pair gets no further round, once it has five.
        net: Whether to measure ResNet-50 with CBAM in every block against the net without it.
        seed: Of weights, maps, the order of turns and the bootstrap.

    Returns:
        Exit status 0.

    Raises:
        UserError: A name, a mode, rounds or seconds is wrong, or the JSON file cannot be written.
    """
    if rounds < 1:
        raise UserError(f"rounds: {rounds}; give a positive number")
    if not seconds > 0:
        raise UserError(f"seconds: {seconds:g}; give a positive number")
    chosen, modes = _chosen("names", names, known_mechanisms()), _chosen("modes", modes, MODES)
    if json is not None:
        check_writable(json)
    skipped = []
    if "compiled" in modes and cpp_compiler() is None:
        modes.remove("compiled")
        skipped.append({"mode": "compiled", "reason": "no C++ compiler found: install g++, or set CXX"})
    effort = _Effort(rounds, seconds, seed)
    described = machine("torch", "torchvision", "timm", "numpy")
    settings = {"machine": described, "threads": 1, "modes": modes, "skipped": skipped, **effort._asdict()}
    results = Results(json, SCHEMA, settings)
    # Or else page faults are measured: whether a freed block costs them again depends on all that was allocated before.
    keep_large_blocks()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # CPU time of several threads holds their waiting for each other
    try:
        for name in chosen:
            results.complete(name, partial(_mechanism_rows, name, modes, effort))
        if net and "cbam" in chosen:
            results.complete("net", partial(_net_rows, modes, effort))
        results.write(roofs=[memory_roof(), memory_roof(block_bytes=4 * int(np.prod(STAGES[0])))])
    finally:
        torch.set_num_threads(threads)
    _print_table(results.rows)
    for entry in skipped:
        print(f"{entry['mode']} left out: {entry['reason']}", file=sys.stderr)
    return 0


def _chosen(argument: str, wanted: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise UserError(f"{argument}: {', '.join(unknown)} not known; choose from: {', '.join(known)}")
    return list(known if wanted is None else wanted)


class _Stages(nn.Module):
    """Modules that each have a map of their own, as the stages of a net have; compiled, they are one graph as there."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(modules)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return [stage(x) for stage, x in zip(self.stages, maps, strict=True)]


def _mechanism_rows(name: str, modes: Sequence[str], effort: _Effort) -> Iterator[dict[str, Any]]:
    """Rows of one mechanism: each of its references at each stage, and at all four."""
    torch.manual_seed(effort.seed)
    stages = STAGES if name in _EVERY_STAGE else STAGES[2:3]
    sources = [reference.source for reference in references(name, STAGES[0][1])]
    for place, source in enumerate(sources):
        narrow = _NARROW.get(f"{source} {name}")
        shapes = stages if narrow is None else (narrow,)
        found = [references(name, shape[1])[place] for shape in shapes]
        maps = [torch.randn(shape).contiguous(memory_format=torch.channels_last) for shape in shapes]
        for reference, x in zip(found, maps, strict=True):
            print(f"{name} against {source}, {tuple(x.shape)}", file=sys.stderr)
            _check_equal(name, reference, x)
            yield from _rows(name, [reference], [x], modes, effort)
        if len(shapes) > 1:
            print(f"{name} against {source}, all stages", file=sys.stderr)
            yield from _rows(name, found, maps, modes, effort)


def _rows(
    name: str, found: Sequence[Reference], maps: Sequence[Tensor], modes: Sequence[str], effort: _Effort
) -> Iterator[dict[str, Any]]:
    """Rows of one stage, or of all of them one after the other."""
    source = found[0].source
    ours, theirs = (_Stages([getattr(reference, who) for reference in found]) for who in ("ours", "theirs"))
    row = _row(name, source, ours, maps)
    row |= {"scope": "stage", "shape": row["shape"][0]} if len(maps) == 1 else {"scope": "sum"}
    middle = [tuple(x.shape) for x in maps] in ([STAGES[2]], *([narrow] for narrow in _NARROW.values()))
    has_twin = source != "literal"
    shown = [mode for mode in modes if mode == "eager" or (has_twin and (middle or name == "cbam"))]
    for pair in _timed(row, ours, theirs, maps, shown, effort):
        yield _finished(pair, effort.seed)
    for mode in modes:
        if mode == "eager" or (has_twin and middle):
            yield _finished(_timed_training(row, ours, theirs, maps, mode, effort), effort.seed)


def _timed(
    row: dict[str, Any],
    ours: nn.Module,
    theirs: nn.Module,
    maps: Sequence[Tensor],
    modes: Sequence[str],
    effort: _Effort,
) -> Iterator[_Pair]:
    """Forward passes of both in each mode, all in turns; compiled ours also stands against the eager reference."""
    calls: dict[str, Callable[[], object]] = {}
    for mode in modes:
        for who, module in (("ours", ours), ("theirs", theirs)):
            calls[f"{who} {mode}"] = partial(_in_mode(mode, module), *maps)
    torch.compiler.reset()  # code of the shapes before would count against the limit of recompilations
    times = interleave(calls, effort.rounds, effort.seed, torch.no_grad(), effort.seconds)
    for mode in modes:
        for other in modes:
            if (mode, other) != ("eager", "compiled"):
                kind = {"mode": mode, "reference_mode": other, "pass": "forward"}
                yield _Pair(row | kind, times[f"ours {mode}"], times[f"theirs {other}"])


def _timed_training(
    row: dict[str, Any], ours: _Stages, theirs: _Stages, maps: Sequence[Tensor], mode: str, effort: _Effort
) -> _Pair:
    leaves = [x.clone().requires_grad_() for x in maps]
    upstream = [torch.randn_like(x) for x in maps]

    def step(module: nn.Module, call: Callable[..., list[Tensor]]) -> None:
        torch.autograd.backward(call(*leaves), upstream)
        for leaf in leaves:
            leaf.grad = None
        module.zero_grad()

    torch.compiler.reset()
    calls = {who: partial(step, module, _in_mode(mode, module)) for who, module in (("ours", ours), ("theirs", theirs))}
    times = interleave(calls, effort.rounds, effort.seed, torch.enable_grad(), effort.seconds)
    kind = {"mode": mode, "reference_mode": mode, "pass": "forward+backward"}
    return _Pair(row | kind, times["ours"], times["theirs"])


def _in_mode(mode: str, module: nn.Module) -> Callable[..., Any]:
    return torch.compile(module, dynamic=False) if mode == "compiled" else module


def _net_rows(modes: Sequence[str], effort: _Effort) -> Iterator[dict[str, Any]]:
    """ResNet-50 with CBAM in every block, where the paper puts it, against the net without it."""
    from timm import create_model

    print("ResNet-50 with cbam in every block against ResNet-50", file=sys.stderr)
    torch.manual_seed(effort.seed)
    plain = create_model("resnet50").eval()
    attended = create_model("resnet50")
    attended.load_state_dict(plain.state_dict())
    insert_attention(attended, "cbam", at="norm", gate="sigmoid").eval()
    plain, attended = (net.to(memory_format=torch.channels_last) for net in (plain, attended))
    x = torch.randn(IMAGES).contiguous(memory_format=torch.channels_last)
    row = _row("cbam", "resnet50", attended, [x]) | {"scope": "net", "shape": list(x.shape)}
    for mode in modes:  # in one mode at a time: eager against compiled would compare the convolutions
        for pair in _timed(row, attended, plain, [x], [mode], effort):
            yield _finished(pair, effort.seed)


def _row(name: str, source: str, module: nn.Module, maps: Sequence[Tensor]) -> dict[str, Any]:
    """What a row says of who is compared; flops count matrix products and convolutions, a multiply-add as two."""
    counter = FlopCounterMode(display=False)
    # Fused attention on a CPU is not counted; in the plain form its two matrix products are.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(*maps)
    return {
        "name": name,
        "reference": source,
        "dtype": str(maps[0].dtype).removeprefix("torch."),
        "layout": "channels_last",
        "shape": [list(x.shape) for x in maps],
        "flops": counter.get_total_flops(),
        "params": sum(parameter.numel() for parameter in module.parameters()),
    }


def _finished(pair: _Pair, seed: int) -> dict[str, Any]:
    value, low, high = ratio(pair.ours, pair.theirs, seed)
    figures = {"ours_ms": float(np.median(pair.ours)), "reference_ms": float(np.median(pair.theirs))}
    return pair.row | figures | {"ratio": value, "ratio_ci": [low, high], "rounds": len(pair.ours)}


@torch.no_grad()
def _check_equal(name: str, reference: Reference, x: Tensor) -> None:
    ours, theirs = reference.ours(x), reference.theirs(x)
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    if error > 1e-3:
        raise RuntimeError(f"{name} does not compute what its {reference.source} reference does: {error:.1e} apart")


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="CPU milliseconds, channels_last float32, paired; ratio below 1: ours takes less")
    for name in ("name", "scope", "shape", "pass", "ours", "reference"):
        table.add_column(name)
    for name in ("ours ms", "ref. ms", "ratio", "95 %"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = row["ratio_ci"]
        table.add_row(
            row["name"],
            row["scope"],
            "4 stages" if row["scope"] == "sum" else "×".join(map(str, row["shape"])),
            row["pass"],
            row["mode"],
            f"{row['reference']} {row['reference_mode']}",
            f"{row['ours_ms']:.2f}",
            f"{row['reference_ms']:.2f}",
            f"{row['ratio']:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
    Console(width=140 if not sys.stdout.isatty() else None).print(table)
