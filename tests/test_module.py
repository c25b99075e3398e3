"""VideoClassificationModule in a plain Trainer, with plain loaders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader

from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError
from tests.bright_clips import CLASSES, Clips, loader, module, trainer


def test_learns_and_tests_with_a_plain_loader(tmp_path: Path) -> None:
    pl.seed_everything(0)
    net = module(lr=3e-3, backbone_lr=3e-3, frame_dropout=0.0)
    run = trainer(tmp_path, max_epochs=6)
    run.fit(net, loader(shuffle=True), loader())
    (result,) = run.test(net, loader(), verbose=False)
    assert result["test/top1"] == 1.0
    assert net.test_summary is not None
    assert net.test_summary["videos"] == 16
    assert [row["n"] for row in net.test_summary["per_class"]] == [8, 8]


def test_test_metrics_equal_a_loop(tmp_path: Path) -> None:
    net = module().eval()
    trainer(tmp_path).test(net, loader(), verbose=False)
    data = Clips()
    with torch.no_grad():
        hits = [net.model(data.video[i : i + 1]).logits.argmax().item() == data.label[i].item() for i in range(16)]
    assert net.test_summary is not None
    assert net.test_summary["top1"] == pytest.approx(sum(hits) / 16)


def test_hyperparameters_are_primitives_and_weights_only_loads(tmp_path: Path) -> None:
    pl.seed_everything(0)
    net = module(attention_options={"reduction": 8})
    run = trainer(tmp_path, max_epochs=1)
    run.fit(net, loader())
    path = tmp_path / "a.ckpt"
    run.save_checkpoint(path)
    raw = torch.load(path, weights_only=True)
    assert raw["hyper_parameters"]["class_names"] == CLASSES
    again = VideoClassificationModule.load_from_checkpoint(path, weights_only=True)
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_attention_of_another_package_by_the_path_of_its_class(tmp_path: Path) -> None:
    pl.seed_everything(0)
    options: dict[str, Any] = {
        "attention": "torchvision.ops.SqueezeExcitation",
        "attention_options": {"squeeze_channels": 4},
    }
    with pytest.raises(UserError, match="attention_gate: null"):
        module(**options)
    net = module(**options, attention_gate=None)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(net, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = VideoClassificationModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert any("frame_attention" in name for name in net.state_dict())
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_checkpoints_from_before_there_were_four_places_load(tmp_path: Path) -> None:
    """What is `norm` now was called `block`; the weights have the name of the layer that they follow."""
    net = module(attention_at="norm", attention_gate="sigmoid").eval()
    assert "model.backbone.net.frame_attention.layer2_0_bn2.attention.channel.up.weight" in net.state_dict()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(net, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)
    stored["hyper_parameters"]["attention_at"] = "block"
    torch.save(stored, tmp_path / "old.ckpt")
    again = VideoClassificationModule.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    assert again.hparams["attention_at"] == "norm"  # and so it is stored from now on
    batch = next(iter(loader()))
    with torch.no_grad():
        assert torch.equal(again.eval()(batch).logits, net.eval()(batch).logits)
    # today's block is left as it is
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module(attention_at="block"), loader())
    run.save_checkpoint(tmp_path / "new.ckpt")
    new = VideoClassificationModule.load_from_checkpoint(tmp_path / "new.ckpt", weights_only=True)
    assert new.hparams["attention_at"] == "block"


def test_checkpoint_needs_no_pretrained_weights(tmp_path: Path) -> None:
    weights = tmp_path / "backbone.pth"
    torch.save(module(attention=None).model.backbone.net.state_dict(), weights)
    net = module(weights=str(weights))
    run = trainer(tmp_path, max_epochs=1)
    run.fit(net, loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    weights.unlink()
    again = VideoClassificationModule.load_from_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(again.model.head[1].weight, net.model.head[1].weight)


def test_resume_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    """Dropout, frame dropout and stochastic depth are on: the random state has to go on as well."""

    def fit(folder: Path, epochs: int, total: int, ckpt: str | None) -> VideoClassificationModule:
        pl.seed_everything(3)
        net = module(dropout=0.3, drop_path=0.3, frame_dropout=0.5)
        keep = ModelCheckpoint(dirpath=folder, filename="last", every_n_epochs=1, enable_version_counter=False)
        run = trainer(folder, max_epochs=total, callbacks=[keep], enable_checkpointing=True)
        run.fit_loop.max_epochs = total
        if epochs < total:
            run.callbacks.append(_StopAfter(epochs))  # type: ignore[attr-defined]
        run.fit(net, loader(generator=torch.Generator().manual_seed(0)), loader(), ckpt_path=ckpt)
        return net

    whole = fit(tmp_path / "whole", 4, 4, None)
    fit(tmp_path / "half", 2, 4, None)
    resumed = fit(tmp_path / "rest", 4, 4, str(tmp_path / "half" / "last.ckpt"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_training_that_begins_with_the_weights_of_another_keeps_its_own_seed(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module(), loader())
    run.save_checkpoint(tmp_path / "first.ckpt")

    def fine_tuned(seed: int) -> torch.Tensor:
        net = VideoClassificationModule.load_from_checkpoint(tmp_path / "first.ckpt")
        trainer(tmp_path).test(net, loader(), ckpt_path=tmp_path / "first.ckpt", verbose=False)
        torch.manual_seed(seed)
        trainer(tmp_path, max_epochs=1).fit(net, loader())
        return net.model.head[1].weight.detach().clone()

    one = fine_tuned(1)
    assert torch.equal(one, fine_tuned(1))
    assert not torch.equal(one, fine_tuned(2))


class _StopAfter(pl.Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True


def test_frozen_backbone_does_not_change(tmp_path: Path) -> None:
    net = module(freeze="layer3", attention_at="stage", attention_stages=[4])
    before = {k: v.clone() for k, v in net.model.backbone.state_dict().items()}
    trainer(tmp_path, max_epochs=1).fit(net, loader())
    after = net.model.backbone.state_dict()
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    # layer4 and the attention behind it train; the frozen part keeps its BatchNorm statistics too
    assert changed == {"layer4", "frame_attention"}


def test_the_backbone_unfreezes_with_its_batch_norm(tmp_path: Path) -> None:
    class Watch(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[dict[str, torch.Tensor]] = []

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            state = pl_module.model.backbone.net.layer1.state_dict()  # type: ignore[union-attr]
            self.seen.append({name: value.clone() for name, value in state.items()})

    watch = Watch()
    net = module(freeze="layer3", unfreeze_epoch=2, attention_at="stage", attention_stages=[4])
    watch.seen.append({name: value.clone() for name, value in net.model.backbone.net.layer1.state_dict().items()})
    trainer(tmp_path, max_epochs=3, callbacks=[watch]).fit(net, loader())
    start, first, second, third = watch.seen
    for name, value in start.items():
        assert torch.equal(value, first[name])
        assert torch.equal(value, second[name]), name
    changed = {name for name in start if not torch.equal(second[name], third[name])}
    assert any(name.endswith("conv1.weight") for name in changed)
    assert any(name.endswith("running_mean") for name in changed)


def test_separate_rates(tmp_path: Path) -> None:
    net = module(lr=1e-2, backbone_lr=1e-4, warmup=0.0)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1)
    run.fit(net, loader())
    initial = {group["name"]: group["initial_lr"] for group in run.optimizers[0].param_groups}
    assert initial["head"] == 1e-2
    assert initial["backbone"] == 1e-4


def test_ema_by_lightning(tmp_path: Path) -> None:
    net = module()
    run = trainer(tmp_path, max_epochs=2, callbacks=[EMAWeightAveraging(decay=0.5)])
    run.fit(net, loader(), loader())
    run.save_checkpoint(tmp_path / "ema.ckpt")
    state = torch.load(tmp_path / "ema.ckpt", weights_only=True)
    assert "current_model_state" in state
    assert VideoClassificationModule.load_from_checkpoint(tmp_path / "ema.ckpt").class_names == CLASSES


@pytest.mark.parametrize(
    "options", [{"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.5}, {"precision": "bf16-mixed"}]
)
def test_trainer_options(tmp_path: Path, options: dict[str, Any]) -> None:
    net = module(gradient_checkpointing=True)
    run = trainer(tmp_path, max_epochs=1, **options)
    run.fit(net, loader(), loader())
    assert torch.isfinite(run.callback_metrics["train/loss"])


def test_compile_keeps_checkpoint_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = set(module().state_dict())
    net = module(compile=True)
    calls = []
    original = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **_: (calls.append(self), original(self, backend="eager"))
    )
    trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(net, loader())
    assert calls == [net.model]
    assert set(net.state_dict()) == plain


def unread(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch in which no video could be read."""
    failed = {"id": "x", "path": "x.mp4", "reason": "broken", "label": 0, "group": "g", "index": 0}
    batch = torch.utils.data.default_collate(items)
    return {"video": batch["video"][:0], "label": batch["label"][:0], "failed": [failed]}


def test_a_batch_that_failed_whole_trains_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def first_is_unread(items: list[dict[str, Any]]) -> dict[str, Any]:
        is_first = torch.equal(items[0]["video"], Clips()[0]["video"])
        return unread(items) if is_first else torch.utils.data.default_collate(items)

    net = module()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(net, loader(collate_fn=first_is_unread))
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    run.test(net, loader(collate_fn=unread), verbose=False)
    assert "test: none of the 1 videos could be read, so that all count as wrong: x.mp4: broken" in caplog.text
    assert net.test_summary is not None
    assert (net.test_summary["top1"], net.test_summary["videos"]) == (0.0, 1)
    assert net.test_summary["failed"] == [{"id": "x", "path": "x.mp4", "reason": "broken"}]


def test_a_validation_of_which_nothing_can_be_read_keeps_the_scoring(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = module()
    net.scoring = replace(net.scoring, temperature=1.7)
    best = ModelCheckpoint(tmp_path, monitor="val/top1", mode="max")
    run = trainer(tmp_path, max_epochs=1, enable_checkpointing=True, callbacks=[best])
    run.fit(net, loader(), loader(collate_fn=unread))
    assert net.scoring.temperature == 1.7
    assert run.callback_metrics["val/top1"] == 0.0
    assert Path(best.best_model_path).exists()
    assert "val: none of the 1 videos could be read" in caplog.text


def test_an_epoch_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"none of the training videos of epoch 0 could be read: x\.mp4: broken; `temporal"
    ):
        trainer(tmp_path, max_epochs=2).fit(module(), loader(collate_fn=unread))


def test_classes_come_from_the_datamodule(tmp_path: Path) -> None:
    class Data(pl.LightningDataModule):
        class_names = CLASSES
        clip_spec = {"num_frames": 3}  # noqa: RUF012

        def train_dataloader(self) -> DataLoader[Any]:
            return loader()

    net = module(class_names=None)
    trainer(tmp_path, max_epochs=1).fit(net, datamodule=Data())
    assert net.class_names == CLASSES
    assert net.clip_spec == {"num_frames": 3}


def test_unknown_classes_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class_names"):
        trainer(tmp_path, max_epochs=1).fit(module(class_names=None), loader())


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_smoothing": 1.0},
        {"warmup": 2.0},
        {"class_names": ["a", "a"]},
        {"temporal": "lstm"},
        {"lr": -1e-3},
        {"backbone_lr": float("nan")},
        {"weight_decay": -0.05},
        {"mlp_ratio": -1.0},
        {"unfreeze_epoch": -1},
    ],
)
def test_wrong_settings_are_user_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        module(**wrong)


def test_predict_gives_a_row_a_video(tmp_path: Path) -> None:
    net = module()
    batches = trainer(tmp_path).predict(net, loader())
    assert batches is not None
    rows = [row for batch in batches for row in batch]
    assert len(rows) == 16
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["class"] == max(row["probabilities"], key=row["probabilities"].get)
