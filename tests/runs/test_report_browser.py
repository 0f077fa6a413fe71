"""The report in a real browser, from ``file://`` and without a network: widths, dark, paper, selections, downloads."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.runs.test_report import figures_of
from tests.support.plain_text_set import write_plain_text
from tests.support.report_run import write_removal, write_run
from tests.support.study_runs import write_study
from textkeep.cli.main import main

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STEPS = (0, 10, 20)
WIDTHS = {"phone": 390, "tablet": 900, "desktop": 1400}
PLOTS = 16
PATIENCE = 180_000
"""Milliseconds for a picture of a large page on a busy machine without a GPU."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")]

OVERFLOWING = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.checkVisibility() && !e.closest("svg, .scroll, pre, .js-plotly-plot, details:not([open])"))
  .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5
              || e.getBoundingClientRect().left < -0.5)
  .map((e) => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40))"""

# Words and ticks of a figure that its place cuts off.
CUT = """() => [...document.querySelectorAll(".canvas")].flatMap((canvas) => {
  const place = canvas.getBoundingClientRect();
  return [...canvas.querySelectorAll("svg text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < place.left - 1 || box.right > place.right + 1 || box.bottom > place.bottom + 1);
  }).map((text) => `${canvas.id}: ${text.textContent}`);
})"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about two runs, with a removal test."""
    folder = tmp_path_factory.mktemp("browser")
    full = write_run(folder / "full", steps=STEPS, items=40, layers=4)
    lora = write_run(folder / "lora", steps=STEPS, items=40, layers=4, harm=0.1, seed=1)
    write_removal(full)
    for run, change in ((full, 0.15), (lora, 0.0)):
        write_plain_text(run, [change * (1 + 0.1 * (i % 3)) for i in range(40)])
    main(["report", str(full), str(lora), "-o", str(folder / "page.html")])
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as tools:
        opened = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@dataclass
class Opened:
    """A page with what the browser complained of and what it asked a network for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Browser, page_file: Path) -> Open:
    @contextmanager
    def begin(width: int = 1400, **options: Any) -> Iterator[Opened]:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(page_file.as_uri())
        found.page.wait_for_selector("html[data-ready]")
        yield found
        assert found.complaints == []
        assert [url for url in found.asked if not url.startswith(("file:", "data:", "blob:"))] == []
        context.close()

    return begin


@pytest.mark.parametrize(("device", "scheme"), list(product(WIDTHS, ("light", "dark"))))
def test_it_is_drawn_whole_at_every_width(opened: Open, device: str, scheme: str) -> None:
    phone = {"is_mobile": True, "has_touch": True} if device == "phone" else {}
    with opened(WIDTHS[device], color_scheme=scheme, **phone) as found:
        page = found.page
        assert (
            page.locator(".canvas .main-svg").evaluate_all("all => new Set(all.map(e => e.closest('.canvas'))).size")
            == PLOTS
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device]
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(CUT) == []
        drawn = pixels(page.screenshot(full_page=True))
        assert bool(drawn[5, 5].mean() < 60) == (scheme == "dark")
        for ink in ("ink", "soft", "good", "bad"):
            assert contrast(page, f"--{ink}", "--ground") >= 4.5, ink


def test_text_lost_text_kept_and_heard_are_on_the_first_screen(browser: Browser, page_file: Path) -> None:
    """Words and picture, without scrolling."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.locator(".card .topic").all_inner_texts()[:2] == ["Text lost", "Text kept"]
    parts = page.locator(".card, #cost .main-svg, #outcome figcaption")
    bottoms = parts.evaluate_all("all => all.map((e) => e.getBoundingClientRect().bottom)")
    assert len(bottoms) > 4
    assert max(bottoms) <= 800
    page.close()


def test_selections_and_the_slider_change_what_is_drawn(opened: Open) -> None:
    with opened() as found:
        page, before = found.page, found.page.evaluate("document.getElementById('heat-0').data[0].colorscale")
        section = page.locator("section", has=page.locator("#heat-0"))
        section.locator('select[data-control="view"]').select_option("change")
        assert page.evaluate("document.getElementById('heat-0').data[0].colorscale") != before
        section.locator("input[data-steps]").fill("1")
        name, now, wanted, frames = page.evaluate(
            """() => { const one = document.getElementById("profile").data.find((trace) => trace.meta);
            return [one.name, one.y, one.meta.shares[1], document.getElementById("heat-0").layout.shapes.length]; }"""
        )
        assert (name, now, frames) == ("full, step 10", wanted, 1)


def test_it_turns_dark_while_it_is_open(opened: Open) -> None:
    with opened(color_scheme="light") as found:
        colour = "document.getElementById('profile').data[0].line.color"
        light = found.page.evaluate(colour)
        found.page.emulate_media(color_scheme="dark")
        found.page.wait_for_function(f"light => {colour} !== light", arg=light, timeout=10_000)
        assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"


def test_on_paper_it_is_light_and_nothing_is_cut_off(opened: Open, page_file: Path, tmp_path: Path) -> None:
    with opened(color_scheme="dark") as found:
        page = found.page
        margins = dict.fromkeys(("top", "bottom", "left", "right"), "12mm")
        page.pdf(path=tmp_path / "page.pdf", format="A4", margin=margins, print_background=True)
        # As it stands on the sheet: A4 less the margins is 703 px wide.
        page.set_viewport_size({"width": 703, "height": 1032})
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(CUT) == []
        for hidden in (".controls", ".save", ".modebar"):
            assert not any(box.is_visible() for box in page.locator(hidden).all()), hidden
    document = pypdfium2.PdfDocument(tmp_path / "page.pdf")
    sheets = [sheet.render(scale=1).to_numpy()[..., :3] for sheet in document]
    words = " ".join("".join(sheet.get_textpage().get_text_range() for sheet in document).split())
    edge = round(12 / 25.4 * 72) - 2
    for sheet in sheets:
        assert sheet[:, -edge:].min() > 250  # nothing runs into the margin
        assert sheet[:, :edge].min() > 250
        assert sheet.mean() > 200
    text = page_file.read_text(encoding="utf-8")
    titles = [part.split('"')[0] for part in text.split('role="img" aria-label="')[1:]]
    assert len(titles) == PLOTS
    assert [title for title in titles if title not in words] == []
    assert "PNG" not in words


def test_every_figure_is_saved_as_a_picture_and_as_its_numbers(opened: Open, page_file: Path, tmp_path: Path) -> None:
    figures = figures_of(page_file)
    names = list(figures)
    for start in range(0, len(names), AT_ONCE):
        check_saved(opened, names[start : start + AT_ONCE], figures, tmp_path)


def check_saved(opened: Open, names: list[str], figures: dict[str, Any], tmp_path: Path) -> None:
    """Saves figures from a page that has saved none."""
    with opened(color_scheme="dark", accept_downloads=True) as found:
        assert found.page.locator(".canvas").count() == len(figures)
        for name in names:
            chosen = found.page.evaluate("name => choice(document.getElementById(name))", name)
            picture = saved(found.page, name, "png", tmp_path)
            image = Image.open(picture).convert("RGB")
            drawn = np.asarray(image)
            assert drawn.shape == (1040, 1800, 3), name
            assert drawn[2, 2].tolist() == [255, 255, 255]  # light, for paper, though the screen is dark
            assert len(image.getcolors(image.width * image.height) or []) > 20, name
            ink = (drawn.min(axis=2) < 200).any(axis=0)
            assert ink[: 1800 // 2].any(), name
            assert ink[1800 // 2 :].any(), name
            rows = list(csv.reader(saved(found.page, name, "csv", tmp_path).open(encoding="utf-8")))
            check_numbers(rows, figures[name][chosen])


def test_what_is_saved_is_what_is_shown(opened: Open, page_file: Path, tmp_path: Path) -> None:
    traces = figures_of(page_file)["profile"]["speech|fisher"]["data"]
    shares = next(trace for trace in traces if trace.get("meta"))["meta"]["shares"]
    with opened(accept_downloads=True) as found:
        section = found.page.locator("section", has=found.page.locator("#profile"))
        section.locator('select[data-control="probe"]').select_option("speech")
        section.locator('select[data-control="estimator"]').select_option("fisher")
        section.locator("input[data-steps]").fill("1")
        path = saved(found.page, "profile", "csv", tmp_path)
        assert path.name == "profile-speech-fisher.csv"
        rows = list(csv.reader(path.open(encoding="utf-8")))
        assert rows[0] == ["series", "layer (0 = next to the embeddings)", "share of the importance, %", "low", "high"]
        assert [float(row[2]) for row in rows if row[0] == "full, step 10"] == pytest.approx(shares[1])


AT_ONCE = 5
"""Figures that are saved from one page, each as two files: Chromium drops every eleventh file that a page gives."""


def saved(page: Page, plot: str, kind: str, folder: Path) -> Path:
    """The file that a click on a save button gives."""
    with page.expect_download(timeout=PATIENCE) as waiting:
        page.locator(f'button[data-save="{kind}"][data-plot="{plot}"]').click(timeout=PATIENCE)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def check_numbers(rows: list[list[str]], figure: dict[str, Any]) -> None:
    """Every number of the figure's data is in the table, in its order, and no other."""
    data, (head, *body) = figure["data"], rows
    if "z" in data[0]:
        assert [float(row[2]) for row in body] == pytest.approx([value for line in data[0]["z"] for value in line])
        assert [row[0] for row in body][: len(data[0]["x"])] == data[0]["x"]
        return
    across = head.index(figure["layout"]["xaxis"]["title"].get("text") or "x")
    up = head.index(figure["layout"]["yaxis"]["title"]["text"])
    assert [row[across] for row in body] == [f"{x:g}" if isinstance(x, float) else str(x) for t in data for x in t["x"]]
    assert [float(row[up]) for row in body] == pytest.approx([y for trace in data for y in trace["y"]])
    high = [
        y + above if above is not None else None
        for trace in data
        for y, above in zip(
            trace["y"], (trace.get("error_y") or {}).get("array", [None] * len(trace["y"])), strict=True
        )
    ]
    assert [float(row[head.index("high")] or "nan") for row in body] == pytest.approx(
        [np.nan if value is None else value for value in high], rel=1e-5, nan_ok=True
    )


def test_the_page_of_a_study_has_the_same_figures(browser: Browser, tmp_path: Path) -> None:
    """Each with a selection of its own: another figure does not move with it."""
    folder = write_study(tmp_path / "s")
    assert main(["report", str(folder), "-o", str(tmp_path / "study.html")]) == 0
    figures = figures_of(tmp_path / "study.html")
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True, accept_downloads=True)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "study.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(CUT) == []
    shown = "name => document.getElementById(name).data[0].y"
    before = page.evaluate(shown, "shift-by-arm")
    profile = page.locator("figure", has=page.locator("#profile-by-arm"))
    profile.locator('select[data-control="shown"]').select_option("speech, fisher")
    drawn = figures["profile-by-arm"]["speech, fisher"]["data"][0]["y"]
    assert page.evaluate(shown, "profile-by-arm") == pytest.approx(drawn)
    assert page.evaluate(shown, "shift-by-arm") == before
    assert saved(page, "profile-by-arm", "csv", tmp_path).name == "profile-by-arm-speech-fisher.csv"
    names = ("shift-and-loss", "importance-by-kind", "change-by-arm", "overlap", "frontier-by-arm")
    assert len(names) <= AT_ONCE
    fresh = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True, accept_downloads=True)
    page = fresh.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "study.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    for name in names:
        assert len(saved(page, name, "csv", tmp_path).read_text().splitlines()) > 2, name
        assert Image.open(saved(page, name, "png", tmp_path)).size == (1800, 1040)
    page.set_viewport_size({"width": 390, "height": 800})
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints == []
    context.close()
    fresh.close()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def contrast(page: Page, ink: str, ground: str) -> float:
    """Contrast ratio of two of the page's colours, by WCAG 2.1."""
    lights = []
    for name in (ink, ground):
        text = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()", name)
        parts = np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)
