"""The page in a real browser: clicked through, by mouse and by keyboard, on a screen, in the dark and on a phone."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from browser import Tab, find_browser, opened
from PIL import Image
from serving import Running, serving
from tiny_world import SPACING, TinyWorld, make_world

from geodtr import Localizer
from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.calibration import Cell, FixCalibration, write_calibration
from geodtr.runtime.serve.source import Sourced, watched

TOKEN = "0123456789abcdef"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """A world whose fixes claim radii."""
    tiny = make_world(tmp_path_factory.mktemp("tiny"))
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        cell = Cell(margin=-2.0, spread_m=0.0, queries=60, radii_m=(25.0, 60.0))
        measured = FixCalibration(
            conditions=localizer.conditions, data="test", queries=90, shares=(0.68, 0.95), cells=(cell,)
        )
        write_calibration(localizer.gallery, measured)
    return tiny


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = find_browser()
    if program is None:
        pytest.skip("no browser: apt-get install chromium")
    with opened(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def running(tiny: TinyWorld, folder: Path, tab: Tab) -> Iterator[Running]:
    del tab  # it starts first: no thread may run then
    seen = Sourced("seen", lambda stopped: watched(folder, stopped), again=True, skip=True)
    with serving(tiny.bundle, tiny.gallery, seen) as running:
        yield running


def wait_for(tab: Tab, script: str) -> None:
    for _ in range(200):
        try:
            if tab.evaluate(script):
                return
        except AssertionError as error:
            if "-32000" not in str(error):  # the page is just being left for another
                raise
        time.sleep(0.05)
    raise AssertionError(f"{script} stays false; alerts: {tab.evaluate(text('alerts'))}, console: {tab.complaints}")


def text(name: str) -> str:
    return f"document.getElementById('{name}').textContent"


def press(tab: Tab, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        event = {"type": kind, "key": key, "windowsVirtualKeyCode": codes.get(key, ord(key.upper()[0]))}
        if kind == "keyDown" and key in ("Enter", " "):
            event["text"] = "\r" if key == "Enter" else " "
        tab.call("Input.dispatchKeyEvent", event)


def drop(tab: Tab, name: str, content: bytes) -> None:
    data = base64.b64encode(content).decode()
    tab.evaluate(
        f"""(() => {{
        const bytes = Uint8Array.from(atob("{data}"), letter => letter.charCodeAt(0)), dragged = new DataTransfer();
        dragged.items.add(new File([bytes], "{name}"));
        for (const kind of ["dragover", "drop"])
            dispatchEvent(new DragEvent(kind, {{ dataTransfer: dragged, cancelable: true }}));
        }})()"""
    )


def test_live_frames_and_dropped_images_are_shown_and_nothing_else_is_asked(
    tab: Tab, running: Running, tiny: TinyWorld, folder: Path, tmp_path: Path
) -> None:
    for step in range(6):
        tiny.photograph(folder / f"{step}.png", 8 * 3 + step)
    tab.open(running.server.address, 1280)
    wait_for(tab, f"{text('name')} === '5.png'")
    assert tab.evaluate(text("state")) == "fix"
    assert tab.evaluate("document.querySelectorAll('#tiles li').length") == 5
    wait_for(tab, "[...document.querySelectorAll('#tiles img')].every(each => each.complete && each.naturalWidth > 0)")
    assert "25 m" in tab.evaluate(text("fix"))
    assert "60 m" in tab.evaluate(text("fix"))
    assert "decode" in tab.evaluate(text("stages"))
    wait_for(tab, "document.querySelectorAll('.leaflet-tile-loaded').length > 3")
    assert tab.evaluate("layers.trail.getLayers().length") >= 6
    assert tab.evaluate("layers.heat.getLayers().length") == 64
    assert tab.evaluate("drawn.live.circles.getLayers().length") == 4
    assert re.fullmatch(r", last frame \d+ s ago", tab.evaluate(text("age")))
    assert shown_in_legend(tab) == {"fix", "circles", "candidates", "heat"}
    low, high = (float(tab.evaluate(text(name))) for name in ("least", "most"))
    assert low < 0.9 < high <= 1.0
    tiny.photograph(folder / "later.png", 40)
    wait_for(tab, f"{text('name')} === 'later.png'")  # as it comes

    drop(tab, "dropped.png", tiny.photograph(tmp_path / "dropped.png", 12).read_bytes())
    wait_for(tab, f"{text('name')} === 'dropped.png'")
    off = f"map.getCenter().distanceTo([{tiny.lat[12]}, {tiny.lon[12]}])"
    assert tab.evaluate(off) < SPACING / 2
    assert tab.evaluate("document.getElementById('live').getAttribute('aria-pressed')") == "false"
    tab.evaluate("document.getElementById('all').click()")
    assert tab.evaluate("map.getBounds().contains(corners(server.state.gallery.bounds))")
    drop(tab, "bad.png", b"no image")
    wait_for(tab, f"{text('alerts')}.includes('bad.png is not an image')")
    drop(tab, "good.png", tiny.photograph(tmp_path / "good.png", 13).read_bytes())
    wait_for(tab, f"{text('name')} === 'good.png'")
    assert "bad.png is not an image" in tab.evaluate(text("alerts"))  # until it is dismissed
    tab.evaluate("document.querySelector('#alerts .close').click()")
    assert tab.evaluate(text("alerts")) == ""
    assert len(tab.requests) > 10
    strangers = [each for each in tab.requests if not each.startswith((running.server.address, "data:"))]
    assert strangers == []
    complaints = [each for each in tab.complaints if "422" not in each]  # the browser names the refusal, too
    assert complaints == []


def shown_in_legend(tab: Tab) -> set[str]:
    return set(tab.evaluate("[...document.querySelectorAll('#legend [data-of]:not([hidden])')].map(e => e.dataset.of)"))


def standing(tab: Tab) -> tuple[str, bool]:
    """What the badge shows, and whether the position on the map is drawn as an old one."""
    grey = "drawn.live.marks.getLayers().some(each => each.options.fillColor === colour('none'))"
    return tab.evaluate(text("state")), tab.evaluate(grey)


def test_a_position_that_is_old_is_never_shown_as_the_present_one(tab: Tab, tiny: TinyWorld, tmp_path: Path) -> None:
    """The camera is gone, the server is gone, and the link is silent."""
    plugged_in, number = Event(), 0

    def camera(stopped: Event) -> Iterator[Frame]:
        nonlocal number
        plugged_in.wait(0.2)
        if plugged_in.is_set():
            number += 1
            yield Frame(f"camera:0#{number}", tiny.panorama(20), time.time())
            while plugged_in.is_set() and not stopped.wait(0.05):
                pass
        yield Frame("camera:0", ImageError("camera:0 stopped: unplugged, or lost."), None)

    source = Sourced("camera:0", camera, again=True)
    plugged_in.set()
    with serving(tiny.bundle, tiny.gallery, source) as first:
        tab.open(first.server.address, 1280)
        wait_for(tab, f"{text('name')}.startsWith('camera:0#')")
        assert standing(tab) == ("fix", False)
        plugged_in.clear()
        wait_for(tab, f"{text('state')} === 'no frames'")
        assert standing(tab) == ("no frames", True)
        assert "unplugged" in tab.evaluate(text("alerts"))
        plugged_in.set()
        wait_for(tab, f"{text('state')} === 'fix'")
        assert standing(tab) == ("fix", False)
        tab.evaluate("live.heard -= 60")  # the link is silent
        wait_for(tab, "live.connected === false || live.heard > now() - 5")
        wait_for(tab, f"{text('state')} === 'fix'")
        number_before = first.server.current().number
        plugged_in.clear()
    wait_for(tab, f"{text('state')} === 'no connection'")
    assert standing(tab) == ("no connection", True)
    assert "does not answer" in tab.evaluate(text("alerts"))
    assert tab.evaluate("document.title").startswith("no connection")
    with serving(tiny.bundle, make_world(tmp_path, across=4).gallery, port=first.port) as second:
        wait_for(tab, f"{text('state')} === 'ready'")
        assert second.server.current().number > number_before
        assert tab.evaluate("server.state.gallery.number") == second.server.current().number
        assert "16 tiles" in tab.evaluate(text("about"))


def test_a_newcomer_sees_how_old_the_last_frame_is(tab: Tab, running: Running, folder: Path, tiny: TinyWorld) -> None:
    tiny.photograph(folder / "newcomer.png", 22)
    tab.open(running.server.address, 1280)
    wait_for(tab, f"{text('name')} === 'newcomer.png'")
    time.sleep(2)
    tab.open(running.server.address, 1280)
    wait_for(tab, f"{text('name')} === 'newcomer.png'")
    assert tab.evaluate("live.event.age_s") >= 2
    assert tab.evaluate("document.getElementById('age').textContent") != ", last frame 0 s ago"


def test_the_badge_stays_the_live_views_beside_a_located_image(
    tab: Tab, running: Running, folder: Path, tiny: TinyWorld
) -> None:
    tiny.photograph(folder / "beside.png", 25)
    tab.open(running.server.address, 1280)
    wait_for(tab, f"{text('name')} === 'beside.png'")
    tab.evaluate("showStanding(); live.event = {...live.event, state: 'lost'}; showStanding()")
    drop(tab, "dropped.png", tiny.photograph(folder.parent / "dropped.png", 12).read_bytes())
    wait_for(tab, f"{text('name')} === 'dropped.png'")
    assert tab.evaluate(text("state")) == "lost"
    assert tab.evaluate(text("whose")) == "Located image"
    assert tab.evaluate("drawn.live.marks.getLayers().length") > 0
    tab.evaluate("document.getElementById('live').click()")
    wait_for(tab, f"{text('whose')} === 'Live frame'")
    assert tab.evaluate(text("name")) == "beside.png"


def test_a_long_trail_keeps_its_newest_part(tab: Tab, running: Running) -> None:
    tab.open(running.server.address, 1280)
    wait_for(tab, "live.connected")
    tab.evaluate("for (let step = 0; step < 3500; step++) addToTrail(-30, -15 + step * 1e-5, 'tracking')")
    assert tab.evaluate("map.hasLayer(trail.segment.line)")
    assert 2000 <= tab.evaluate("trail.segment.line.getLatLngs().length") <= 3000
    assert tab.evaluate("trail.points.at(-1)[1]") == pytest.approx(-15 + 3499e-5)


def test_what_a_gallery_lacks_is_explained(tab: Tab, tmp_path: Path) -> None:
    for name in ("bare", "moved"):
        (tmp_path / name).mkdir()
    bare = make_world(tmp_path / "bare", across=3, positioned=False)
    with serving(bare.bundle, bare.gallery) as running:
        tab.open(running.server.address, 390)
        wait_for(tab, f"{text('alerts')}.includes('The gallery has no positions')")
        drop(tab, "a.png", bare.photograph(tmp_path / "a.png", 4).read_bytes())
        wait_for(tab, f"{text('name')} === 'a.png'")
        assert tab.evaluate("document.querySelectorAll('#tiles li').length") == 5
        assert "none" in tab.evaluate(text("fix"))
    moved = make_world(tmp_path / "moved", across=3)
    (tmp_path / "moved" / "tiles").rename(tmp_path / "moved" / "elsewhere")
    with serving(moved.bundle, moved.gallery) as running:
        tab.open(running.server.address, 390)
        wait_for(tab, f"{text('alerts')}.includes('The map has no ground')")
        drop(tab, "a.png", moved.photograph(tmp_path / "b.png", 4).read_bytes())
        wait_for(tab, "document.querySelectorAll('#tiles .none').length === 5")  # no broken images


def test_the_page_is_worked_by_keyboard_alone(tab: Tab, running: Running, folder: Path, tiny: TinyWorld) -> None:
    tiny.photograph(folder / "keyboard.png", 20)
    tab.open(running.server.address, 1280)
    wait_for(tab, f"{text('name')} === 'keyboard.png'")
    reached = list[str]()
    for _ in range(24):
        press(tab, "Tab")
        if tab.evaluate("document.activeElement === document.body"):
            break  # once around
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.className || ''"))
        outlined = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outlined != "none" or reached[-1] == "file", reached
    assert {"skip", "file", "live", "all", "layer-heat", "layer-trail"} <= set(reached)
    tab.evaluate("document.getElementById('layer-trail').focus()")
    press(tab, " ")
    assert not tab.evaluate("map.hasLayer(layers.trail)")
    press(tab, " ")
    assert tab.evaluate("map.hasLayer(layers.trail)")
    tab.evaluate("document.querySelector('#tiles li:nth-child(2) button').focus()")
    before = tab.evaluate("map.getCenter().toString()")
    press(tab, "Enter")
    time.sleep(1)
    assert tab.evaluate("map.getCenter().toString()") != before
    tab.evaluate("document.activeElement.blur()")
    press(tab, "l")
    assert tab.evaluate("document.getElementById('live').getAttribute('aria-pressed')") == "false"


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("light", 1280, False), ("dark", 1280, True), ("phone", 390, True)]
)
def test_it_fits_the_screen(
    tab: Tab, running: Running, folder: Path, tiny: TinyWorld, tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    tiny.photograph(folder / f"{name}.png", 30)
    tab.open(running.server.address, width, dark=dark)
    wait_for(tab, f"{text('name')} === '{name}.png'")
    wait_for(tab, "document.querySelectorAll('.leaflet-tile-loaded').length > 0")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("map.getSize().y === map.getContainer().offsetHeight && map.getSize().y > 300")
    clipped = "[...document.querySelectorAll('#panel b, #panel td, #panel button, #legend li, #scale, #stages li')]"
    clipped += ".filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
    assert tab.evaluate(clipped) == []
    heights = tab.evaluate("[...document.querySelectorAll('.row .button, .row button')].map(each => each.offsetHeight)")
    assert min(heights) >= (44 if width < 600 else 32)
    assert tab.evaluate("document.getElementById('legend').open") == (width > 600)
    tab.picture(tmp_path / f"{name}.png")
    with Image.open(tmp_path / f"{name}.png") as picture:
        corner = np.asarray(picture.convert("L"))[-40:, -40:]
    assert (corner.mean() < 80) == dark


def test_a_token_opens_the_page(tab: Tab, running: Running, tiny: TinyWorld) -> None:
    del running
    with serving(tiny.bundle, tiny.gallery, token=TOKEN) as guarded:
        tab.open(guarded.server.address, 390)
        assert tab.evaluate("location.pathname") == "/login"
        tab.evaluate("document.getElementById('token').value = 'wrong'; document.forms[0].requestSubmit()")
        wait_for(tab, "document.getElementById('wrong') && !document.getElementById('wrong').hidden")
        tab.evaluate(f"document.getElementById('token').value = '{TOKEN}'; document.forms[0].requestSubmit()")
        wait_for(tab, "location.pathname === '/' && document.querySelectorAll('.leaflet-tile-loaded').length > 0")
        wait_for(tab, f"{text('state')} === 'ready'")
        assert TOKEN not in tab.evaluate("location.href + document.cookie")
