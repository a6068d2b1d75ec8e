"""The map for a browser: one file that asks for nothing, regardless of the names in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, find_browser, opened
from tiny_world import SPACING, TinyWorld, make_world

from geodtr import Localizer, open_gallery
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.geodesy import moved
from geodtr.runtime.localization.output.web_map import web_map
from geodtr.runtime.localization.output.writers import waypoint_file
from geodtr.runtime.localization.waypoint import Candidate, TrackState, Waypoint
from geodtr.runtime.sources.tile import Tile

EVIL = "</script><script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>\u2028.png"
DRAWN = """
(() => {
  const seen = new Set();
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < pixels.length; at += 4) seen.add(pixels.slice(at, at + 3).join());
  return [...seen];
})()
"""
BLUE, ORANGE, RED, PURPLE = "11,111,184", "222,140,20", "179,38,30", "125,63,176"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"), 4)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_browser()
    if program is None:
        pytest.skip("no chromium is installed")
    with opened(program, tmp_path_factory.mktemp("browser")) as started:
        yield started


def _document(page: bytes) -> dict[str, Any]:
    _, _, text = page.decode().partition('<script type="application/json" id="data">')
    held: dict[str, Any] = json.loads(text.partition("</script>")[0])
    return held


def _drive() -> list[Waypoint]:
    """Eastwards, lost in the middle, with an evil name and an evil tile."""
    sure: tuple[TrackState, ...] = ("tracking", "tracking", "tracking")
    states: tuple[TrackState, ...] = ("searching", "searching", *sure, "lost", "lost", *sure)
    lat, lon = moved(-30.0, -15.0, [20.0 * step for step in range(len(states))], [0.0] * len(states))
    tile = Tile(EVIL, EVIL, float(lat[0]), float(lon[0]))
    return [
        Waypoint(
            state, EVIL, 1.0 * i, float(lat[i]), float(lon[i]), 90.0, 8.0, 15.0, 3.0, 0.1, (Candidate(0, tile, 0.5),)
        )
        for i, state in enumerate(states)
    ]


def test_answers_tiles_and_ground_are_in_the_file(tiny: TinyWorld, tmp_path: Path) -> None:
    image = tiny.photograph(tmp_path / "street.png", 5)
    path = tmp_path / "fixes.html"
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        answer = localizer.locate(image, 3)
        with waypoint_file(path, track=False, gallery=localizer.gallery) as write:
            write(answer.waypoint)
    document = _document(path.read_bytes())
    assert document["ground"].startswith("data:image/webp;base64,")
    (shown,) = document["answers"]
    assert [each["tile"] for each in shown["candidates"]] == [each.place.id for each in answer.candidates]
    assert [each["score"] for each in shown["candidates"]] == [each.score for each in answer.candidates]
    # Tiles without metres per pixel are drawn as large as they are apart.
    at = {name: (x, y, side) for name, x, y, side, _ in document["tiles"]}
    east, north, side = at["005.png"]
    assert side == pytest.approx(SPACING, rel=0.01)
    assert at["006.png"][0] - east == pytest.approx(SPACING, abs=0.5)
    assert at["009.png"][1] - north == pytest.approx(SPACING, abs=0.5)


def test_the_map_of_a_gallery_whose_files_are_gone_reports_it(tmp_path: Path) -> None:
    tiny = make_world(tmp_path, 2)
    for path in (tmp_path / "tiles").iterdir():
        path.unlink()
    here = [Waypoint("fix", "a.png", lat=-30.0, lon=-15.0)]
    with open_gallery(tiny.gallery) as gallery:
        document = _document(web_map(here, track=False, gallery=gallery))
    assert "ground" not in document
    assert "000.png" in document["note"]


def test_names_end_no_script_and_the_file_asks_for_nothing() -> None:
    page = web_map(_drive(), track=True)
    assert _document(page)["answers"][0]["image"] == EVIL
    assert page.count(b"</script>") == 2
    assert not re.search(rb"(src|href)=|url\(|@import|https?://", page.partition(b'id="data">')[0])
    assert b"default-src 'none'" in page


def test_without_a_position_there_is_no_map() -> None:
    with pytest.raises(ConfigError, match="nothing to draw"):
        web_map([Waypoint("no fix", "a.png")], track=False)


def test_very_many_answers_are_thinned_out() -> None:
    many = [Waypoint("tracking", None, 1.0 * i, -30.0, -15.0 + i / 1e6) for i in range(50_001)]
    document = _document(web_map(many, track=True))
    assert len(document["answers"]) == 25_001
    assert "one in 2" in document["note"]


def test_a_browser_draws_the_track_and_runs_nothing_else(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "track.html"
    path.write_bytes(web_map(_drive(), track=True))
    tab.open(path, 1280)
    drawn = set(tab.evaluate(DRAWN))
    assert {BLUE, ORANGE, RED} <= drawn
    assert PURPLE not in drawn
    tab.evaluate("step(1)")
    assert PURPLE in tab.evaluate(DRAWN)
    details = tab.evaluate("element('details').innerText")
    assert EVIL.replace("\u2028", "") in details.replace("\u2028", "").replace("\n", "")
    assert "0.5000" in details
    assert tab.evaluate("document.title") == "Where the images were taken"
    assert [text for text in tab.complaints if "getImageData" not in text] == []  # which only the test calls
    assert tab.requests == [path.resolve().as_uri()]
