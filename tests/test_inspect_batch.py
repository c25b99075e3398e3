"""Many videos in one call: what is done is whole, what fails stays alone, and what is found is a video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temporal_attn.inference import LoadedClassifier
from temporal_attn.keyframes import exports, inspect_videos
from temporal_attn.keyframes.exports import named_formats
from temporal_attn.types import UserError
from tests.test_inspect import colour_classifier, colour_video, spec


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two videos, and a classifier without a file."""
    import temporal_attn.inference
    from temporal_attn.keyframes import batch

    (tmp_path / "best.ckpt").write_bytes(b"")
    monkeypatch.setattr(temporal_attn.inference, "load_classifier", lambda path, device: loaded())
    monkeypatch.setattr(batch, "file_digest", lambda path: "0" * 64)
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        colour_video(tmp_path / "clips" / f"{name}.mp4", "rg-bbr-g")
    return tmp_path / "clips"


def loaded() -> LoadedClassifier:
    return colour_classifier(spec(4))


def inspected(clips: Path, **options: object) -> int:
    settings = {"regions": "none", "classes": 0, "formats": "json,csv", **options}
    return inspect_videos([clips], "best.ckpt", clips.parent / "out", **settings)  # type: ignore[arg-type]


def method_of(clips: Path, name: str) -> str:
    return json.loads((clips.parent / "out" / name / "scores.json").read_text("utf-8"))["method"]


def test_an_interrupted_run_with_other_options_is_not_taken_for_the_earlier_one(clips, monkeypatch):
    assert inspected(clips) == 0
    with monkeypatch.context() as cut:
        cut.setitem(exports.FORMATS, "csv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            inspected(clips, method="loo")
    assert method_of(clips, "a") == "loo"
    assert inspected(clips) == 0
    assert method_of(clips, "a") == method_of(clips, "b") == "auto"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_file_that_is_gone_is_written_again(clips, capsys):
    assert inspected(clips) == 0
    (clips.parent / "out" / "a" / "scores.csv").unlink()
    assert inspected(clips) == 0
    assert capsys.readouterr().err.count("done before") == 1
    assert (clips.parent / "out" / "a" / "scores.csv").is_file()


def test_what_one_video_does_not_allow_is_its_own_failure(clips, capsys):
    colour_video(clips / "c.mp4", "r" * 40, fps=1)  # 20 frames, too many for exact
    assert inspected(clips, method="exact") == 1
    assert "c.mp4: method: exact" in capsys.readouterr().err
    assert "c.mp4" in (clips.parent / "out" / "index.html").read_text("utf-8")
    assert method_of(clips, "b") == "exact"


def test_a_clip_that_leaves_a_measure_out_is_named(clips, capsys):
    colour_video(clips / "one.mp4", "r")
    inspected(clips, fail_if="ndel<-9")
    assert "one.mp4: ndel<-9 was not tested, this clip has no ndel" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "rays"},
        {"removal": "burn"},
        {"regions": "rays"},
        {"topk": 0},
        {"min_gap_s": -1.0},
        {"classes": -1},
        {"budget": 0},
        {"max_step_s": 0.0},
        {"target": "purple"},
        {"reader": "opencv"},
        {"method": "chefer"},
    ],
)
def test_what_is_wrong_for_every_video_stops_at_once(clips, wrong, capsys):
    with pytest.raises(UserError, match=next(iter(wrong))):
        inspected(clips, **wrong)
    assert "[2/2]" not in capsys.readouterr().err


def test_films_of_an_earlier_run_are_no_videos(clips, capsys):
    out = clips / "results"
    options = {"regions": "none", "classes": 0, "formats": "video"}
    for _ in range(2):
        assert inspect_videos([clips], "best.ckpt", out, **options) == 0
        assert "[1/2]" in capsys.readouterr().err, "two videos each time"
    assert inspect_videos([out / "a" / "overlay.mp4"], "best.ckpt", clips.parent / "two", **options) == 0


@pytest.mark.parametrize(("formats", "linked"), [("json", False), ("json, html", True)])
def test_the_gallery_links_reports_that_there_are(clips, formats, linked):
    assert inspected(clips, formats=formats) == 0
    index = (clips.parent / "out" / "index.html").read_text("utf-8")
    assert ('href="a/report.html"' in index) == linked
    assert "a.mp4" in index


def test_formats_are_words_or_a_list():
    assert named_formats("all") == named_formats(["all"]) == named_formats("[all]") == list(exports.FORMATS)
    assert named_formats("json, csv") == named_formats(["json", "csv"]) == ["json", "csv"]
    with pytest.raises(UserError, match=r"'jsn'.*json, csv"):
        named_formats("jsn")


def test_what_a_format_is_said_to_write_is_written(tmp_path):
    from tests.inspections import make_complete_inspection

    make_complete_inspection().save(tmp_path, "all")
    assert all((tmp_path / name).is_file() for name in exports.FILES.values())
