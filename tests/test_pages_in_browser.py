"""Pages in a real browser: nothing leaves, nothing is complained of, and everything can be worked and heard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from temporal_attn.keyframes.page import signed
from temporal_attn.keyframes.pictures import jpeg
from temporal_attn.keyframes.report import GalleryEntry, render_gallery, render_report
from tests.browser import Watched, launched, serious_faults
from tests.inspections import make_complete_inspection

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=document.title='taken'>\"'.mp4"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inspection = make_complete_inspection(video=HOSTILE)
    return inspection.save(tmp_path_factory.mktemp("report"), ["html"])


@pytest.fixture
def watched(browser: Browser, report: Path) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    found = Watched(context.new_page())
    found.page.goto(report.as_uri())
    yield found
    assert not [url for url in found.requests if not url.startswith(("data:", "file:"))]
    assert found.complaints == []
    context.close()


def heights(watched: Watched) -> list[str]:
    return watched.page.eval_on_selector_all(".score rect", "bars => bars.map(bar => bar.getAttribute('height'))")


def test_only_the_page_itself_is_asked_for(watched: Watched, report: Path):
    assert [url for url in watched.requests if not url.startswith("data:")] == [report.as_uri()]
    assert watched.page.title() != "taken"
    assert HOSTILE in watched.page.inner_text("h1")


def test_arrow_keys_move_frame_and_time(watched: Watched):
    page, inspection = watched.page, make_complete_inspection()
    for key, position in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 7)):
        if key in ("Home", "End"):
            page.focus('.frame[tabindex="0"]')
        page.keyboard.press(key)
        frame = inspection.frames[position]
        assert page.inner_text(".clock") == f"{frame.pts:.2f} s"
        assert page.inner_text("figcaption").startswith(f"Frame {frame.index} · ")
        assert page.input_value(".scrub") == str(round(1000 * frame.pts))
        assert page.eval_on_selector_all(".frame", "all => all.map(one => one.ariaPressed)").index("true") == position


def test_arrow_keys_on_the_scrubber_move_by_frames(watched: Watched):
    page = watched.page
    page.focus(".scrub")
    start = int(page.input_value(".scrub"))
    page.keyboard.press("ArrowLeft")
    assert int(page.input_value(".scrub")) == start - 200
    assert "Frame" in page.get_attribute(".scrub", "aria-valuetext")
    assert page.evaluate("document.activeElement.className") == "scrub"


def test_a_click_on_a_bar_seeks(watched: Watched):
    page = watched.page
    page.locator(".frame .score").nth(3).click()
    assert page.inner_text(".clock") == "0.60 s"
    assert page.get_attribute(".picture", "src") == page.locator(".still img").nth(3).get_attribute("src")
    assert page.input_value(".scrub") == "600"


def test_play_moves_and_pause_stops(watched: Watched):
    page = watched.page
    before = page.inner_text(".clock")
    page.click(".play")
    page.wait_for_function("before => document.querySelector('.clock').textContent !== before", arg=before)
    page.click(".play")
    assert page.get_attribute(".play", "aria-label") == "Play"
    stopped = page.inner_text(".clock")
    page.wait_for_timeout(400)
    assert page.inner_text(".clock") == stopped


def test_the_script_draws_what_the_server_drew(watched: Watched, browser: Browser, report: Path):
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(report.as_uri())
    html = "all => all.map(one => one.outerHTML)"
    for part in (".score", ".value", ".rank", ".verdict", "figcaption", ".clock"):
        assert watched.page.locator(part).evaluate_all(html) == still.locator(part).evaluate_all(html)
    context.close()


def test_a_class_switch_changes_the_bars(watched: Watched):
    page, inspection = watched.page, make_complete_inspection()
    before = heights(watched)
    other = inspection.classes[0]
    page.select_option(".target", str(other.target))
    values = [signed(score) for score in other.scores]
    assert page.locator(".frame .value").all_inner_texts() == values
    assert heights(watched) != before
    assert page.inner_text(".verdict") == other.verdict
    assert page.inner_text(".asked") == "Surfing"
    assert page.is_hidden(".heat"), "the regions speak of the class that was asked about first"
    page.select_option(".target", "0")
    assert heights(watched) == before
    assert page.is_visible(".heat")


def test_a_contrast_is_the_difference_of_two_classes(watched: Watched):
    page, inspection = watched.page, make_complete_inspection()
    page.select_option(".target", "6")
    page.select_option(".rival", "1")
    share = (len(inspection.class_names) - 1) / len(inspection.class_names)
    pairs = zip(inspection.classes[0].scores, inspection.classes[1].scores, strict=True)
    shown = [float(text.replace("−", "-")) for text in page.locator(".frame .value").all_inner_texts()]
    assert shown == pytest.approx([share * (a - b) for a, b in pairs], abs=0.006)
    assert page.inner_text(".asked") == "Surfing not Bowling"
    assert page.locator('.rival option[value="6"]').is_disabled()
    page.select_option(".target", "1")
    assert page.input_value(".rival") == "", "a class is not asked about against itself"


def test_a_contrast_chooses_as_the_library_does(browser: Browser, tmp_path: Path):
    plain = make_complete_inspection(8)
    views = [
        replace(plain.classes[0], scores=[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, -1.0], looked_into=[True] * 8),
        replace(plain.classes[1], scores=[0.0] * 8, looked_into=[True, True, True, True, True, False, True, True]),
    ]
    path = tmp_path / "report.html"
    report = render_report(replace(plain, classes=views, topk=5, min_gap_s=0.35))  # frames are 0.2 s apart
    path.write_text(report, encoding="utf-8", newline="\n")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.select_option(".target", "6")
    page.select_option(".rival", "1")
    chosen = page.eval_on_selector_all(".frame", "all => all.map(frame => frame.classList.contains('key'))")
    assert [place for place, key in enumerate(chosen) if key] == [0, 2, 4, 6]
    page.close()


def test_the_heat_map_fades(watched: Watched):
    page = watched.page
    opacity = "Number(getComputedStyle(document.querySelector('.heat')).opacity)"
    page.focus(".opacity")
    before = page.evaluate(opacity)
    clock = page.inner_text(".clock")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(opacity) == pytest.approx(before - 0.05)
    assert page.inner_text(".clock") == clock, "these arrows are the slider's"


def test_the_heat_map_lies_on_an_oblong_picture_and_nowhere_else(browser: Browser, tmp_path: Path):
    inspection = make_complete_inspection()
    picture = np.full((30, 50, 3), 90, np.uint8)
    clip = {**inspection.clip, "crop": [30, 50]}
    oblong = replace(inspection, pictures=[picture] * len(inspection.pictures), clip=clip)
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(oblong.save(tmp_path, ["html"]).as_uri())
    shown, heat, still = (page.locator(name).first.bounding_box() for name in (".picture", ".heat", ".still img"))
    assert shown is not None
    assert shown == heat
    assert still is not None
    for box in (shown, still):
        assert box["width"] / box["height"] == pytest.approx(50 / 30, rel=0.02)
    assert "centre 30 × 50 px" in page.inner_text("body")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everyone_can_use_it(browser: Browser, report: Path, scheme: str, width: int):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious_faults(page) == []
    context.close()


def test_paper_shows_the_scores_and_no_controls(watched: Watched):
    watched.page.emulate_media(media="print")
    assert watched.page.locator(".play, .question, .keys").evaluate_all("all => all.every(one => !one.offsetParent)")
    assert watched.page.locator(".frame .value").first.is_visible()


def test_the_gallery_leads_to_reports(browser: Browser, tmp_path: Path):
    inspection = make_complete_inspection(video="one.mp4")
    inspection.save(tmp_path / "a b#1", ["html"])
    poster = jpeg(inspection.pictures[0], longest=64)
    entries = [GalleryEntry.from_saved("a b#1", replace(inspection).scores(), poster)]
    (tmp_path / "index.html").write_text(render_gallery(entries, [(HOSTILE, "no video stream")]), "utf-8")
    context = browser.new_context()
    found = Watched(context.new_page())
    found.page.goto((tmp_path / "index.html").as_uri())
    assert serious_faults(found.page) == []
    found.page.click(".cards a")
    assert found.page.inner_text("h1") == "one.mp4"
    assert found.complaints == []
    context.close()
