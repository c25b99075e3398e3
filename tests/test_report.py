"""Reports: self-contained, escaped, small, and saying what the inspection says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from PIL import Image

from temporal_attn.keyframes.charts import Bar, bar_chart, line_chart, score_bars, ticks
from temporal_attn.keyframes.film_strip import render_film_strip
from temporal_attn.keyframes.inspection import Inspection
from temporal_attn.keyframes.page import render_page
from temporal_attn.keyframes.pictures import data_uris, heat_uris, jpeg, overlaid
from temporal_attn.keyframes.report import GalleryEntry, render_gallery, render_report
from tests.inspections import make_complete_inspection, make_inspection, noise

HOSTILE = "<script>alert(1)</script>\"' onload=x&amp;.mp4"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements of a page with their attributes and texts; an element that is not closed properly is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]

    def text(self) -> str:
        return " ".join(" ".join(data for tag, data in self.texts if tag not in ("style", "script")).split())


def assert_stands_alone(html: str) -> Page:
    """No reference leaves the page, and the policy allows exactly what is inside."""
    page = Page(html)
    assert not re.search(r"(https?:)?//(?!\s)[\w.]+\.", re.sub(r"base64,[^\"]*", "", html))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "video", "audio")
        assert not {"srcset", "style", "poster", "action", "background"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert re.match(r"data:image/(jpeg|png);base64,", attributes.get("src", "data:image/png;base64,"))
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "@import" not in html
    assert "url(" not in html
    return page


def entry(folder: str, inspection: Inspection) -> GalleryEntry:
    return GalleryEntry.from_saved(folder, inspection.scores(), jpeg(inspection.pictures[0], longest=64))


def data_of(html: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" class="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def picture_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def frame_buttons(page: Page) -> list[dict[str, str | None]]:
    return [button for button in page.all("button") if (button["class"] or "").startswith("frame")]


@pytest.mark.parametrize("make", [make_inspection, make_complete_inspection])
def test_a_report_stands_alone_and_shows_every_frame(make):
    inspection = make()
    page = assert_stands_alone(render_report(inspection))
    buttons = frame_buttons(page)
    assert len(buttons) == 8
    assert sum(b["aria-pressed"] == "true" for b in buttons) == 1
    assert len(page.all("button", class_="frame key")) == 3
    for frame, button in zip(inspection.frames, buttons, strict=True):
        assert f"Frame {frame.index} · {frame.pts:.2f} s" in button["aria-label"]
        assert ("key frame" in button["aria-label"]) == frame.keyframe
    text = page.text()
    assert inspection.verdict in text
    assert "Archery" in text
    for number in ("0.72", "0.70", "0.11", "0.33", "0.66"):
        assert number in text
    assert all(value in text for value in inspection.provenance.values())


def test_every_picture_has_words_and_pixels():
    page = Page(render_report(make_inspection()))
    images = page.all("img")
    assert len(images) == 1 + 8 + 3
    assert sum(bool(image["alt"]) for image in images) == 1 + 3, "the button of a frame speaks for its picture"
    assert {picture_of(image["src"]).size for image in images} == {(64, 64), (128, 64)}


def test_bars_are_as_high_as_their_scores_and_stand_on_one_line():
    inspection = make_inspection()
    page = Page(render_film_strip(inspection))
    bars = [a for a in page.all("rect") if a.get("width") == "7"]
    (zero,) = {float(a["y1"]) for a in page.all("line", class_="zero")}
    highest, lowest = max(f.score for f in inspection.frames), min(f.score for f in inspection.frames)
    assert zero == pytest.approx(100 * highest / (highest - lowest), abs=0.01)
    for frame, bar in zip(inspection.frames, bars, strict=True):
        y, height = float(bar["y"]), float(bar["height"])
        assert height == pytest.approx(100 * abs(frame.score) / (highest - lowest), abs=0.02)
        assert (bar["class"], y + height if frame.score > 0 else y) == (
            "for" if frame.score > 0 else "against",
            pytest.approx(zero, abs=0.02),
        )


@pytest.mark.parametrize("render", [render_report, lambda i: render_gallery([entry("a", i)], [(HOSTILE, HOSTILE)])])
def test_hostile_names_are_text(render):
    inspection = replace(
        make_complete_inspection(video=HOSTILE),
        checkpoint=HOSTILE,
        verdict=HOSTILE,
        class_names=[HOSTILE + str(i) for i in range(7)],
    )
    html = render(inspection)
    page = assert_stands_alone(html)
    assert len([a for a in page.all("script") if not a]) == 1, "the other one is data"
    assert "<script>alert" not in html
    assert "script>" in page.text(), "the name is still readable"


@pytest.mark.parametrize(("length", "side"), [(1, 512), (16, 512), (200, 96)])
def test_a_report_stays_below_a_megabyte_even_for_noise(length, side):
    html = render_report(make_complete_inspection(length, side))
    assert len(html.encode()) < 1_000_000
    assert len(frame_buttons(Page(html))) == length


def test_a_report_without_key_frames_makes_no_claim():
    inspection = make_inspection()
    inspection = replace(
        inspection,
        frames=[replace(f, score=-1.0, rank=None) for f in inspection.frames],
        originals=[],
        evidence=replace(inspection.evidence, keyframes=0),
    )
    page = assert_stands_alone(render_report(inspection))
    assert not page.all("section", aria_label="Key frames")
    assert not page.all("section", aria_label="Evidence")
    assert page.all("section", aria_label="Provenance")
    assert "Only the" not in page.text()


@pytest.mark.parametrize(("method", "signed"), [("loo", True), ("attn_pool", False)])
def test_only_signed_scores_speak_for_and_against(method, signed):
    text = Page(render_report(replace(make_inspection(), method=method))).text()
    assert ("speaks against" in text) == signed
    assert ("not faithful" in text) != signed


def test_what_is_not_there_is_not_shown():
    plain, complete = (render_report(make()) for make in (make_inspection, make_complete_inspection))
    for part in ('class="heat"', 'class="target"', 'aria-label="Faithfulness"', "95 % interval"):
        assert part in complete
        assert part not in plain
    assert "SHA-256" not in plain


def test_every_class_of_the_switch_comes_with_its_numbers():
    inspection = make_complete_inspection()
    html = render_report(inspection)
    data = data_of(html)
    assert [view["target"] for view in data["views"]] == [0, 6, 1]
    assert data["views"][0]["scores"] == pytest.approx([f.score for f in inspection.frames])
    assert data["views"][2]["scores"] == pytest.approx(inspection.classes[1].scores)
    assert data["views"][1]["keyframes"] == inspection.classes[0].keyframes
    assert len(data["heat"]) == len(inspection.frames)
    assert [option["value"] for option in Page(html).all("option")] == ["0", "6", "1", "", "0", "6", "1"]


def test_intervals_that_nobody_could_see_are_not_drawn():
    inspection = make_complete_inspection()
    exact = [replace(f, ci=(f.score, f.score + 1e-6)) for f in inspection.frames]
    html = render_film_strip(replace(inspection, frames=exact, classes=()))
    assert 'class="ci"' not in html
    assert not [button for button in frame_buttons(Page(html)) if " to " in button["aria-label"]]


def test_doubts_are_said_aloud():
    text = Page(render_report(make_complete_inspection())).text()
    assert "Unreliable." in text
    assert "two halves of the budget disagree" in text


def test_a_contrast_is_named():
    inspection = replace(make_inspection(), against=6)
    text = Page(render_report(inspection)).text()
    assert "Archery not Surfing" in text
    assert "against Surfing (class 6)" in text


def test_a_target_outside_the_best_classes_is_shown():
    inspection = replace(make_inspection(), target=5)
    (chart,) = re.findall(r'<ul class="bars" aria-label="Most.*?</ul>', render_report(inspection))
    assert re.findall(r'class="name">(\w+)<', chart) == ["Archery", "Surfing", "Bowling", "Golf", "Rowing"]


def test_a_gallery_links_to_reports_and_lists_failures():
    entries = [entry(f"a b#{i}", make_inspection(video=f"x/{i}.mp4")) for i in range(2)]
    page = assert_stands_alone(render_gallery(entries, [("bad.mp4", "no video stream")]))
    assert [a["href"] for a in page.all("a")] == ["a%20b%230/report.html", "a%20b%231/report.html"]
    assert "bad.mp4 no video stream" in page.text()


def test_a_page_holds_several_film_strips():
    strips = Markup("").join(render_film_strip(make_inspection(n)) for n in (2, 5))
    page = assert_stands_alone(render_page("Demo <1>", strips))
    assert len(page.all("section", class_="film")) == 2
    assert ("title", "Demo <1>") in page.texts


def test_plain_text_in_a_page_is_escaped():
    assert "<b>" not in render_page("x", "<b>no markup</b>")  # type: ignore[arg-type]


def test_pictures_shrink_until_they_fit_and_keep_their_shape():
    images = [noise(240, 480, i) for i in range(4)]
    small, large = data_uris(images, budget=30_000), data_uris(images, budget=10**7)
    assert sum(map(len, small)) <= 30_000 < sum(map(len, large))
    assert {picture_of(uri).size for uri in large} == {(480, 240)}
    assert len({picture_of(uri).size for uri in small}) == 1
    assert max(picture_of(uri).size[0] for uri in data_uris(images, 10**7, longest=320)) == 320
    assert data_uris([], 1000) == []


def test_a_jpeg_shows_the_frame():
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3))
    decoded = np.asarray(Image.open(io.BytesIO(jpeg(ramp, quality=92))))
    assert np.abs(decoded.astype(int) - ramp).mean() < 2


def test_a_heat_map_covers_what_is_hot_and_nothing_else():
    image = noise(32, 32, 0)
    heat = np.zeros((4, 4), np.float32)
    assert np.array_equal(overlaid(image, heat), image)
    heat[0, 0] = 1
    covered = overlaid(image, heat, opacity=1.0)
    assert np.array_equal(covered[16:, 16:], image[16:, 16:])
    assert np.array_equal(covered[0, 0], [255, 226, 92])
    (uri,) = heat_uris([heat], 10_000)
    pixels = np.asarray(picture_of(uri))
    assert pixels.shape == (4, 4, 4)
    assert pixels[..., 3].max() == pixels[0, 0, 3] == 255
    assert np.count_nonzero(pixels[..., 3]) == 1


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 2), st.floats(0, 2)), min_size=1, max_size=12))
def test_signed_bars_stand_on_zero_and_stay_inside_with_their_intervals(rows):
    scores = [score for score, _, _ in rows]
    zero, bars = score_bars(scores, [(score - low, score + high) for score, low, high in rows])
    edges = [edge for bar in bars for edge in (bar.y, bar.y + bar.height, *bar.interval)]
    assert min(edges) >= -1e-6
    assert max(edges) <= 100 + 1e-6
    for score, bar in zip(scores, bars, strict=True):
        assert bar.positive == (score > 0)
        assert (bar.y + bar.height if bar.positive else bar.y) == pytest.approx(zero, abs=1e-6)
        assert bar.interval[0] >= bar.interval[1], "y runs down, so the lower end stands below"


def test_bars_are_text_and_length():
    page = Page(bar_chart([Bar("a<b", 0.25, "25 %"), Bar("c", 7.0, "7", strong=True)], "Shares"))
    assert page.text() == "a<b 25 % c 7"
    assert [a["width"] for a in page.all("rect", class_="fill")] == ["25.00", "100.00"]


def test_lines_go_through_their_points():
    page = Page(line_chart({"a": [(0, 0.0), (5, 1.0), (10, 2.0)], "b": [(0, math.nan), (10, 0.0)]}, "epoch", "loss"))
    (first,) = page.all("polyline", class_="line hue0")
    points = [tuple(map(float, point.split(","))) for point in first["points"].split()]
    assert np.diff([x for x, _ in points]).tolist() == pytest.approx([137, 137])
    assert np.diff([y for _, y in points]).tolist() == pytest.approx([-90, -90])
    (second,) = page.all("polyline", class_="line hue1")
    assert len(second["points"].split()) == 1, "what is not finite is left out"
    assert page.all("svg")[0]["aria-label"] == "loss over epoch: b ends at 0; a ends at 2"
    names = [float(a["y"]) for a in page.all("text") if a["class"].startswith("series")]
    assert names == sorted(names, reverse=True)


def test_names_of_lines_that_end_together_do_not_overlap():
    page = Page(line_chart({name: [(0, 1.0), (1, 0.5)] for name in "abc"}, "epoch", "loss"))
    names = sorted(float(a["y"]) for a in page.all("text") if a["class"].startswith("series"))
    assert min(np.diff(names)) >= 13


def test_no_points_are_an_empty_chart():
    assert not Page(line_chart({"a": []}, "epoch", "loss")).all("polyline")


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_enclose_the_range_with_round_steps(low, width):
    marks = ticks(low, low + width)
    step = marks[1] - marks[0]
    assert 2 <= len(marks) <= 6
    assert marks[0] <= low + step * 1e-6
    assert marks[-1] >= low + width - step * 1e-6
    assert any(math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-6), r, rel_tol=1e-4) for r in (1, 2, 5))
