"""The page of a test, as text and in a real browser: every cell names its clips, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from temporal_attn.evaluation import VideoRow, VideoTable, summarise
from temporal_attn.result_page import Film, ResultPage, render_result
from temporal_attn.result_page.curves import find_log, read_curves
from temporal_attn.result_page.films import film_of
from temporal_attn.result_page.page import mistakes
from temporal_attn.types import UserError
from tests.bright_clips import Numbered, module, trainer
from tests.browser import Watched, launched, serious_faults

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<img src=x onerror=document.title='taken'>"
CLASSES = ["Archery", "Bowling", "Surfing", HOSTILE]
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def found(classes: list[str], videos: int = 80) -> tuple[dict, VideoTable]:
    rng = np.random.default_rng(0)
    number = len(classes)
    logits = rng.normal(size=(videos, number)) + 1.5 * np.eye(number)[np.arange(videos) % number]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = [VideoRow(f"clip {i} {HOSTILE}", f"g{i % 9}", i % number, p[i], i) for i in range(videos)]
    lost = {"id": HOSTILE, "path": "x.avi", "reason": "no stream", "label": 0, "group": "g", "index": 99}
    summary = summarise(rows, classes, [lost], missing=["y"], extra={"temperature": 0.8}, threshold=0.5)
    return summary, VideoTable.of(rows, number, [lost])


def write_log(folder: Path) -> Path:
    log = folder / "lightning_logs" / "version_0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("epoch,step,train/loss,val/loss\n0,9,,1.5\n0,9,2.0,\n1,19,,1.25\n1,19,1.0,\n")
    return log


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    summary, table = found(CLASSES)
    wrong = mistakes(table)
    films = [Film(wrong[0], [PIXEL] * 6), Film(wrong[1], [PIXEL])]
    path = folder / "result.html"
    path.write_text(render_result(summary, table, CLASSES, films, write_log(folder), "best.ckpt"), "utf-8")
    return path


def clips(page: Path) -> dict[str, list]:
    data = re.search(r'class="results">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert data is not None
    return json.loads(data[1])["cells"]  # type: ignore[no-any-return]


def test_every_video_is_in_the_cell_where_it_belongs(page: Path):
    summary, table = found(CLASSES)
    cells = clips(page)
    for true in range(4):
        for said in range(4):
            own = cells.get(f"{true}-{said}", [])
            rows = [row for row in table.read.rows if row.label == true and int(np.argmax(row.probabilities)) == said]
            assert {clip[0] for clip in own} == {row.id for row in rows}
            assert len(own) == summary["confusion"][true][said]
            assert [clip[1] for clip in own] == sorted((clip[1] for clip in own), reverse=True)


def test_mistakes_are_wrong_and_the_surest_come_first():
    _, table = found(CLASSES)
    wrong = mistakes(table)
    assert len(wrong) == sum(int(np.argmax(row.probabilities)) != row.label for row in table.read.rows)
    sure = [max(table.rows[row].probabilities) for row in wrong]
    assert sure == sorted(sure, reverse=True)


def test_many_classes_become_a_list_of_confusions():
    classes = [f"class {k}" for k in range(50)]
    html = render_result(*found(classes, 300), classes)
    assert 'class="confusion"' not in html
    assert 'class="pairs"' in html
    assert len(html) < 200_000


def test_only_clips_that_can_be_opened_are_in_the_page(tmp_path: Path):
    """Hundreds of classes have thousands of cells, and sixty of them are listed."""
    classes = [f"class {k}" for k in range(60)]
    summary, table = found(classes, 600)
    path = tmp_path / "many.html"
    path.write_text(render_result(summary, table, classes), "utf-8")
    assert set(clips(path)) == set(re.findall(r'data-cell="([^"]+)"', path.read_text("utf-8")))


def test_one_video_of_one_class_is_told_in_its_own_words():
    rows = [VideoRow("a", "g", 0, [1.0], 0)]
    html = render_result(summarise(rows, ["only"], threshold=1.1), VideoTable.of(rows, 1), ["only"])
    assert "100.0 % of 1 video is right" in html
    assert "says nothing about others" in html
    assert "0.0 % are answered.</p>" in html
    risk = html[html.index("Risk over coverage") :]
    marks = [float(text) for text in re.findall(r'class="tick"[^>]*>([^<]+)<', risk[: risk.index("</svg>")])]
    assert (min(marks), max(marks)) == (0, 1)  # a share is nothing else


def test_nothing_and_several_labels_have_a_page_too():
    empty = summarise([], CLASSES)
    assert "–" in render_result(empty, VideoTable.of([], 4), CLASSES)
    rows = [VideoRow("a", "g", (0, 2), [0.9, 0.2, 0.7, 0.1]), VideoRow("b", "g", (1,), [0.6, 0.5, 0.1, 0.1])]
    html = render_result(summarise(rows, CLASSES), VideoTable.of(rows, 4), CLASSES)
    assert 'aria-label="Classes"' in html
    assert 'aria-label="Confusion"' not in html


def test_the_log_of_the_newest_training_is_read(tmp_path: Path):
    log = write_log(tmp_path / "run")
    tested = tmp_path / "run" / "lightning_logs" / "version_10" / "metrics.csv"
    tested.parent.mkdir()
    tested.write_text("epoch,step,test/top1\n0,1,0.5\n")
    named = tmp_path / "run" / "lightning_logs" / "version_final" / "metrics.csv"
    named.parent.mkdir()
    named.write_text(log.read_text())  # a copy that somebody put aside
    assert find_log([tmp_path / "nowhere", tmp_path / "run"]) == log
    curves = read_curves(log, ["train/loss", "val/loss", "val/top1"])
    assert curves == {"train/loss": [(1, 2.0), (2, 1.0)], "val/loss": [(1, 1.5), (2, 1.25)]}


def test_a_film_is_spread_over_the_real_frames():
    video = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    item = {"video": video, "mask": torch.tensor([True] * 5 + [False] * 3)}
    assert len(film_of([item], 0, 6)) == 5
    assert len(film_of([item], 0, 2)) == 2
    assert len(film_of([{"video": video.expand(3, 8, 3, 16, 16), "mask": item["mask"].expand(3, 8)}], 0, 4)) == 4
    assert film_of([{"features": video}], 0, 6) == []


def test_a_data_set_of_a_stranger_has_a_page_without_films():
    """Its loader may make clips of tuples, or of frames in another order; the test is over when the page is written."""
    video = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    items = [(video, 1), video, {"video": video.permute(0, 2, 3, 1)}, {"video": video[:, :1]}, {"video": video[0]}]
    assert [film_of([item], 0, 6) for item in items] == [[]] * 5
    assert len(film_of([{"video": video, "mask": [True] * 8}], 0, 6)) == 6


def test_the_callback_writes_the_page(tmp_path: Path):
    class Data(pl.LightningDataModule):
        test_dataset = Numbered(size=15)

        def test_dataloader(self) -> DataLoader:
            return DataLoader(self.test_dataset, batch_size=4)

    pl.seed_everything(0)
    written = ResultPage(strips=2, stills=3)
    trainer(tmp_path, callbacks=[written]).test(module(), datamodule=Data(), verbose=False)
    html = (tmp_path / "result.html").read_text("utf-8")
    assert written.path == str(tmp_path / "result.html")
    assert html.count("<li data-film=") == 2
    assert html.count("data:image/jpeg") >= 2 * 3 + 3
    with pytest.raises(UserError, match="page"):
        ResultPage(strips=-1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as opened:
        yield opened


@pytest.fixture
def watched(browser: Browser, page: Path) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    seen = Watched(context.new_page())
    seen.page.goto(page.as_uri())
    yield seen
    assert not [url for url in seen.requests if not url.startswith(("data:", page.as_uri()))]
    assert seen.complaints == []
    assert seen.page.title() == "Result of a test"
    context.close()


def test_a_click_names_the_clips(watched: Watched, page: Path):
    for key, own in list(clips(page).items())[:4]:
        watched.page.click(f'[data-cell="{key}"]')
        names = watched.page.locator(".clips li").all_inner_texts()
        assert [name.strip() for name in names] == [f"{clip[0]} p = {clip[1]:.2f}" for clip in own]


def test_pictures_of_a_mistake_are_shown_again(watched: Watched, page: Path):
    with_strip = next(key for key, own in clips(page).items() if own[0][2] is not None)
    watched.page.click(f'[data-cell="{with_strip}"]')
    assert watched.page.locator(".clips img").count() >= 1


def test_the_keyboard_reaches_every_cell(watched: Watched):
    tab = watched.page
    cells = tab.locator(".cell")
    assert tab.locator('.cell[tabindex="0"]').count() == 1
    tab.focus('.cell[tabindex="0"]')
    place = "[document.activeElement.dataset.row, document.activeElement.dataset.column].join()"
    before = tab.evaluate(place)
    tab.keyboard.press("ArrowRight")
    right = tab.evaluate(place)
    assert right != before
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate(place).split(",")[0] > right.split(",")[0]
    tab.keyboard.press("Enter")
    assert tab.inner_text(".clips h3") == tab.evaluate("document.activeElement.ariaLabel")
    assert tab.evaluate("document.activeElement.ariaPressed") == "true"
    assert cells.count() > 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everyone_can_use_it(browser: Browser, page: Path, scheme: str, width: int):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.locator(".cell").first.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert serious_faults(tab) == []
    context.close()


@pytest.fixture
def narrow(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 900})
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


def test_long_names_leave_room_for_the_matrix(narrow: Page, tmp_path: Path):
    classes = ["Trying but failing to attach something to something because it doesn't stick", "a" * 120, "c"]
    path = tmp_path / "long.html"
    path.write_text(render_result(*found(classes), classes, checkpoint="/home/me" + "/runs" * 30), "utf-8")
    narrow.goto(path.as_uri())
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 390
    narrow.click('[data-cell="0-1"]')
    assert classes[0] in narrow.inner_text(".clips h3")
    assert narrow.get_attribute(".confusion tbody th", "title") == classes[0]


def test_a_name_that_turns_the_text_round_turns_only_itself(narrow: Page, tmp_path: Path):
    """The p of a mistake stands behind its class, whatever the class does to the direction of text."""
    classes = ["\u202eright to left", "b"]
    summary, table = found(classes)
    film = next(row for row in mistakes(table) if int(np.argmax(table.probabilities[row])) == 0)
    path = tmp_path / "bidi.html"
    path.write_text(render_result(summary, table, classes, [Film(film, [PIXEL] * 6)]), "utf-8")
    narrow.goto(path.as_uri())
    left_of_p = """() => {
        const range = document.createRange(), text = document.querySelector(".mistakes strong").nextSibling;
        range.setStart(text, 1); range.setEnd(text, 2);  // the p
        const p = range.getBoundingClientRect().left;
        range.setStart(text, 5); range.setEnd(text, 6);  // the first digit
        return p < range.getBoundingClientRect().left;
    }"""
    assert narrow.evaluate(left_of_p)


def test_every_arrow_moves_in_a_list_of_confusions(narrow: Page, tmp_path: Path):
    classes = [f"class {k}" for k in range(41)]
    path = tmp_path / "list.html"
    path.write_text(render_result(*found(classes, 200), classes), "utf-8")
    narrow.goto(path.as_uri())
    narrow.focus('.cell[tabindex="0"]')
    places = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        narrow.keyboard.press(key)
        places.append(narrow.evaluate("document.activeElement.dataset.row"))
    assert places == ["1", "2", "1", "0"]


def test_events_of_tensorboard_are_read_where_it_is_the_logger(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger

    for version, names in enumerate((["train/loss", "val/loss"], ["test/top1"])):
        logger = TensorBoardLogger(str(tmp_path), version=version)
        for epoch in range(3):
            logger.log_metrics({name: 2.0 - epoch for name in names} | {"epoch": epoch}, step=10 * epoch)
        logger.finalize("success")
    log = find_log([tmp_path / "nowhere", tmp_path])
    assert log == tmp_path / "lightning_logs" / "version_0"
    assert read_curves(log, ["train/loss", "val/top1"]) == {"train/loss": [(1, 2.0), (2, 1.0), (3, 0.0)]}
