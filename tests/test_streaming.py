"""Frame by frame: what a stream says is what the causal model says of the clip so far, and what it keeps is bounded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from temporal_attn.model import VideoClassifier
from temporal_attn.temporal.encoder import POOLS
from temporal_attn.temporal.positions import POSITIONS
from temporal_attn.temporal.streaming import StreamingClassifier

pytest.importorskip("timm")

CAUSAL = {"direction": "causal", "window": 3}
WIDTH = 96
STREAMABLE = {
    "mean": ("mean", {}),
    "max": ("max", {}),
    "gated": ("gated", {}),
    "attention_pool": ("attention_pool", {}),
    "frame_gate": ("frame_gate", {}),
    "power_mean": ("power_mean", {}),
    **{
        f"transformer {position}": ("transformer", {**CAUSAL, "position": position})
        for position in POSITIONS
        if position != "learned"
    },
    **{f"transformer {pool}": ("transformer", {**CAUSAL, "pool": pool}) for pool in POOLS if pool != "cls"},
    "gru": ("gru", {"direction": "causal"}),
    "tcn": ("tcn", {"direction": "causal"}),
}


def trained(temporal: str, options: dict[str, object], **arguments: object) -> VideoClassifier:
    torch.manual_seed(0)
    settings = {"backbone": "test_resnet", "attention": None, "dim": 16, "heads": 4, "depth": 2, **arguments}
    model = VideoClassifier(5, temporal=temporal, temporal_options=options, **settings).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for part in (model.project, model.temporal, model.head):
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def tokens_of(streams: int, frames: int, width: int = WIDTH) -> Tensor:
    return torch.randn(streams, frames, width, generator=torch.Generator().manual_seed(1))


def times(streams: int, frames: int) -> Tensor:
    """Uneven seconds that do not begin at 0."""
    steps = torch.rand(streams, frames, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.05
    return steps.cumsum(1) + 7


def assert_every_prefix_is_answered(model: VideoClassifier, tokens: Tensor, pts: Tensor) -> None:
    """As the clip that ends there."""
    stream = StreamingClassifier(model)
    for t in range(tokens.shape[1]):
        got = stream.step_tokens(tokens[:, t], pts[:, t])
        with torch.no_grad():
            clip = model.classify(tokens[:, : t + 1], None, pts[:, : t + 1])
        torch.testing.assert_close(got.logits, clip.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(got.weight, clip.frame_weights[:, t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", STREAMABLE)
def test_every_prefix_of_a_clip_is_answered_as_the_clip(name: str):
    assert_every_prefix_is_answered(trained(*STREAMABLE[name]), tokens_of(2, 9), times(2, 9))


@pytest.mark.parametrize("cells", [1, 2])
def test_frames_that_look_alike_share_the_maximum(cells: int):
    """A camera that sees nothing move: each frame holds the largest values as much as those before it."""
    model = trained("max", {}, spatial_tokens=cells)
    tokens, pts = tokens_of(2, 6, cells**2 * WIDTH), times(2, 6)
    tokens[0, 2:] = tokens[0, 1:2]
    assert_every_prefix_is_answered(model, tokens, pts)


def test_frames_of_a_camera_are_answered_as_the_video():
    model = trained(*STREAMABLE["transformer rotary"])
    video = torch.randint(0, 256, (1, 5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stream = StreamingClassifier(model)
    for t in range(5):
        got = stream.step(video[:, t], t / 4)
        with torch.no_grad():
            clip = model(video[:, : t + 1], pts=torch.arange(t + 1)[None] / 4)
        torch.testing.assert_close(got.logits, clip.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temporal", ["transformer", "attention_pool", "max"])
def test_cells_of_frames_stream_too(temporal: str):
    model = trained(temporal, CAUSAL if temporal == "transformer" else {}, spatial_tokens=2)
    tokens, pts = tokens_of(2, 6, 4 * WIDTH), times(2, 6)
    stream = StreamingClassifier(model)
    for t in range(6):
        got = stream.step_tokens(tokens[:, t], pts[:, t])
        with torch.no_grad():
            clip = model.classify(tokens[:, : t + 1], None, pts[:, : t + 1])
        torch.testing.assert_close(got.logits, clip.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", STREAMABLE)
def test_streams_may_miss_frames_whatever_stands_in_their_place(name: str):
    """Each stream is answered as its own real frames are, also before it has any."""
    model = trained(*STREAMABLE[name])
    tokens, pts = tokens_of(3, 10), times(3, 10)
    mask = torch.rand(3, 10, generator=torch.Generator().manual_seed(3)) < 0.6
    mask[0], mask[2, :4] = True, False
    tokens[~mask], pts[~mask] = float("nan"), float("nan")
    stream = StreamingClassifier(model)
    for t in range(10):
        got = stream.step_tokens(tokens[:, t], pts[:, t], mask[:, t])
        with torch.no_grad():
            for s in range(3):
                seen = mask[s, : t + 1]
                if seen.any() and mask[s, t]:
                    clip = model.classify(tokens[s, : t + 1][seen][None], None, pts[s, : t + 1][seen][None])
                    torch.testing.assert_close(got.logits[s], clip.logits[0], atol=1e-5, rtol=1e-5)
        assert got.logits.isfinite().all()
        assert (got.weight[~mask[:, t]] == 0).all()


@pytest.mark.parametrize("name", STREAMABLE)
def test_what_is_kept_does_not_grow(name: str):
    model = trained(*STREAMABLE[name])
    stream = StreamingClassifier(model)
    sizes = []
    for t, tokens in enumerate(tokens_of(1, 40).unbind(1)):
        stream.step_tokens(tokens, t / 10)
        sizes.append(stream.state_size())
    assert sizes[0] > 0
    assert len(set(sizes[3:])) == 1  # from the third frame on every window is full
    if name == "transformer rotary":  # two blocks: keys, values, seconds and presence of three frames; and the pool
        assert sizes[-1] == 2 * 3 * (16 + 16 + 1 + 1) + 4 + 4 + 16


@pytest.mark.parametrize("position", ["rotary", "relative", "sinusoidal"])
def test_an_hour_later_frames_are_told_apart_as_in_the_first_minute(position: str):
    """With a window of frames only the time between them counts; float32 seconds would be off by 10⁻⁴ s here."""
    model = trained("transformer", {**CAUSAL, "position": position}, depth=1)
    tokens, pts = tokens_of(1, 6), times(1, 6) - 7
    early = pts if position == "sinusoidal" else pts + 3600.0
    begun = torch.cat((torch.zeros(1, 1, dtype=torch.float64), early), 1)
    first = torch.cat((tokens[:, :1], tokens), 1)
    stream = StreamingClassifier(model)
    for t in range(7):
        got = stream.step_tokens(first[:, t], begun[:, t] + (3600.0 if position == "sinusoidal" else 0))
    with torch.no_grad():
        clip = model.classify(first, None, begun)
    torch.testing.assert_close(got.logits, clip.logits, atol=1e-5, rtol=1e-5)
    block = model.temporal.blocks[0]
    x, mask = model.project(tokens), torch.ones(1, 6, dtype=torch.bool)
    if position != "sinusoidal":
        with torch.no_grad():
            torch.testing.assert_close(block(x, mask, pts + 3600), block(x, mask, pts), atol=1e-5, rtol=1e-5)


def test_running_sums_stay_exact_over_many_frames():
    """As many frames as an hour has; their scores are spread so wide that most weights vanish."""
    model = trained("attention_pool", {}, dim=8, heads=2)
    pool = StreamingClassifier(model)._pool
    x = torch.randn(1, 108_000, 8, generator=torch.Generator().manual_seed(0)) * 5
    every = torch.ones(1, dtype=torch.bool)
    with torch.no_grad():
        for part in x.split(1000, 1):  # a step may bring several tokens
            got, _ = pool.step(part, every)
        expected = model.temporal.pool.double()(x.double(), torch.ones(1, 108_000, dtype=torch.bool))[0]
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


def test_reset_forgets():
    model = trained(*STREAMABLE["transformer rotary"])
    tokens = tokens_of(1, 4)
    stream = StreamingClassifier(model)
    fresh = [stream.step_tokens(tokens[:, t], float(t)).logits for t in range(4)]
    stream.reset()
    again = [stream.step_tokens(tokens[:, t], float(t)).logits for t in range(4)]
    assert all(torch.equal(one, other) for one, other in zip(fresh, again, strict=True))
    assert not torch.equal(fresh[0], fresh[1])


@pytest.mark.parametrize(
    ("temporal", "options", "words"),
    [
        ("transformer", {"window": 4}, "direction 'bidirectional' looks ahead"),
        ("transformer", {"window": 4, "direction": "split"}, "direction 'split' looks ahead"),
        ("transformer", {"direction": "causal"}, "window"),
        ("transformer", {**CAUSAL, "position": "learned"}, "take rotary or relative"),
        ("transformer", {**CAUSAL, "pool": "cls"}, "ClassTokenPool needs all frames"),
        ("cls", {}, "ClassTokenPool needs all frames"),
        ("squeeze_excitation", {}, "SqueezeExcitation needs all frames"),
        ("gru", {}, "looks ahead"),
        ("tcn", {}, "looks ahead"),
    ],
)
def test_what_cannot_stream_says_what_could(temporal: str, options: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        StreamingClassifier(trained(temporal, options))


def test_wrong_use_is_refused():
    model = trained("mean", {})
    with pytest.raises(ValueError, match="training mode"):
        StreamingClassifier(model.train())
    with pytest.raises(ValueError, match="motion"):
        StreamingClassifier(trained("mean", {}, motion="shift"))
    stream = StreamingClassifier(model.eval())
    stream.step_tokens(tokens_of(2, 1)[:, 0], 1.0)
    with pytest.raises(ValueError, match="later"):
        stream.step_tokens(tokens_of(2, 1)[:, 0], torch.tensor([2.0, 1.0]))
    with pytest.raises(ValueError, match="2 streams"):
        stream.step_tokens(tokens_of(3, 1)[:, 0], 3.0)
