"""Accuracy over seeds and paired differences, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from temporal_attn.bench.paired import accuracy, difference, share_of_seeds, signed

VIDEOS = [f"v{i:02d}" for i in range(24)]
GROUPS = [f"g{i // 4}" for i in range(24)]


def runs(seed: int, seeds: tuple[int, ...]) -> dict[int, dict[str, bool]]:
    draw = np.random.default_rng(seed)
    order = draw.permutation(VIDEOS)  # names are sorted, whatever order they come in
    return {s: {str(name): bool(draw.random() < 0.6) for name in order} for s in seeds}


def test_shares_and_means_are_those_of_loops() -> None:
    own = runs(0, (0, 1, 2))
    share = share_of_seeds(own, own)
    assert share.tolist() == [sum(own[s][video] for s in own) / 3 for video in VIDEOS]
    found = accuracy(own, GROUPS)
    assert found.value == pytest.approx(np.mean(share))
    assert found.low <= found.value <= found.high


def test_a_difference_is_paired_by_seed() -> None:
    own, base = runs(0, (0, 1, 2)), runs(1, (1, 2, 3))
    found = difference(own, base, GROUPS)
    assert found is not None
    gained = [own[s][video] - base[s][video] for s in (1, 2) for video in VIDEOS]
    assert found.value == pytest.approx(np.mean(gained))
    assert found.low <= found.value <= found.high
    assert difference(own, own, GROUPS) == (0, 0, 0)
    assert difference(own, runs(1, (7,)), GROUPS) is None


def test_points_have_their_sign() -> None:
    assert (signed(0.0123), signed(-0.5)) == ("+1.2", "−50.0")
