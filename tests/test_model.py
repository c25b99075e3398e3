"""The classifier: what it equals at the start, what separates frames, and what training may and may not do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from temporal_attn.model import VideoClassifier
from temporal_attn.temporal import names
from temporal_attn.types import UserError

pytest.importorskip("timm")

CLASSES = 5


def make(seed: int = 0, **arguments: object) -> VideoClassifier:
    torch.manual_seed(seed)
    options = {"backbone": "test_resnet", "dim": 16, "heads": 2, "depth": 2, **arguments}
    return VideoClassifier(CLASSES, **options)  # type: ignore[arg-type]


def trained(model: VideoClassifier) -> VideoClassifier:
    """Parameters as after some training: gates open, queries and projections not zero."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name.startswith("backbone."):
                parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.5)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def clips(batch: int = 2, frames: int = 4, side: int = 64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, frames, 3, side, side), generator=generator, dtype=torch.uint8)


def times(batch: int = 2, frames: int = 4) -> Tensor:
    return torch.linspace(0, 3, frames).expand(batch, frames) * torch.arange(1, batch + 1)[:, None]


# --- the start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temporal", [name for name in names() if name not in ("mean", "max", "power_mean")])
def test_at_the_start_the_model_is_its_backbone_with_mean_pooling(temporal: str):
    model, mean = make(temporal=temporal), make(temporal="mean", attention=None)
    shared = {key: value for key, value in model.state_dict().items() if key in mean.state_dict()}
    missing, _ = mean.load_state_dict(shared, strict=False)
    assert not missing
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    for one, other in zip(model.eval()(clips(), mask, times()), mean.eval()(clips(), mask, times()), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_mean_pooling_is_the_mean_of_the_frames_logits():
    """TSN's consensus: the head is linear, so the clip's logits are the mean of the frames'."""
    model = trained(make(temporal="mean"))
    video = clips(frames=3)
    with torch.no_grad():
        alone = torch.stack([model(video[:, t : t + 1]).logits for t in range(3)])
        torch.testing.assert_close(model(video).logits, alone.mean(0), atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_parameter():
    model = make(drop_path=0.0, dropout=0.0, frame_dropout=0.0).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(3):  # what lies below a zeroed layer waits for one step
        optimiser.zero_grad()
        logits = model(clips(4, seed=step), pts=times(4)).logits
        nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
        optimiser.step()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert set(without) <= {"temporal.pool.key.bias"}  # the softmax does not see it


# --- frames are separable ------------------------------------------------------------------------------------------


def test_encoding_once_and_classifying_is_the_forward_pass():
    model = trained(make()).double()  # so that nothing but an error is left of a difference
    video, pts = clips(), times()
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    with torch.no_grad():
        features = model.encode_frames(video, maps=True)
        output = model(video, mask, pts)
        again = model.classify(features.tokens, mask, pts)
        alone = torch.cat([model.encode_frames(video[:, t : t + 1]).tokens for t in range(4)], dim=1)
    torch.testing.assert_close(output.logits, again.logits, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(output.frame_weights, again.frame_weights)  # a float32 softmax in any case
    torch.testing.assert_close(alone, features.tokens, atol=1e-9, rtol=1e-9)
    assert features.maps is not None
    torch.testing.assert_close(features.maps.mean((3, 4)), features.tokens, atol=1e-5, rtol=1e-5)
    assert model.encode_frames(video).maps is None


def test_a_masked_frame_is_a_frame_that_is_not_there():
    model = trained(make())
    video, pts = clips(), times()
    mask = torch.tensor([True, False, True, True]).expand(2, 4)
    with torch.no_grad():
        masked = model(video, mask, pts)
        shorter = model(video[:, mask[0]], pts=pts[:, mask[0]])
    torch.testing.assert_close(masked.logits, shorter.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked.frame_weights[:, mask[0]], shorter.frame_weights, atol=1e-5, rtol=1e-5)
    assert (masked.frame_weights[:, 1] == 0).all()


def test_options_of_the_temporal_model_reach_it():
    model = make(temporal_options={"position": "relative", "direction": "causal", "window": 3, "pool": "gated"})
    block = model.temporal.blocks[1]
    assert (block.position, block.direction, block.window) == ("relative", "causal", 3)
    assert type(model.temporal.pool).__name__ == "GatedPool"


@pytest.mark.parametrize("temporal", ["mean", "attention_pool", "transformer"])
def test_a_clip_without_frames_gets_an_answer_that_no_token_decides(temporal: str):
    model = trained(make(temporal=temporal))
    mask = torch.tensor([[False] * 3, [True] * 3])
    tokens = torch.randn(2, 3, model.backbone.width)
    tokens[0] = float("nan")
    with torch.no_grad():
        output = model.classify(tokens, mask)
        zero = model.head(torch.zeros(16) if temporal == "mean" else model.temporal.pool.out(torch.zeros(16)))
    torch.testing.assert_close(output.logits[0], zero)
    assert output.logits.isfinite().all()
    assert (output.frame_weights[0] == 0).all()


def test_without_times_frames_are_a_second_apart():
    model = trained(make())
    tokens = torch.randn(2, 4, model.backbone.width)
    with torch.no_grad():
        expected = model.classify(tokens, pts=torch.arange(4.0).expand(2, 4) + 17)
        torch.testing.assert_close(model.classify(tokens).logits, expected.logits, atol=1e-5, rtol=1e-5)


def test_a_float_video_is_taken_as_normalised():
    model = trained(make())
    video = clips()
    normalised = model.backbone.normalise(video.flatten(0, 1)).view(video.shape)
    with torch.no_grad():
        torch.testing.assert_close(model(normalised).logits, model(video).logits)


# --- the cut -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("freeze", "dims"), [("layer2", 5), ("all", 3)])
def test_cached_features_answer_as_the_video_does(freeze: str, dims: int):
    model = trained(make(freeze=freeze, attention=None if freeze == "all" else "cbam"))
    video, pts = clips(), times()
    with torch.no_grad():
        features = model.below_cut(video)
        assert features.ndim == dims
        torch.testing.assert_close(
            model(features=features, pts=pts).logits, model(video, pts=pts).logits, atol=1e-5, rtol=1e-5
        )
        half = model(features=features.half(), pts=pts).logits  # caches are stored in half precision
        torch.testing.assert_close(half, model(video, pts=pts).logits, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("freeze", ["layer2", "all"])
def test_cached_features_train_as_the_video_does(freeze: str):
    attention = None if freeze == "all" else "cbam"
    model = trained(make(freeze=freeze, attention=attention, frame_dropout=0.0, dropout=0.0, drop_path=0.0)).train()
    twin = copy.deepcopy(model)
    video = clips()
    model(video).logits.square().sum().backward()
    twin(features=twin.below_cut(video)).logits.square().sum().backward()
    compared = 0
    for (name, one), (_, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3, msg=name)
            compared += 1
    assert compared > 10


def test_there_is_nothing_to_cache_when_nothing_is_frozen():
    with pytest.raises(UserError, match="freeze"):
        make().below_cut(clips())


@pytest.mark.parametrize("freeze", ["none", "layer1"])
def test_gradient_checkpointing_changes_memory_only(freeze: str):
    plain = trained(make(freeze=freeze, frame_dropout=0.0, dropout=0.0, drop_path=0.0)).train()
    thrifty = copy.deepcopy(plain)
    thrifty.gradient_checkpointing = True
    losses = []
    for model in (plain, thrifty):
        loss = model(clips(), pts=times()).logits.square().sum()
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for (name, one), (_, other) in zip(plain.named_parameters(), thrifty.named_parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=name)
    # recomputing must not count the batch twice in the normalisations' statistics
    for (name, one), (_, other) in zip(plain.named_buffers(), thrifty.named_buffers(), strict=True):
        assert torch.equal(one, other), name


def test_gradient_checkpointing_stores_less_between_the_passes():
    def stored(model: VideoClassifier) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(clips())
        return sum(sizes.values())

    assert stored(make(gradient_checkpointing=True).train()) < 0.5 * stored(make().train())


@pytest.mark.parametrize("attention", ["cbam", "se", None])
@pytest.mark.parametrize(("two_stream", "cells"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_gradients_lie_in_memory_as_the_maps_do(two_stream: bool, cells: int, attention: str | None):
    """In another order every layer below has to turn them around, which costs more than the convolutions do."""
    model = trained(make(two_stream=two_stream, spatial_tokens=cells, attention=attention)).train()
    channels_last = []

    def note(grad: Tensor) -> None:
        channels_last.append(grad.is_contiguous(memory_format=torch.channels_last))

    def watch(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.requires_grad and output.ndim == 4 and min(output.shape[1:]) > 1:
            output.register_hook(note)

    for module in model.backbone.modules():
        module.register_forward_hook(watch)
    video = torch.cat([clips(seed=1), clips(seed=2)], 2) if two_stream else clips()
    model(video).logits.square().sum().backward()
    assert len(channels_last) >= 18
    assert all(channels_last)


# --- frame dropout -------------------------------------------------------------------------------------------------


def test_frame_dropout_keeps_real_frames_and_at_least_one():
    model = make(frame_dropout=1.0)
    torch.manual_seed(0)
    mask = torch.rand(500, 6) < 0.6
    mask[0] = False
    kept = model.drop_frames(mask)
    assert not (kept & ~mask).any()
    assert (kept.any(1) == mask.any(1)).all()


def test_every_number_of_kept_frames_and_every_frame_is_as_likely():
    model = make(frame_dropout=1.0)
    torch.manual_seed(0)
    kept = model.drop_frames(torch.ones(12_000, 4, dtype=torch.bool))
    counts = torch.bincount(kept.sum(1), minlength=5)
    assert counts[0] == 0
    torch.testing.assert_close(counts[1:] / 12_000, torch.full((4,), 0.25), atol=0.02, rtol=0)
    torch.testing.assert_close(kept.float().mean(0), torch.full((4,), 2.5 / 4), atol=0.02, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_clips_that_lose_frames(share: float):
    model = make(frame_dropout=share)
    torch.manual_seed(0)
    frames = 8
    kept = model.drop_frames(torch.ones(8_000, frames, dtype=torch.bool))
    lost = (~kept).any(1).float().mean()
    # one draw in `frames` keeps all of them
    assert float(lost) == pytest.approx(share * (1 - 1 / frames), abs=0.02)


def test_frames_are_dropped_in_training_and_never_in_evaluation():
    model = trained(make(frame_dropout=1.0))
    video = clips(8)
    torch.manual_seed(0)
    with torch.no_grad():
        assert (model(video).frame_weights > 0).all()
        assert (model.train()(video).frame_weights == 0).any()
        assert not (model(video, torch.tensor([[True, False, False, False]] * 8)).frame_weights[:, 1:] > 0).any()


@pytest.mark.parametrize("compiled", [False, True])
def test_dropped_frames_do_not_enter_the_backbone(compiled: bool, monkeypatch: pytest.MonkeyPatch):
    """But for compiled code, whose number of frames stays."""
    model = make(attention=None, frame_dropout=1.0, dropout=0.0, drop_path=0.0, freeze_batchnorm=True)
    model = trained(model).train()
    keep = torch.tensor([[True, False, True, True], [False, False, True, False]])
    monkeypatch.setattr(model, "drop_frames", lambda mask: mask & keep)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    seen = []
    first = next(module for module in model.backbone.net.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda conv, args: seen.append(len(args[0])))
    video = clips(2)
    out = model(video).logits
    assert seen == [keep.numel() if compiled else int(keep.sum())]
    torch.testing.assert_close(out, model.eval()(video, keep).logits)


# --- wrong use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"temporal": "lstm"}, "choose one of: mean"),
        ({"temporal_options": {"windw": 3}}, "'windw'; it takes: pool, position"),
        ({"temporal": "mean", "temporal_options": {"pool": "max"}}, "it takes: none"),
        ({"spatial_tokens": 0}, "spatial_tokens"),
        ({"motion": "flow"}, "choose one of: difference, shift"),
        ({"dim": 16, "heads": 3}, "heads=3 does not divide dim=16"),
        ({"heads": 0}, "heads"),
        ({"dim": -4}, "dim"),
        ({"depth": -1}, "depth"),
        ({"dropout": 1.5}, "dropout"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"frame_dropout": 1.5}, "frame_dropout"),
        ({"backbone": "resnet1800"}, "resnet1800"),
        ({"freeze": "layer7"}, "layer7"),
        ({"attention_gate": "tanh"}, "tanh"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(arguments: dict[str, object], words: str):
    with pytest.raises(UserError, match=words) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


def test_no_classes_and_no_input_are_refused():
    with pytest.raises(UserError, match="num_classes"):
        VideoClassifier(0)
    with pytest.raises(ValueError, match="video"):
        make()()


@pytest.mark.parametrize("call", ["__call__", "encode_frames"])
def test_a_clip_alone_and_channels_before_frames_are_no_batch(call: str):
    ask = getattr(make(), call)
    for video in (clips()[0], clips().transpose(1, 2), clips()[:, 0]):
        with pytest.raises(ValueError, match=r"a video is \(B, T, 3, H, W\), got \("):
            ask(video)


def test_without_a_projection_the_width_is_the_backbones():
    model = make(dim=0, heads=4)
    assert model(clips()).logits.shape == (2, CLASSES)
    assert model.head[-1].in_features == model.backbone.width


# --- padding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_padding_never_enters_the_backbone(training: bool):
    """Not its outputs and not its batch statistics: the twin gets the real frames of every clip alone."""
    model = trained(make(frame_dropout=0.0, dropout=0.0, drop_path=0.0)).train(training)
    twin = copy.deepcopy(model)
    video, pts = clips(), times()
    mask = torch.ones(video.shape[:2], dtype=torch.bool)
    mask[0, 2:] = False
    output = model(video, mask, pts).logits
    tokens = torch.zeros(*mask.shape, twin.backbone.width)
    tokens[mask] = twin.backbone.pool(twin.backbone.maps(video[mask]))
    torch.testing.assert_close(output, twin.classify(tokens, mask, pts).logits)
    for (name, one), (_, other) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_frames_that_are_dropped_leave_no_trace_where_frames_are_mixed():
    model = make(motion="difference", frame_dropout=1.0, dropout=0.0, drop_path=0.0, freeze_batchnorm=True)
    with torch.no_grad():
        for parameter in model.motion.parameters():
            parameter.add_(torch.randn_like(parameter))
    video, keep = clips(1, 6), torch.tensor([[True, False, True, False, False, True]])
    model.drop_frames = lambda mask: mask & keep
    seen = model.train()(video).logits
    assert torch.allclose(seen, model.eval()(video, keep).logits, atol=1e-5)
    assert not torch.allclose(seen, model(video).logits, atol=1e-3)
