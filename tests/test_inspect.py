"""Inspection from file to files: planted frames in encoded videos, found, tested, written and shown."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn

from datamodules.dataset import load_clip
from temporal_attn.inference import LoadedClassifier, load_classifier, predict_video
from temporal_attn.keyframes import inspect_video, inspect_videos
from temporal_attn.keyframes.batch import unique_ids
from temporal_attn.module import VideoClassificationModule
from temporal_attn.types import ClipSpec, FrameFeatures, ModelOutput, UserError, VideoError
from tests.videos import numbered_frames, read_number, write_text, write_video

COLOURS = ["red", "green", "blue"]


class ColourModel(nn.Module):
    """Says which colour the clip shows: the logit of a colour is the sum of its brightness over the seen frames."""

    mixes_time = False

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.encoded = 0

    def encode_frames(self, video: Tensor, *, maps: bool = False) -> FrameFeatures:
        self.encoded += video.shape[1]
        return FrameFeatures(self.scale * video.float().mean((-2, -1)) / 255)

    def classify(self, tokens: Tensor, mask: Tensor | None = None, pts: Tensor | None = None) -> ModelOutput:
        assert mask is not None
        weights = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
        return ModelOutput((tokens * mask[..., None]).sum(1), weights)


def spec(num_frames: int = 8, repeat_short: bool = True) -> ClipSpec:
    return {
        "num_frames": num_frames,
        "sampling": "uniform",
        "stride": 1,
        "resize": 32,
        "crop": 32,
        "repeat_short": repeat_short,
    }


def colour_classifier(clip: ClipSpec | None = None) -> LoadedClassifier:
    model = ColourModel().eval()
    return LoadedClassifier(model, COLOURS, clip or spec(), "colour.ckpt")  # type: ignore[arg-type]


def colour_video(path: Path, colours: str, fps: float = 10) -> Path:
    """One frame a letter: r, g, b, or - for grey."""
    palette = {"r": (230, 20, 20), "g": (20, 230, 20), "b": (20, 20, 230), "-": (90, 90, 90)}
    frames = np.stack([np.full((64, 96, 3), palette[letter], np.uint8) for letter in colours])
    return write_video(path, frames, fps=fps, gop=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier with real CBAM and temporal attention, untrained."""
    torch.manual_seed(0)
    module = VideoClassificationModule(
        class_names=["zero", "one", "two"], clip_spec=dict(spec()), backbone="test_resnet", dim=32, heads=4
    )
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
    trainer.strategy.connect(module)
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_planted_frames_are_the_key_frames(tmp_path):
    video = colour_video(tmp_path / "clip.mp4", "---r--r-")
    found = inspect_video(colour_classifier(), video, topk=3)
    assert (found.target_name, found.method) == ("red", "auto")
    assert [f.index for f in found.frames] == list(range(8))
    assert [f.pts for f in found.frames] == pytest.approx([i / 10 for i in range(8)])
    assert {f.index for f in found.keyframes[:2]} == {3, 6}
    grey = [f.score for f in found.frames if f.index not in (3, 6)]
    assert min(f.score for f in found.frames if f.index in (3, 6)) > 10 * max(map(abs, grey))


def test_scores_are_the_models_own_differences(tmp_path):
    loaded, video = colour_classifier(), colour_video(tmp_path / "clip.mp4", "rg-bbr-g")
    found = inspect_video(loaded, video, target="blue")
    frames = load_clip(video, loaded.clip)["video"][0].float().mean((-2, -1)) / 255 * 4
    expected = frames[:, 2] - (frames[:, 0] + frames[:, 1]) / 2
    assert [f.score for f in found.frames] == pytest.approx(expected.tolist(), abs=1e-3)
    logits = frames.sum(0)
    assert found.logits == pytest.approx(logits.tolist(), abs=1e-4)
    assert found.probabilities == pytest.approx(logits.softmax(0).tolist(), abs=1e-5)
    assert found.evidence.full == pytest.approx(found.probabilities[2])


def test_the_backbone_sees_each_frame_once(tmp_path):
    loaded = colour_classifier()
    inspect_video(loaded, colour_video(tmp_path / "clip.mp4", "rg-bbr-g"))
    assert loaded.model.encoded == 8


def test_a_target_that_is_not_predicted(tmp_path):
    found = inspect_video(colour_classifier(), colour_video(tmp_path / "clip.mp4", "rrrrrrb-"), target="blue", topk=1)
    assert [f.index for f in found.keyframes] == [6]
    assert found.verdict.startswith("The model sees red here")


@pytest.mark.parametrize("repeat_short", [True, False])
def test_a_short_video_has_no_more_frames_than_it_has(tmp_path, repeat_short):
    video = colour_video(tmp_path / "short.mp4", "-r-")
    found = inspect_video(colour_classifier(spec(8, repeat_short)), video, topk=1)
    assert [f.index for f in found.frames] == [0, 1, 2]
    assert [f.index for f in found.keyframes] == [1]
    assert len(found.pictures) == 3


@pytest.mark.parametrize("repeat_short", [True, False])
def test_a_video_of_one_frame(tmp_path, repeat_short):
    video = colour_video(tmp_path / "one.mp4", "r")
    found = inspect_video(colour_classifier(spec(8, repeat_short)), video)
    assert [f.index for f in found.frames] == [0]
    assert "only one frame" in found.verdict
    report = found.save(tmp_path / "out")
    assert "only one frame" in report.read_text("utf-8")


def test_files_of_a_saved_inspection(tmp_path):
    video = write_video(tmp_path / "clip.mp4", numbered_frames(20, 64, 96), fps=12.5, gop=1)
    found = inspect_video(colour_classifier(), video, topk=2)
    report = found.save(tmp_path / "deep" / "out")
    out = report.parent

    scores = json.loads((out / "scores.json").read_text("utf-8"))
    assert scores["schema"] == "temporal_attn/scores/1"
    assert {"video", "checkpoint", "target", "method", "frames", "logits", "verdict"} <= set(scores)
    assert scores["target"] == {"class": found.target_name, "index": found.target}
    assert list(scores["logits"]) == list(scores["probabilities"]) == COLOURS
    assert sum(scores["probabilities"].values()) == pytest.approx(1)
    assert scores["clip"] == spec()
    assert scores["evidence"]["finding"] == found.evidence.finding.value
    assert [f["index"] for f in scores["frames"] if f["keyframe"]] == sorted(f.index for f in found.keyframes)

    with (out / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(r["index"]) for r in rows] == [f["index"] for f in scores["frames"]]
    assert [float(r["pts"]) for r in rows] == pytest.approx([f["pts"] for f in scores["frames"]], abs=1e-6)
    assert [float(r["score"]) for r in rows] == pytest.approx([f["score"] for f in scores["frames"]], abs=1e-6)
    assert [r["keyframe"] == "1" for r in rows] == [f["keyframe"] for f in scores["frames"]]

    pictures = sorted(out.glob("*.jpg"))
    assert len(pictures) == len(found.keyframes) > 0
    for frame, picture in zip(found.keyframes, pictures, strict=True):
        assert picture.name == f"keyframe_{frame.rank:02d}_{frame.index / 12.5:.3f}s_frame{frame.index:04d}.jpg"
        pixels = np.asarray(Image.open(picture))
        assert pixels.shape == (64, 96, 3), "key frames are saved as the file holds them"
        assert read_number(pixels) == frame.index


def test_saving_again_leaves_no_old_key_frames_and_keeps_other_files(tmp_path):
    loaded, out = colour_classifier(), tmp_path / "out"
    video = colour_video(tmp_path / "clip.mp4", "-r-rr-r-")
    inspect_video(loaded, video, topk=3).save(out)
    (out / "notes.jpg").write_bytes(b"mine")
    inspect_video(loaded, video, topk=1).save(out)
    assert len(list(out.glob("keyframe_*"))) == 1
    assert (out / "notes.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "purple"}, "target"),
        ({"target": 3}, "target"),
        ({"method": "rollout"}, "method"),
        ({"removal": "burn"}, "removal"),
        ({"regions": "rays"}, "regions"),
        ({"topk": 0}, "topk"),
        ({"reader": "opencv"}, "opencv"),
    ],
)
def test_wrong_use(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        inspect_video(colour_classifier(), colour_video(tmp_path / "clip.mp4", "rgbrgbrg"), **options)


def test_an_unreadable_video(tmp_path):
    with pytest.raises(VideoError, match=r"text\.mp4"):
        inspect_video(colour_classifier(), write_text(tmp_path / "text.mp4"))


def test_a_trained_kind_of_model_agrees_with_its_prediction(tmp_path, checkpoint):
    video = write_video(tmp_path / "clip.mp4", numbered_frames(30, 48, 64))
    loaded = load_classifier(checkpoint)
    found = inspect_video(loaded, video)
    prediction = predict_video(loaded, video)
    assert dict(zip(loaded.class_names, found.probabilities, strict=True)) == pytest.approx(
        prediction["probabilities"], abs=1e-5
    )
    assert [f.pts for f in found.frames] == pytest.approx([f["pts"] for f in prediction["frames"]], abs=1e-5)
    assert found.target_name == prediction["class"]
    weights = inspect_video(loaded, video, method="attn_pool")
    assert [f.score for f in weights.frames] == pytest.approx([f["weight"] for f in prediction["frames"]], abs=1e-5)


def test_one_video_is_written_to_the_folder_itself(tmp_path, checkpoint, capsys):
    video = write_video(tmp_path / "clip.mp4", numbered_frames(30, 48, 64))
    assert inspect_videos([video], checkpoint, tmp_path / "out", topk=1) == 0
    names = {p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".jpg"}
    assert names == {"scores.json", "scores.csv", "report.html"}
    stdout, stderr = capsys.readouterr()
    assert len(stdout.splitlines()) == 1
    assert "[1/1]" in stderr


def test_a_broken_video_does_not_stop_the_others(tmp_path, checkpoint, capsys):
    clips = tmp_path / "clips"
    (clips / "more").mkdir(parents=True)
    frames = numbered_frames(12, 48, 64)
    write_video(clips / "a.mp4", frames)
    write_text(clips / "b.mp4")
    write_video(clips / "more" / "a.avi", frames, codec="mpeg4")
    (clips / "notes.txt").write_text("no video")
    assert inspect_videos([clips, tmp_path / "gone.mp4"], checkpoint, tmp_path / "out") == 1

    assert (tmp_path / "out" / "a" / "report.html").is_file()
    assert (tmp_path / "out" / "a-2" / "scores.json").is_file()
    assert not (tmp_path / "out" / "b").exists()
    index = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert 'href="a/report.html"' in index
    assert 'href="a-2/report.html"' in index
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "b.mp4" in errors[0]
    assert "gone.mp4" in errors[1]
    assert all(name in index for name in ("b.mp4", "gone.mp4"))


def test_a_batch_goes_on_where_it_stopped(tmp_path, checkpoint, capsys):
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in "abc":
        write_video(clips / f"{name}.mp4", numbered_frames(12, 48, 64))
    out = tmp_path / "out"
    assert inspect_videos([clips], checkpoint, out, method="loo") == 0
    reports = {name: out / name / "report.html" for name in "abc"}
    (out / "b" / "done.json").write_text("{torn")
    for report in reports.values():
        report.write_text("seen")
    write_video(clips / "c.mp4", numbered_frames(14, 48, 64))
    capsys.readouterr()

    assert inspect_videos([clips], checkpoint, out, method="loo") == 0
    assert [name for name, report in reports.items() if report.read_text("utf-8") != "seen"] == ["b", "c"]
    assert capsys.readouterr().err.count("done before") == 1
    table = pyarrow.parquet.read_table(out / "scores.parquet").to_pylist()
    assert [row["id"] for row in table] == [name for name in "abc" for _ in range(8)]
    own = json.loads((out / "c" / "scores.json").read_text("utf-8"))
    assert [row["score"] for row in table if row["id"] == "c"] == [frame["score"] for frame in own["frames"]]
    index = (out / "index.html").read_text("utf-8")
    assert all(f'href="{name}/report.html"' in index for name in "abc")

    assert inspect_videos([clips], checkpoint, out, method="loo", topk=1) == 0, "other options, other files"
    assert all(report.read_text("utf-8") != "seen" for report in reports.values())


def test_a_contrast_is_the_difference_that_the_page_computes(tmp_path):
    loaded, video = colour_classifier(), colour_video(tmp_path / "clip.mp4", "rg-bbr-g")
    contrast = inspect_video(loaded, video, target=("blue", "red"))
    classes = {view.target: view.scores for view in contrast.classes}
    share = (len(COLOURS) - 1) / len(COLOURS)
    expected = [share * (b - r) for b, r in zip(classes[2], classes[0], strict=True)]
    assert [f.score for f in contrast.frames] == pytest.approx(expected, abs=1e-4)


def test_regions_are_computed_where_the_model_has_maps(tmp_path, checkpoint):
    video = write_video(tmp_path / "clip.mp4", numbered_frames(30, 48, 64))
    found = inspect_video(load_classifier(checkpoint), video)
    assert found.heatmaps is not None
    assert found.heatmaps.shape[0] == len(found.frames)
    assert 0 <= found.heatmaps.min() <= found.heatmaps.max() <= 1
    without = inspect_video(colour_classifier(), video)
    assert without.heatmaps is None
    assert without.regions.startswith("none (")
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert found.checkpoint_sha256 == digest
    assert without.checkpoint_sha256 == ""


def test_a_folder_that_cannot_be_written_is_found_out_first(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="out: cannot be written"):
        inspect_videos(["x.mp4"], tmp_path / "no.ckpt", tmp_path / "out")


def test_ids_are_unique_and_safe():
    paths = [
        Path(p) for p in ("x/a.mp4", "y/A.avi", "z/a-2.mp4", "<b>&|?.mp4", "..mp4", "index.html.mp4", "käse+1.mp4")
    ]
    ids = unique_ids(paths)
    assert ids == ["a", "A-2", "a-2-2", "b", "video", "index.html-2", "käse+1"]


@pytest.mark.shared_data
def test_real_clips(tmp_path, checkpoint, shared_data):
    videos = sorted(shared_data.glob("ucf101_20/*/*.mp4"))[::700]
    assert inspect_videos(videos, checkpoint, tmp_path) == 0
    for video in videos:
        scores = json.loads((tmp_path / video.stem / "scores.json").read_text("utf-8"))
        assert len(scores["frames"]) == 8
        assert all(math.isfinite(f["score"]) for f in scores["frames"])
        assert (tmp_path / video.stem / "report.html").stat().st_size < 1_000_000


def test_a_long_video_is_taken_by_stretches(tmp_path):
    video = colour_video(tmp_path / "long.mp4", "-" * 30 + "rrrr" + "-" * 26, fps=1)
    found = inspect_video(colour_classifier(), video, target="red", regions="none", max_step_s=1)
    assert len(found.frames) == 59, "a frame for each of the seconds between the first and the last"
    assert found.clip["num_frames"] == 59
    assert {30 <= f.index < 34 for f in found.keyframes} == {True}
    assert sum(frame.score for frame in found.frames) == pytest.approx(sum(s.score for s in found.stretches), abs=1e-3)
    best = max(found.stretches, key=lambda stretch: stretch.score)
    assert best.looked_into
    assert set(best.frames) & {30, 31, 32, 33}
    assert [frame for stretch in found.stretches for frame in stretch.frames] == [f.index for f in found.frames]
    assert f"the one from {best.start:.1f} s to {best.end:.1f} s adds most" in found.verdict
    scores = found.scores()
    assert scores["looked_at"] == pytest.approx(59 / 60)
    assert sum(stretch["looked_into"] for stretch in scores["stretches"]) == 3
    assert found.faithfulness is not None
    assert found.faithfulness.reliable
    page = found.save(tmp_path / "out").read_text("utf-8")
    assert "Stretches of the video" in page


def test_a_long_video_as_one_clip(tmp_path):
    video = colour_video(tmp_path / "long.mp4", "-" * 30 + "rrrr" + "-" * 26, fps=1)
    found = inspect_video(colour_classifier(), video, max_step_s=math.inf, regions="none")
    assert len(found.frames) == 8
    assert not found.stretches
    assert found.scores()["looked_at"] == pytest.approx(8 / 60)
    with pytest.raises(UserError, match="max_step_s"):
        inspect_video(colour_classifier(), video, max_step_s=0)


def test_other_methods_score_all_frames_of_a_long_video(tmp_path):
    video = colour_video(tmp_path / "long.mp4", "r" * 4 + "-" * 36, fps=1)
    found = inspect_video(colour_classifier(), video, method="loo+loi", target="red", regions="none", max_step_s=1)
    assert len(found.frames) == 39
    assert not found.stretches
    assert {f.index for f in found.keyframes} <= {0, 1, 2, 3}


def test_a_backbone_that_mixes_time_is_asked_with_the_frames_themselves(tmp_path, caplog):
    class Shifted(ColourModel):
        mixes_time = True

        def encode_frames(self, video, *, maps=False):
            tokens = super().encode_frames(video).tokens
            return FrameFeatures(tokens + torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1))

    video = colour_video(tmp_path / "clip.mp4", "--r-" + "-" * 36, fps=1)
    loaded = LoadedClassifier(Shifted().eval(), COLOURS, spec(4), "colour.ckpt")  # type: ignore[arg-type]
    found = inspect_video(loaded, video, target="red", method="loi")
    assert len(found.frames) == 4, "never by stretches"
    assert "mixes time" in caplog.text
    frames = load_clip(video, loaded.clip)["video"][0].float().mean((-2, -1)) / 255 * 4
    alone = frames[:, 0] - (frames[:, 1] + frames[:, 2]) / 2
    assert [f.score for f in found.frames] == pytest.approx(alone.tolist(), abs=1e-3)


def test_a_contrast_has_a_verdict_of_its_own(tmp_path):
    found = inspect_video(colour_classifier(), colour_video(tmp_path / "clip.mp4", "rrrrrrb-"), target="blue-red")
    assert found.verdict.startswith("The model sees red here")
    assert ", not blue." in found.verdict
    assert "p(blue of the two)" in found.verdict
    assert found.evidence.full == pytest.approx(
        found.probabilities[2] / (found.probabilities[2] + found.probabilities[0]), abs=1e-6
    )


def test_a_condition_makes_the_command_fail(tmp_path, checkpoint, capsys):
    video = colour_video(tmp_path / "clip.mp4", "rg-bbr-g")
    options = {"checkpoint": checkpoint, "out": tmp_path / "out", "formats": ["json"], "regions": "none", "classes": 1}
    assert inspect_videos([video], **options, fail_if="full>=0") == 1
    assert "full>=0 holds" in capsys.readouterr().err
    assert inspect_videos([video], **options, fail_if="full<0") == 0
