"""The report in a real browser: on a phone, on a screen, in dark mode and on paper. Skipped without chromium."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pypdfium2
import pytest
from browser import Tab, find_browser, opened
from sample_parity import Simulated, simulated_parity, small_world

from geodtr.export.report import write_report
from geodtr.training.data.pair_set import Pair, PairSet

PHONE, DESK, PAPER = 360, 1280, 688
"""Widths in pixels; of paper what A4 leaves between margins of 14 mm."""
EVIL = "<img src=http://127.0.0.1:9/x onerror=alert(1)><script>alert(2)</script>"
OVERFLOWING = """
[...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  return !element.closest(".scroll") && box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map(element => element.outerHTML.slice(0, 120))
"""
FAINT = """
(() => {
  const part = value => (value /= 255) <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(element);
    const ink = light(element instanceof SVGElement ? style.fill : style.color), paper = light(behind(element));
    const contrast = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    if (contrast < 4.5) faint.push([element.tagName, element.textContent.slice(0, 40), contrast]);
  }
  return faint;
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_browser()
    if program is None:
        pytest.skip("no chromium: apt-get install chromium")
    with opened(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def pair_set(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    return small_world(tmp_path_factory.mktemp("world") / "pairs")


@pytest.fixture(scope="module")
def report(pair_set: PairSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With everything in it: stages, layers, changed queries, an engine that fails."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(simulated_parity(pair_set), path)
    return path


@pytest.fixture(scope="module")
def crowded(pair_set: PairSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With nine candidates of long and hostile names."""
    folder = tmp_path_factory.mktemp("crowded")
    pairs = tuple(Pair(folder / EVIL.replace("/", "") / pair.ground.name, pair.aerial) for pair in pair_set.pairs)
    many = [Simulated(f"{EVIL}-{number}-" + "long" * 20, "int8", 0.12, runs_by=EVIL) for number in range(9)]
    write_report(simulated_parity(PairSet(EVIL, pairs), many), folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("which", ["report", "crowded"])
@pytest.mark.parametrize(("width", "dark"), [(PHONE, False), (PHONE, True), (DESK, False), (DESK, True)])
def test_it_fits_the_screen_and_asks_for_nothing(
    tab: Tab, which: str, width: int, dark: bool, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(which)
    tab.open(path, width, dark=dark)
    assert [url for url in tab.requests if not url.startswith("data:")] == [path.resolve().as_uri()]
    assert tab.complaints == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.evaluate(OVERFLOWING) == []
    assert tab.evaluate("document.scripts.length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_every_word_has_enough_contrast(tab: Tab, report: Path, dark: bool) -> None:
    tab.open(report, DESK, dark=dark)
    assert tab.evaluate(FAINT) == [], "WCAG AA asks for a contrast of 4.5"


def test_words_in_plots_are_legible_on_a_phone(tab: Tab, report: Path) -> None:
    tab.open(report, PHONE)
    heights = tab.evaluate(
        "[...document.querySelectorAll('figure svg text')].map(e => e.getBoundingClientRect().height)"
    )
    # A rotated word's box is as high as it is long.
    assert len(heights) > 50
    assert min(heights) > 10


def test_pictures_are_decoded_and_plots_drawn(tab: Tab, report: Path) -> None:
    tab.open(report, PHONE)
    sizes = tab.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth, image.alt])")
    assert len(sizes) > 24
    assert all(complete and width > 0 and alt for complete, width, alt in sizes)
    plots = tab.evaluate("[...document.querySelectorAll('figure > svg')].map(e => [e.ariaLabel, e.clientWidth])")
    assert len(plots) >= 6
    assert all(label and width > 200 for label, width in plots)


def test_heading_levels_are_not_skipped_and_tables_have_headers(tab: Tab, report: Path) -> None:
    tab.open(report, DESK)
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    bare = "[...document.querySelectorAll('table')].filter(t => !t.caption || !t.querySelector('th[scope=col]')).length"
    assert tab.evaluate(bare) == 0
    nameless = "[...document.querySelectorAll('[role=img],[role=region]')].filter(e => !e.ariaLabel).length"
    assert tab.evaluate(nameless) == 0


@pytest.mark.parametrize("which", ["report", "crowded"])
def test_on_paper_nothing_is_cut_or_missing(
    tab: Tab, which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(which)
    tab.open(path, PAPER, dark=True, paper=True)
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)", "black on white in the dark too"
    wanted = tab.evaluate("document.body.innerText")
    tab.printed(tmp_path / "report.pdf")
    pages = pypdfium2.PdfDocument(tmp_path / "report.pdf")
    printed = ""
    for page in pages:
        text = page.get_textpage()
        for index in range(text.count_rects()):
            left, bottom, right, top = text.get_rect(index)
            assert left >= 30
            assert right <= page.get_width() - 30
            assert bottom >= 30
            assert top <= page.get_height() - 30
        printed += text.get_text_bounded()
    assert 5 < len(pages) < 60
    pages.close()
    squeezed = re.sub(r"\s|\ufffe|\x02", "", printed)
    missing = [word for word in re.findall(r"\w{3,}", wanted) if word not in squeezed]
    assert missing == []
