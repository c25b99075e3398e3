"""Files of an inspection, read back by other programs: schema, tables, pictures, a film, cut lists."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import replace
from importlib import resources

import av
import jsonschema
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from temporal_attn.keyframes.cuts import edit_decision_list, ffconcat, segments
from temporal_attn.keyframes.exports import FORMATS
from temporal_attn.keyframes.sheets import contact_sheet, film_strip
from temporal_attn.types import UserError
from tests.inspections import make_complete_inspection, make_inspection
from tests.videos import numbered_frames, read_number, write_video


@pytest.fixture(scope="module")
def schema() -> dict:
    return json.loads((resources.files("temporal_attn.keyframes") / "schemas" / "scores-1.json").read_text("utf-8"))


@pytest.mark.parametrize("make", [make_inspection, make_complete_inspection])
def test_scores_follow_the_published_schema(schema, make):
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(make().scores())), schema)


def test_a_contrast_follows_the_schema_too(schema):
    jsonschema.validate(json.loads(json.dumps(replace(make_complete_inspection(), against=1).scores())), schema)


@pytest.mark.parametrize("more", [{"crop": [112, 168]}, {"sampling": "seconds", "fps": 7.5}, {"lag": 0.2}])
def test_every_way_to_cut_a_clip_follows_the_schema(schema, more):
    plain = make_inspection()
    document = replace(plain, clip={**plain.clip, **more}).scores()  # type: ignore[typeddict-item]
    jsonschema.validate(json.loads(json.dumps(document)), schema)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("frames"),
        lambda d: d["frames"][0].update(score="high"),
        lambda d: d["frames"][0].update(ci=[1.0]),
        lambda d: d["evidence"].update(full=1.5),
        lambda d: d.update(schema="temporal_attn/scores/2"),
        lambda d: d.update(checkpoint_sha256="abc"),
        lambda d: d["clip"].update(crop=[112]),
    ],
)
def test_the_schema_refuses_what_is_wrong(schema, spoil):
    document = copy.deepcopy(make_complete_inspection().scores())
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_every_format_is_written(tmp_path):
    inspection = make_complete_inspection()
    report = inspection.save(tmp_path, ["all"])
    assert report == tmp_path / "report.html"
    names = {path.name for path in tmp_path.iterdir()}
    assert {"strip.png", "contact_sheet.png", "overlay.mp4", "keyframes.ffconcat", "keyframes.edl"} <= names
    assert sum(name.startswith("thumb_") for name in names) == len(inspection.frames)
    assert "thumb_002_0.200s_frame0005.jpg" in names
    assert make_inspection().save(tmp_path / "two", ["csv", "json"]) == tmp_path / "two"
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"scores.csv", "scores.json"}


def test_an_unknown_format_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"'docx'.*json, csv"):
        make_inspection().save(tmp_path / "out", ["json", "docx"])
    assert not (tmp_path / "out").exists()


def test_tables_say_what_the_frames_say(tmp_path):
    inspection = make_complete_inspection()
    inspection.save(tmp_path, ["csv", "parquet"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text())))
    table = pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    for frame, row, record in zip(inspection.frames, rows, table, strict=True):
        assert (int(row["index"]), int(row["keyframe"])) == (frame.index, int(frame.keyframe))
        assert (record["index"], record["pts"], record["rank"]) == (frame.index, frame.pts, frame.rank)
        assert float(row["ci_low"]) == pytest.approx(record["ci_low"]) == pytest.approx(frame.ci[0])
        assert record["score"] == frame.score
    plain = make_inspection()
    plain.save(tmp_path, ["parquet"])
    assert pyarrow.parquet.read_table(tmp_path / "scores.parquet")["ci_high"].to_pylist() == [None] * 8


@pytest.mark.parametrize("length", [1, 8, 40])
@pytest.mark.parametrize("make", [make_inspection, make_complete_inspection])
def test_sheets_hold_every_frame(make, length):
    inspection = make(length)
    strip, sheet = film_strip(inspection), contact_sheet(inspection)
    assert strip.dtype == sheet.dtype == np.uint8
    assert strip.shape[1] >= 134 * length
    assert sheet.shape[0] >= 284 * -(-length // 4)


def test_a_strip_shows_the_frames_in_their_colours():
    inspection = make_inspection(4)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    strip = film_strip(replace(inspection, pictures=pictures))
    assert [tuple(strip[140, 24 + 134 * i + 64]) for i in range(4)] == colours


def test_the_film_keeps_the_times_and_shows_the_frames(tmp_path):
    inspection = make_inspection(5)
    frames = [replace(f, pts=1.0 + t) for f, t in zip(inspection.frames, (0, 0.1, 0.5, 0.6, 1.6), strict=True)]
    numbered = replace(inspection, frames=frames, pictures=list(numbered_frames(5, 64, 64, first=7)))
    numbered.save(tmp_path, ["video"])
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        decoded = list(container.decode(video=0))
    assert [float(frame.pts * frame.time_base) for frame in decoded[:5]] == pytest.approx([0, 0.1, 0.5, 0.6, 1.6])
    pictures = [frame.to_ndarray(format="rgb24") for frame in decoded]
    assert [read_number(picture[:448]) for picture in pictures[:5]] == [7, 8, 9, 10, 11]
    assert len(decoded) == 6, "the last frame lasts as long as the others do on average"


def test_segments_meet_in_the_middle_and_join():
    inspection = make_inspection(6)
    rank = {1: 1, 2: 2, 5: 3}
    frames = [replace(f, pts=float(i), rank=rank.get(i)) for i, f in enumerate(inspection.frames)]
    found = segments(replace(inspection, frames=frames, file_seconds=5.5))
    assert [tuple(segment) for segment in found] == [(0.5, 2.5), (4.5, 5.5)]
    assert segments(replace(inspection, frames=[replace(f, rank=None) for f in frames])) == []


def test_ffmpeg_reads_the_script_whatever_the_name(tmp_path):
    video = write_video(tmp_path / "it's [a] clip #1.mp4", numbered_frames(40, 64, 96), fps=10, gop=1)
    inspection = make_inspection(8, video=str(video))
    frames = [replace(f, pts=0.5 * i, rank=1 if i == 4 else None) for i, f in enumerate(inspection.frames)]
    script = tmp_path / "keyframes.ffconcat"
    script.write_text(ffconcat(replace(inspection, frames=frames, file_seconds=4.0)), encoding="utf-8")
    with av.open(str(script), format="concat", options={"safe": "0"}) as container:
        numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert set(range(18, 22)) <= set(numbers) <= set(range(17, 24)), "the middle between its neighbours, around 2.0 s"


def test_an_edit_decision_list_counts_frames():
    inspection = make_inspection(4, video="a\nb.mp4")
    frames = [replace(f, pts=60.0 * i, rank=1 if i in (1, 3) else None) for i, f in enumerate(inspection.frames)]
    text = edit_decision_list(replace(inspection, frames=frames, file_seconds=181.0, file_fps=25.0))
    events = [line.split()[4:] for line in text.splitlines() if line[:3].isdigit()]
    assert events == [
        ["00:00:30:00", "00:01:30:00", "00:00:00:00", "00:01:00:00"],
        ["00:02:30:00", "00:03:01:00", "00:01:00:00", "00:01:31:00"],
    ]
    assert "* FROM CLIP NAME: a b.mp4" in text


@pytest.mark.parametrize("start", [0.0, 100.0])
def test_an_edit_decision_list_counts_the_frames_of_a_fractional_rate_from_the_first(start):
    inspection, fps = make_inspection(3), 30000 / 1001
    places = [0, 9000, 18000]  # frames of the file
    frames = [
        replace(f, index=place, pts=start + place / fps, rank=1 if place == 9000 else None)
        for f, place in zip(inspection.frames, places, strict=True)
    ]
    found = replace(inspection, frames=frames, file_fps=fps, file_start=start, file_seconds=start + 18001 / fps)
    (event,) = [line.split()[4:6] for line in edit_decision_list(found).splitlines() if line[:3].isdigit()]
    assert event == ["00:02:30:00", "00:07:30:00"], "frames 4500 and 13500, counted by thirties"


@pytest.mark.parametrize("name", ["a\nb.mp4", "a\rb.mp4"])
def test_a_name_that_the_script_cannot_hold_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(UserError, match=r"ffconcat.*line break"):
        make_inspection(video=name).save(tmp_path / "out", ["json", "ffconcat"])
    assert not (tmp_path / "out").exists()


def test_pictures_of_an_earlier_save_are_gone(tmp_path):
    make_inspection(8).save(tmp_path, ["thumbs", "keyframes"])
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    make_inspection(4).save(tmp_path, ["thumbs"])
    assert {path.name.split("_")[0] for path in tmp_path.iterdir()} == {"thumb", "mine.jpg"}
    assert len(list(tmp_path.glob("thumb_*"))) == 4
    assert Image.open(next(tmp_path.glob("thumb_*"))).size == (64, 64)


def test_formats_are_the_ones_that_are_documented():
    import inspect as source

    from temporal_attn.keyframes import inspect_videos

    documented = source.getdoc(inspect_videos).partition("formats: Files of a video:")[2].partition("\n\n")[0]
    for name in FORMATS:
        assert name in documented
