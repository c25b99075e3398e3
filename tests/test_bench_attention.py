"""The attention benchmark: references that compute the same, rows that say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mechanisms import maps

from temporal_attn import cli
from temporal_attn.attention import CBAM, names
from temporal_attn.bench import attention
from temporal_attn.bench.attention_references import copy_weights, references
from temporal_attn.bench.results import Results
from temporal_attn.bench.roof import memory_roof
from temporal_attn.types import UserError

KEYS = {
    *("name", "mode", "reference", "reference_mode", "pass", "dtype", "layout", "shape", "scope"),
    *("ours_ms", "reference_ms", "ratio", "ratio_ci", "rounds", "flops", "params"),
}
OURS = [name for name in names() if references(name, 64)]


@pytest.fixture
def tiny_stages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "STAGES", ((2, 32, 8, 8), (2, 48, 6, 6), (2, 64, 4, 4), (2, 96, 2, 2)))
    monkeypatch.setattr(attention, "memory_roof", lambda block_bytes=2**20: memory_roof(block_bytes, rounds=1))


def measured(tmp_path: Path, **options: object) -> dict[str, object]:
    path = tmp_path / "bench.json"
    assert attention.bench_attention(json=str(path), rounds=2, net=False, **options) == 0  # type: ignore[arg-type]
    result: dict[str, object] = json.loads(path.read_text())
    return result


def test_every_mechanism_of_this_package_has_a_reference():
    from temporal_attn.attention.registry import _REGISTRY

    assert set(_REGISTRY) <= set(OURS)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OURS)
def test_references_compute_the_same(name: str, layout: torch.memory_format):
    torch.manual_seed(0)
    x = maps(2, 64, 9, 7).contiguous(memory_format=layout)
    for reference in references(name, 64):
        if reference.source == "torchvision" and name == "aspp":  # full width, the slowest by far
            continue
        with torch.no_grad():
            expected = reference.theirs(x)
            torch.testing.assert_close(reference.ours(x), expected, atol=1e-4, rtol=1e-4)
            assert (expected - x).abs().max() > 1e-2, "a reference that does nothing compares nothing"


@pytest.mark.parametrize("name", ["aspp", "cbam", "coord", "eca", "gc", "nonlocal", "se", "sk", "split"])
def test_what_a_library_has_is_compared_with_it(name: str):
    pytest.importorskip("timm")
    assert {reference.source for reference in references(name, 64)} & {"timm", "torchvision"}


def test_weights_of_another_module_are_refused():
    with pytest.raises(ValueError, match="CBAM"):
        copy_weights(CBAM(8, reduction=2), CBAM(8, reduction=4))


@pytest.mark.usefixtures("tiny_stages")
def test_rows_say_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = measured(tmp_path, names=["se"], modes=["eager"])
    assert result["schema"] == "temporal-attn/bench-attention/1"
    rows = result["rows"]
    assert isinstance(rows, list)
    assert all(set(row) == KEYS for row in rows)
    assert {row["reference"] for row in rows} == {"literal", "timm", "torchvision"}
    assert {row["pass"] for row in rows} == {"forward", "forward+backward"}
    stages = [row for row in rows if row["scope"] == "stage"]
    assert len(stages) == 3 * 4 * 2
    sums = [row for row in rows if row["scope"] == "sum"]
    assert len(sums) == 3 * 2
    assert sums[0]["shape"] == [list(shape) for shape in attention.STAGES]
    alone = [row for row in stages if (row["reference"], row["pass"]) == (sums[0]["reference"], sums[0]["pass"])]
    assert {key: sum(row[key] for row in alone) for key in ("flops", "params")} == {  # all four are in the sum
        key: sums[0][key] for key in ("flops", "params")
    }
    for row in rows:
        low, high = row["ratio_ci"]
        assert row["rounds"] == 2
        assert low <= row["ratio"] <= high
        assert row["ours_ms"] > 0
    first = stages[0]  # 32 channels, 2 hidden: weights and biases, and a multiply-add as two
    assert first["params"] == 2 * 32 * 2 + 2 + 32
    assert first["flops"] == 2 * 2 * (2 * 32 * 2)
    out, err = capsys.readouterr()
    assert "torchvision" in out
    assert "against timm" in err


@pytest.mark.usefixtures("tiny_stages")
def test_a_run_that_was_stopped_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = measured(tmp_path, names=["conv1x1"], modes=["eager"])
    both = measured(tmp_path, names=["conv1x1", "eca"], modes=["eager"])
    assert isinstance(first["rows"], list)
    assert isinstance(both["rows"], list)
    assert both["rows"][: len(first["rows"])] == first["rows"]
    assert {row["name"] for row in both["rows"][len(first["rows"]) :]} == {"eca"}
    assert "conv1x1: taken over" in capsys.readouterr().err
    anew = measured(tmp_path, names=["conv1x1"], modes=["eager"], seed=1)
    assert anew["parts"] == {"conv1x1": len(first["rows"])}
    assert anew["rows"] != first["rows"]


@pytest.mark.parametrize("left", ["", "{}", "[]", "no json", '{"schema": "other/1", "parts": {"a": 1}, "rows": [{}]}'])
def test_files_of_others_are_not_taken_over(tmp_path: Path, left: str):
    path = tmp_path / "bench.json"
    path.write_text(left)
    results = Results(str(path), "some/1", {"rounds": 2})
    results.complete("a", lambda: [{"name": "a"}])
    assert json.loads(path.read_text()) == {"schema": "some/1", "rounds": 2, "parts": {"a": 1}, "rows": [{"name": "a"}]}


@pytest.mark.usefixtures("tiny_stages")
def test_layers_are_measured_without_page_faults_of_freed_blocks(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(cli, "keep_large_blocks", lambda: asked.append("by the program"))
    monkeypatch.setattr(attention, "keep_large_blocks", lambda: asked.append("by the benchmark"))
    assert cli.main(["bench", "attention", "--names", "[sebam]"]) == 2
    assert not asked
    assert cli.main(["demo", "--help"]) == 0
    attention.bench_attention(names=["eca"], modes=["eager"], rounds=1)
    assert asked == ["by the program", "by the benchmark"]


@pytest.mark.usefixtures("tiny_stages")
def test_what_was_measured_outlives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "_net_rows", lambda *_: 1 / 0)
    path = tmp_path / "bench.json"
    with pytest.raises(ZeroDivisionError):
        attention.bench_attention(json=str(path), names=["cbam"], modes=["eager"], rounds=1)
    assert list(json.loads(path.read_text())["parts"]) == ["cbam"]


def test_all_stages_are_one_module_with_a_map_each():
    maps_of_stages = [maps(2, 32, 8, 8), maps(2, 64, 4, 4)]
    found = [references("cbam", x.shape[1])[0] for x in maps_of_stages]
    ours, theirs = (attention._Stages([getattr(reference, who) for reference in found]) for who in ("ours", "theirs"))
    with torch.no_grad():
        got, expected = ours(*maps_of_stages), theirs(*maps_of_stages)
        assert [tuple(y.shape) for y in got] == [tuple(x.shape) for x in maps_of_stages]
        for y, same, reference, x in zip(got, expected, found, maps_of_stages, strict=True):
            torch.testing.assert_close(y, reference.ours(x))
            torch.testing.assert_close(y, same, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="zip"):
        ours(maps_of_stages[0])


@pytest.mark.usefixtures("tiny_stages")
def test_without_a_compiler_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "cpp_compiler", lambda: None)
    result = measured(tmp_path, names=["conv1x1"])
    assert result["skipped"] == [{"mode": "compiled", "reason": "no C++ compiler found: install g++, or set CXX"}]
    rows = result["rows"]
    assert isinstance(rows, list)
    assert {row["mode"] for row in rows} == {"eager"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ["sebam"]}, "names: sebam"),
        ({"modes": ["fast"]}, "modes: fast"),
        ({"rounds": 0}, "rounds: 0"),
        ({"seconds": 0.0}, "seconds: 0"),
    ],
)
def test_wrong_use_is_named(options: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        attention.bench_attention(**options)  # type: ignore[arg-type]


def test_a_reference_that_differs_is_not_measured():
    reference = references("se", 32)[0]
    with torch.no_grad():
        reference.theirs.get_parameter("weights.logits.mlp.up.bias").add_(0)  # shared with ours: still equal
    attention._check_equal("se", reference, maps(1, 32, 4, 4))
    other = reference._replace(theirs=references("eca", 32)[0].theirs)
    with pytest.raises(RuntimeError, match="se does not compute"):
        attention._check_equal("se", other, maps(1, 32, 4, 4))
