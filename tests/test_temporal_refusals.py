"""Temporal models: wrong names, options and sizes are named with the remedy."""

from __future__ import annotations

import pytest

from temporal_attn.temporal import RotaryTime, build, options

DIM, HEADS = 16, 4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: build("lstm", DIM), "choose one of: mean, max, gated, cls, attention_pool"),
        (lambda: build("transformer", DIM, HEADS, posititon="none"), "'posititon'; it takes: pool, position, direct"),
        (lambda: build("mean", DIM, pool="max"), "'pool'; it takes: none"),
        (lambda: build("transformer", DIM, HEADS, pool="median"), "choose one of: mean, max"),
        (lambda: build("transformer", DIM, HEADS, position="alibi"), "choose one of: none, sinusoidal"),
        (lambda: build("transformer", DIM, HEADS, direction="forwards"), "choose one of: bidirectional, causal"),
        (lambda: build("transformer", DIM, HEADS, window=0), "window=0"),
        (lambda: build("transformer", 12, 3, direction="split", position="none"), "heads=3 is odd"),
        (lambda: build("transformer", 15, 3, position="sinusoidal"), "even width, got 15"),
        (lambda: build("transformer", DIM, HEADS, position="learned", max_frames=1), "at least 2 frames"),
        (lambda: build("cls", 15, 4), "does not divide"),
        (lambda: build("gated", DIM, hidden=0), "hidden=0"),
        (lambda: build("squeeze_excitation", DIM, reduction=17), "reduction=17"),
        (lambda: build("gru", DIM, direction="split"), "none of a GRU"),
        (lambda: build("tcn", DIM, direction="split"), "none of a TCN"),
        (lambda: build("tcn", DIM, kernel_size=2), "no centre"),
        (lambda: options("lstm"), "choose one of"),
        (lambda: build("transformer", 15, 4), "does not divide"),
        (lambda: build("attention_pool", 15, 4), "does not divide"),
        (lambda: build("transformer", DIM, HEADS, mlp_ratio=-1.0), "mlp_ratio=-1.0 leaves nothing"),
        (lambda: build("cls", DIM, HEADS, mlp_ratio=0.01), "mlp_ratio=0.01 leaves nothing"),
        (lambda: build("transformer", DIM, HEADS, min_period="1e-1"), "'min_period' .* '1e-1'; it has to be a number"),
        (lambda: build("transformer", DIM, HEADS, window=2.5), "'window' .* whole number"),
        (lambda: build("transformer", DIM, HEADS, window="a"), "'window' .* whole number"),
        (lambda: build("transformer", DIM, HEADS, max_frames=None), "'max_frames' .* whole number"),
        (lambda: build("transformer", DIM, HEADS, pool=3), "'pool' .* a name"),
        (lambda: build("gated", DIM, hidden=True), "'hidden' .* whole number"),
        (lambda: build("transformer", 12, 4), "even head width, got 3"),
        (lambda: build("attention_pool", 16, 0), "heads"),
        (lambda: build("transformer", 16, 0), "heads"),
        (lambda: RotaryTime(8, 1.0, 1.0), "periods"),
        (lambda: RotaryTime(8, 0.0, 1.0), "periods"),
    ],
)
def test_bad_arguments_are_named(call, words: str):
    with pytest.raises(ValueError, match=words):
        call()
