"""The suites of `bench training` on tiny data: what is trained, what a stopped suite leaves, and what the page says."""

from __future__ import annotations

import copy
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

from temporal_attn.bench import training_runs
from temporal_attn.bench.training import SECTION, bench_training
from temporal_attn.bench.training_order import answers_by_order, orders
from temporal_attn.bench.training_overhead import take_turns
from temporal_attn.bench.training_rows import BLOCKS, SEEDS, Row, rows
from temporal_attn.bench.training_runs import Place, RunRecorder, finished_runs, train, work
from temporal_attn.bench.training_steps import CLASSES, Shape, make_batch
from temporal_attn.bench.training_table import figures, section
from temporal_attn.cli import main
from temporal_attn.evaluation.predictions import read_judged
from temporal_attn.inference import LoadedClassifier
from temporal_attn.model import VideoClassifier
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import UserError
from tests.training_runs import finished

# What makes the suite's own rows small: a tiny net takes the place of theirs.
TINY = (
    "model.backbone=test_resnet",
    "model.weights=none",
    "model.dim=16",
    "model.heads=2",
    "data.clip.num_frames=2",
    "data.clip.resize=32",
    "data.clip.crop=32",
    "data.loader.sandbox=false",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)
TRAINED = ("mean", "transformer")


class Suite(NamedTuple):
    """A suite of which two rows have been trained."""

    place: Place
    page: Path

    def words(self, *more: str) -> list[str]:
        place = self.place
        return [
            *("bench", "training", "--suite=ucf101_20", f"--config={place.config}", f"--root={place.root}"),
            *(f"--splits={place.splits}", f"--runs={place.runs}", f"--cache={place.cache}", f"--page={self.page}"),
            *(f"--options={json.dumps(place.options)}", *more),
        ]


@pytest.fixture(scope="module")
def suite(tiny_ucf: Path, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    base = tmp_path_factory.mktemp("suite")
    content = {
        "model": {
            "class_path": "temporal_attn.VideoClassificationModule",
            "init_args": {
                "attention": "cbam",
                "attention_at": ["layer4"],
                "freeze": "layer3",
                "two_stream": True,
            },
        },
        "data": {
            "class_path": "datamodules.UCF101DataModule",
            "init_args": {"val_groups": [7, 8], "clip": {"lag": 0.1}, "loader": {"batch_size": 6}},
        },
    }
    (base / "config.yaml").write_text(yaml.safe_dump(content))
    page = base / "results.md"
    page.write_text(f"# Results\n\nbefore\n\n{SECTION.begin}\nstale\n{SECTION.end}\n\n## After\n")
    root, splits = (str(tiny_ucf / name) for name in ("root", "splits"))
    made = Suite(Place(str(base / "config.yaml"), root, splits, base / "runs", str(base / "cache"), TINY), page)
    assert main(made.words(f"--rows={json.dumps(TRAINED)}", "--seeds=1")) == 0
    return made


# -- the table of temporal models -----------------------------------------------------------------------------------


def test_only_its_own_section_is_written(suite: Suite) -> None:
    text = suite.page.read_text()
    assert text.startswith("# Results\n\nbefore\n\n<!--")
    assert text.endswith("-->\n\n## After\n")
    assert "stale" not in text
    assert "2 runs of " in text
    assert "6 videos in 6 groups" in text
    assert f"torch {torch.__version__.split('+')[0]}" in text
    own = next(line for line in text.splitlines() if line.startswith("| mean |"))
    assert "one seed" in own
    assert "points" not in own
    assert next(line for line in text.splitlines() if line.startswith("| max |")).startswith("| max | not run | – |")


def test_a_run_leaves_answers_and_figures(suite: Suite) -> None:
    row = rows()["transformer"]
    folder = suite.place.folder(row, 0)
    judged = read_judged(folder / training_runs.ANSWERS)  # what `temporal-attn compare` reads
    run = finished_runs(row, suite.place)[0]
    assert run.answers == {video["video_id"]: video["class"] == video["label"] for video in judged}
    assert len(run.answers) == 6
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["best.ckpt"]
    stored = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    sizes = {name: tensor.numel() for name, tensor in stored["state_dict"].items() if "model." in name}
    above = sum(size for name, size in sizes.items() if "backbone" not in name)
    assert run.costs.trained == above < run.costs.parameters
    assert run.costs.gflops > 0
    assert run.fit_cpu_s > 0


def test_rows_share_the_cache_and_nothing_is_trained_twice(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Counter(path.is_dir() for path in Path(suite.place.cache).iterdir())[True] == 2  # training and validation

    def refuse(*_: Any) -> int:
        raise AssertionError("trained again")

    monkeypatch.setattr(training_runs, "run", refuse)
    before, found = suite.page.read_text(), suite.page.with_name("found.json")
    assert main(suite.words(f"--rows={json.dumps(TRAINED)}", "--seeds=1", f"--json={found}")) == 0
    assert suite.page.read_text().replace(f" --json {found}", "") == before
    stored = json.loads(found.read_text())
    assert stored["schema"] == "temporal-attn/bench-training/2"
    assert {row["row"] for row in stored["rows"] if row["seeds"]} == set(TRAINED)
    assert [row["row"] for row in stored["rows"]] == [r.name for b in BLOCKS for r in (b.base, *b.others)]


def test_a_run_that_fails_does_not_stop_the_others(suite: Suite, tmp_path: Path, capsys: Any) -> None:
    place = suite.place._replace(runs=tmp_path / "runs", options=(*TINY, "model.dim=15"))  # two heads do not divide it
    other = Suite(place, suite.page.with_name("other.md"))
    other.page.write_text(suite.page.read_text())
    assert main(other.words('--rows=["gru","attention_pool"]', "--seeds=1")) == 1
    errors = capsys.readouterr().err
    assert "failed: attention_pool, seed 0" in errors
    assert "failed: gru" not in errors
    assert "| GRU, 2 layers | not run" not in other.page.read_text()


def test_a_stopped_run_goes_on(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = suite.place._replace(runs=tmp_path, options=(*TINY, "trainer.max_epochs=2"))
    row, epochs = rows()["mean"], []
    write = RunRecorder.on_validation_end

    def watch(self: RunRecorder, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            epochs.append(trainer.current_epoch)
            if epochs == [0, 1]:
                raise KeyboardInterrupt
        write(self, trainer, module)

    monkeypatch.setattr(RunRecorder, "on_validation_end", watch)
    handler = signal.getsignal(signal.SIGINT)  # Lightning is deaf to a second one
    with pytest.raises(SystemExit):
        train(row, 0, place)
    signal.signal(signal.SIGINT, handler)
    assert finished_runs(row, place) == {}
    assert train(row, 0, place) == 0
    assert epochs == [0, 1, 1]
    assert finished_runs(row, place)[0].fit_cpu_s > 0


def test_runs_of_other_settings_are_not_mixed(suite: Suite) -> None:
    other = suite.place._replace(options=(*TINY, "model.dim=32"))
    with pytest.raises(UserError, match="other settings"):
        finished_runs(rows()["mean"], other)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": ["nonsense"]}, "nonsense not known; choose from: transformer, mean"),
        ({"seeds": -1}, "seeds is -1"),
        ({"runs": None}, "needs --runs"),
        ({"seeds": None, "root": None, "cache": None}, "needs --root, --cache"),
        ({"page": "nowhere.md"}, "page nowhere.md"),
    ],
)
def test_wrong_use(wrong: dict[str, Any], said: str, suite: Suite) -> None:
    place = suite.place
    given = {"config": place.config, "root": place.root, "splits": place.splits, "runs": str(place.runs)}
    words = {**given, "cache": place.cache, "page": str(suite.page), "seeds": 0, **wrong}
    with pytest.raises(UserError, match=said):
        bench_training("ucf101_20", **words)


def test_every_row_can_be_made() -> None:
    small = {"backbone": "test_resnet", "weights": "none", "dim": 16, "heads": 2}
    places = {"blocks.6": "layer3"}  # of lite0, and of the tiny net
    default = {"freeze": "blocks.6", "attention": "cbam", "attention_at": ["layer4"], "two_stream": True}
    for row in rows().values():
        own = {name[6:]: yaml.safe_load(value) for name, _, value in (o.partition("=") for o in row.options)}
        known = set(VideoClassifier.__init__.__code__.co_varnames)
        model = {name: value for name, value in own.items() if name in known}
        settings = {**default, **model, **small}
        settings["freeze"] = places.get(settings["freeze"], settings["freeze"])
        settings.pop("mean", None)
        assert VideoClassifier(3, **settings).num_classes == 3, row.name
        assert ("data.clip.lag=0" in row.options) == (settings["two_stream"] is False)


def test_cheap_runs_come_first_and_seed_by_seed() -> None:
    some = [Row("whole", "", "full"), Row("part", "", "partial"), Row("all", "", "frozen")]
    order = [(row.name, seed) for row, seed in work(some, None)]
    assert order[:4] == [("all", 0), ("part", 0), ("all", 1), ("part", 1)]
    assert order[-1] == ("whole", 0)
    assert Counter(name for name, _ in order) == {
        "all": SEEDS["frozen"],
        "part": SEEDS["partial"],
        "whole": SEEDS["full"],
    }
    assert {seed for _, seed in work(some, 2)} == {0, 1}
    assert list(work(some, 0)) == []


def test_rows_hold_means_and_paired_differences() -> None:
    found = {
        "transformer": {0: finished(20), 1: finished(24)},
        "mean": {0: finished(36), 1: finished(40)},
        "max": {1: finished(24), 2: finished(0)},  # only seed 1 is compared
    }
    table = figures(found)
    by_name = {row["row"]: row for row in table if row["block"] == BLOCKS[0].title}
    mean = by_name["mean"]
    assert (mean["top1"], mean["lowest"], mean["highest"]) == (0.95, 0.9, 1.0)
    assert mean["against"][0] == pytest.approx(0.4)
    assert mean["against"][1] > 0
    assert mean["fit_cpu_s"] == 98
    assert by_name["max"]["against"] == [0, 0, 0]
    assert by_name["transformer"]["against"] is None
    assert by_name["gru"]["seeds"] == []
    text = section(table, "the command", "the.yaml")
    assert "| mean | 95.0 % (90.0–100.0) | 2 |" in text
    assert "| +40.0 (" in text
    assert "| 1.50 M / 4.00 M | 12.3 | 98 s | 0.50 s |" in text
    assert "Better than the first row by more than chance: mean." in text
    assert "6 runs of the.yaml with the options of each row, 2025-12-31, on one, 2 threads; torch 9." in text
    assert text.count("|\n\n**") == len(BLOCKS) - 2  # nothing is concluded where nothing is compared


# -- Lightning beside a bare loop -------------------------------------------------------------------------------------


def test_both_loops_train_the_same_model() -> None:
    torch.manual_seed(0)
    module = VideoClassificationModule(
        [str(number) for number in range(CLASSES)],
        backbone="test_resnet",
        dim=16,
        heads=2,
        dropout=0.0,
        drop_path=0.0,
        frame_dropout=0.0,
        warmup=0.3,
    )
    twin, fresh = copy.deepcopy(module.model), copy.deepcopy(module.model.state_dict())
    batches = [make_batch(Shape(2, 2, 32), seed) for seed in range(2)]
    lightning, bare = take_turns(module, twin, batches, rounds=3)
    assert lightning.shape == bare.shape == (3,)
    assert (np.stack([lightning, bare]) > 0).all()
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(module.model.state_dict()[name], value, rtol=0, atol=1e-4, msg=name)
    assert not torch.equal(fresh["head.1.weight"], twin.state_dict()["head.1.weight"])


# -- the order of frames ----------------------------------------------------------------------------------------------


def test_orders_move_real_frames_only() -> None:
    mask = torch.tensor([True, True, True, True, False, False])
    found = dict(orders(mask, seed=0))
    assert found["forwards"][0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["backwards"][0].tolist() == [3, 2, 1, 0, 4, 5]
    assert len(found["shuffled"]) > 1
    for places in found["shuffled"]:
        assert sorted(places[:4].tolist()) == [0, 1, 2, 3]
        assert places[4:].tolist() == [4, 5]


def loaded(**options: Any) -> LoadedClassifier:
    torch.manual_seed(1)
    model = VideoClassifier(3, "test_resnet", dim=16, heads=2, attention=None, **options).eval()
    torch.nn.init.normal_(model.head[1].weight)
    return LoadedClassifier(model, ["a", "b", "c"], None, "")  # type: ignore[arg-type]


def clip(channels: int) -> Any:
    draw = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (1, 4, channels, 32, 32), dtype=torch.uint8, generator=draw)
    return {"video": video, "mask": torch.ones(1, 4, dtype=torch.bool), "pts": torch.arange(4.0)[None]}


def test_mean_pooling_does_not_see_the_order() -> None:
    """Whatever the label, it is as right in one order as in the other."""
    for label in range(3):
        found = answers_by_order(loaded(temporal="mean"), clip(3), label, seed=0)
        assert set(found) == {"forwards", "backwards", "shuffled"}
        assert len(set(found.values())) == 1
        pairs = answers_by_order(loaded(temporal="mean", two_stream=True), clip(6), label, seed=0)
        assert len({value for name, value in pairs.items() if "turned" not in name}) == 1
        assert len({value for name, value in pairs.items() if "turned" in name}) == 1


def test_a_model_that_reads_the_first_frame_does() -> None:
    model = loaded(temporal="mean")
    first = model.model.encode_frames(clip(3)["video"]).tokens[:, :1]
    classes = [int(model.model.classify(token[None, None]).logits.argmax()) for token in first[0]]

    def first_only(tokens: torch.Tensor, mask: torch.Tensor, pts: torch.Tensor) -> Any:
        equal = torch.equal(tokens[:, 0], first[:, 0])
        logits = torch.zeros(1, 3)
        logits[0, classes[0] if equal else (classes[0] + 1) % 3] = 1
        return type("Output", (), {"logits": logits})

    model.model.classify = first_only  # type: ignore[method-assign]
    found = answers_by_order(model, clip(3), classes[0], seed=0)
    assert found["forwards"] == 1
    assert found["backwards"] == 0
    assert 0 <= found["shuffled"] < 1


def test_the_probe_through_the_program(suite: Suite, tmp_path: Path, capsys: Any) -> None:
    checkpoint = suite.place.folder(rows()["transformer"], 0) / "checkpoints" / "best.ckpt"
    place, found = suite.place, tmp_path / "order.json"
    words = ["--suite=order", f"--config={place.config}", f"--root={place.root}", f"--splits={place.splits}"]
    assert main(["bench", "training", *words, f"--checkpoint={checkpoint}", f"--json={found}"]) == 0
    stored = json.loads(found.read_text())
    assert (stored["videos"], stored["failed"]) == (6, 0)
    orders_asked = ["forwards", "backwards", "shuffled"]
    assert [row["order"] for row in stored["orders"]] == orders_asked + [f"{o}, pairs turned" for o in orders_asked]
    run = finished_runs(rows()["transformer"], place)[0]
    assert stored["orders"][0]["top1"] == pytest.approx(np.mean(list(run.answers.values())))
    assert stored["orders"][0]["against_forwards"] == [0, 0, 0]
    assert "| backwards |" in capsys.readouterr().out
    assert main(["bench", "training", "--suite=order", "--root=x", "--splits=y"]) == 2
    assert "needs --checkpoint" in capsys.readouterr().err
