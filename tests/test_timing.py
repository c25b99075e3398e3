"""Timing of contestants in turns, and what is said of their ratio."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from temporal_attn.bench import results, timing
from temporal_attn.bench.roof import memory_roof
from temporal_attn.types import UserError


def calls_of(rounds: int, seed: int) -> list[str]:
    seen: list[str] = []
    timing.interleave({name: lambda name=name: seen.append(name) for name in "abc"}, rounds, seed)  # type: ignore[misc]
    return seen


def test_each_round_calls_all_once_in_a_drawn_order():
    seen = calls_of(rounds=20, seed=0)
    turns = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert len(turns) == 21  # one to warm up
    assert all(Counter(turn) == Counter("abc") for turn in turns)
    assert len(set(turns)) > 1
    assert seen == calls_of(rounds=20, seed=0)
    assert seen != calls_of(rounds=20, seed=1)


def test_time_ends_the_rounds_but_not_before_there_are_five():
    for seconds, rounds in ((1e-9, 5), (60.0, 8)):
        times = timing.interleave({"a": lambda: None, "b": lambda: None}, 8, 0, seconds=seconds)
        assert {name: len(spent) for name, spent in times.items()} == {"a": rounds, "b": rounds}


def test_work_counts_and_sleep_does_not():
    def work() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    times = timing.interleave({"work": work, "sleep": lambda: time.sleep(0.02)}, rounds=3, seed=0)
    assert (times["work"] >= 20).all()  # milliseconds
    assert (times["sleep"] < times["work"]).all()


def test_context_holds_for_every_call():
    enabled: list[bool] = []
    timing.interleave({"a": lambda: enabled.append(torch.is_grad_enabled())}, 2, 0, torch.no_grad())
    assert enabled == [False] * 3


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.floats(0.1, 10))
def test_ratio_of_exact_pairs_is_certain(others: list[float], factor: float):
    found = timing.ratio(factor * np.array(others), np.array(others), seed=0)
    np.testing.assert_allclose(found, factor)


def test_pairs_cancel_what_both_suffer():
    rng = np.random.default_rng(0)
    load = rng.uniform(1, 10, 200)  # the same for both in a round
    found = timing.ratio(2 * load * rng.uniform(0.99, 1.01, 200), load, seed=0)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(2, rel=0.01)
    assert found.high - found.low < 0.02


def test_interval_covers_the_true_ratio_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        pairs = 1.5 * np.exp(rng.normal(0, 0.3, 25))
        found = timing.ratio(pairs, np.ones(25), seed)
        covered += found.low <= 1.5 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(("ours", "others"), [(2, 3), (0, 0)])
def test_ratio_needs_pairs(ours: int, others: int):
    with pytest.raises(ValueError, match="as many"):
        timing.ratio(np.ones(ours), np.ones(others), seed=0)


def test_ratio_is_of_what_both_have_read():
    own = {(file, turn): 1.0 + file for file in range(3) for turn in range(4)}
    others = {key: 3 * seconds for key, seconds in own.items() if key[0] != 1}
    ratio, interval = timing.paired_ratio(others, own, seed=0)
    assert ratio == pytest.approx(3)
    assert interval == pytest.approx([3, 3])
    assert timing.paired_ratio({}, own, seed=0) == (None, None)


def test_interval_of_sums_covers_the_ratio_as_often_as_it_says():
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        keys = [(file, turn) for file in range(20) for turn in range(3)]
        others, own = ({key: base * draw.lognormal(sigma=0.2) for key in keys} for base in (2.0, 1.0))
        interval = timing.paired_ratio(others, own, seed)[1]
        assert interval is not None
        low, high = interval
        covered += low <= 2 <= high
    assert 88 <= covered <= 100


def test_compiler_is_what_the_environment_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert timing.cpp_compiler() is None


def test_machine_is_described():
    described = timing.machine("torch", "no-such-package")
    assert described["versions"] == {"torch": str(torch.__version__).partition("+")[0]} or "torch" in str(described)
    assert described["cores"] >= 1
    assert "no-such-package" not in described["versions"]
    json.dumps(described)


def test_results_begin_with_their_schema(tmp_path: Path):
    path = tmp_path / "out.json"
    results.check_writable(str(path))
    results.write_json(str(path), "some/1", rows=[1, 2])
    assert list(json.loads(path.read_text()).items()) == [("schema", "some/1"), ("rows", [1, 2])]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="absent"):
        results.check_writable(str(tmp_path / "absent" / "out.json"))


def test_roof_is_of_this_world():
    roof = memory_roof(block_bytes=4 * 2**20, rounds=2)
    assert roof["block_bytes"] == 4 * 2**20
    assert 0.05 < roof["read_gb_s"] < 5000
    assert 0.05 < roof["copy_gb_s"] < 5000
