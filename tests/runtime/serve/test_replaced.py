"""A gallery or a bundle replaced under a running server: taken into use as a whole, or refused."""

import os
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from serving import Running, png, serving, until
from tiny_bundle import write_bundle
from tiny_world import TinyWorld, make_world

from geodtr import Localizer
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.registry import change_gallery
from geodtr.runtime.serve import current as module
from geodtr.runtime.serve.current import Current, Replacing


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("made"), across=4)


@pytest.fixture
def tiny(made: TinyWorld, tmp_path: Path) -> TinyWorld:
    """A copy that may be replaced."""
    for name in ("bundle", "gallery"):
        shutil.copytree(made.bundle.parent / name, tmp_path / name)
    return TinyWorld(tmp_path / "bundle", tmp_path / "gallery", made.tiles, made.lat, made.lon)


def opened(tiny: TinyWorld) -> closing[Current]:
    return closing(Current(tiny.bundle, tiny.gallery, Localizer))


def looked(current: Current) -> bool:
    """Two looks, because what is still changing is left alone at the first."""
    return any([current.look(), current.look()])


def test_nothing_changes_while_nothing_is_replaced(tiny: TinyWorld) -> None:
    with opened(tiny) as current:
        before = current()
        assert not looked(current)
        assert current() is before


def test_a_gallery_that_was_changed_is_taken_into_use(tiny: TinyWorld) -> None:
    with opened(tiny) as current:
        before = current()
        with change_gallery(tiny.gallery) as writer:
            writer.remove(["000.png"])
        assert looked(current)
        assert (current().number, len(current().localizer.gallery)) == (before.number + 1, 15)
        assert before.localizer.locate(tiny.panorama(0)).candidates[0].place.id == "000.png", "as of its opening"
        assert current().localizer.locate(tiny.panorama(0)).candidates[0].place.id != "000.png"
        assert not looked(current)


def test_a_gallery_that_was_moved_away_is_whole_until_the_next_is_there(tiny: TinyWorld) -> None:
    newer = tiny.gallery.with_name("newer")
    shutil.copytree(tiny.gallery, newer)
    with change_gallery(newer) as writer:
        writer.remove(["00[0-9].png"])
    with opened(tiny) as current:
        tiny.gallery.rename(tiny.gallery.with_name("older"))
        assert looked(current)
        assert str(tiny.gallery) in str(current.problem)
        current().check()
        assert current().localizer.locate(tiny.panorama(3)).candidates[0].place.id == "003.png"
        newer.rename(tiny.gallery)
        assert looked(current)
        assert (current.problem, len(current().localizer.gallery)) == (None, 6)


def test_a_gallery_of_another_model_is_refused(tiny: TinyWorld) -> None:
    with opened(tiny) as current:
        before = current()
        manifest = tiny.gallery / "gallery.json"
        replaced = manifest.with_suffix(".new")
        replaced.write_text(manifest.read_text().replace("0123456789abcdef", "fedcba9876543210"))
        replaced.rename(manifest)
        assert looked(current)
        assert "Still in use" in str(current.problem)
        assert current() is before
        assert current().localizer.locate(tiny.panorama(3)).candidates[0].place.id == "003.png"


def test_bundle_and_gallery_are_replaced_together_or_not_at_all(tiny: TinyWorld, made: TinyWorld) -> None:
    with opened(tiny) as current:
        before = current()
        shutil.rmtree(tiny.bundle)
        write_bundle(tiny.bundle, seed=7)
        assert looked(current)
        assert (current() is before, current.problem is None) == (True, False)
        shutil.rmtree(tiny.bundle)
        shutil.copytree(made.bundle, tiny.bundle)
        assert looked(current)
        assert (current().number, current.problem) == (before.number + 1, None)


def test_a_gallery_written_over_in_place_gives_no_answer(tiny: TinyWorld) -> None:
    with serving(tiny.bundle, tiny.gallery) as running:
        image = png(tiny.panorama(3))
        first = running.locate(image).json["gallery"]
        manifest = tiny.gallery / "gallery.json"
        with manifest.open("r+b") as file:
            file.write(manifest.read_bytes())
        os.utime(manifest, (1, 1))
        with pytest.raises(Replacing):
            running.server.current().check()
        refused = running.locate(image)
        assert (refused.status, "Retry-After" in refused.headers) == (503, True)
        running.server.current.look()
        running.server.current.look()
        assert running.locate(image).json["gallery"] == first + 1


def test_what_hinders_a_newer_gallery_is_reported_and_the_looks_go_on(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    mark = Current._mark
    error: Exception | None = None

    def failing(current: Current, gallery: Gallery) -> Any:
        if error is not None:
            raise error
        return mark(current, gallery)

    with serving(tiny.bundle, tiny.gallery) as running:
        monkeypatch.setattr(Current, "_mark", failing)
        first = running.server.current().number
        for number, each in enumerate((OSError(5, "Input/output error"), RuntimeError("a bug"))):
            error = each
            with change_gallery(tiny.gallery) as writer:
                writer.remove([f"00{number}.png"])
            until(partial(reported, running, str(each)))
            assert "A newer gallery was refused" in running.ask("/healthz").json["problem"]
            assert running.server.current().number == first
        error = None
        with change_gallery(tiny.gallery) as writer:
            writer.remove(["002.png"])
        until(lambda: "The gallery was replaced: 13 tiles." in running.reports)
        assert running.server.current().number > first
        assert running.ask("/healthz").json["status"] == "ok"


def test_a_look_that_fails_itself_does_not_end_the_looks(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    look, failing = Current._look, True

    def failing_look(current: Current) -> Any:
        if failing:
            raise RuntimeError("a bug")
        return look(current)

    with serving(tiny.bundle, tiny.gallery) as running:
        monkeypatch.setattr(Current, "_look", failing_look)
        until(lambda: "RuntimeError: a bug" in str(running.server.current.problem))
        assert "cannot be found out" in running.ask("/healthz").json["problem"]
        failing = False
        with change_gallery(tiny.gallery) as writer:
            writer.remove(["000.png"])
        until(lambda: "The gallery was replaced: 15 tiles." in running.reports)
        assert running.server.current.problem is None


def test_what_has_changed_is_named(tiny: TinyWorld) -> None:
    with opened(tiny) as current:
        (tiny.bundle / "notes.txt").write_text("stray")
        assert looked(current)
        assert current.change == "Bundle and gallery were opened again, because of notes.txt of the bundle."
        (tiny.gallery / "fixes.json.part").write_text("stray")
        assert looked(current)
        assert current.change == "Bundle and gallery were opened again, because of fixes.json.part of the gallery."
        manifest = tiny.bundle / "manifest.json"
        newer = manifest.with_suffix(".new")
        shutil.copy(manifest, newer)
        newer.rename(manifest)
        assert looked(current)
        assert current.change == "The bundle was replaced."
        with change_gallery(tiny.gallery) as writer:
            writer.remove(["000.png"])
        assert looked(current)
        assert current.change == "The gallery was replaced: 15 tiles."


def reported(running: Running, text: str) -> bool:
    return any(text in line for line in running.reports)


def test_rows_of_the_gallery_before_are_refused(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    with serving(tiny.bundle, tiny.gallery) as running:
        first = running.server.current().number
        assert running.ask(f"/v1/tiles/3?gallery={first}").status == 200
        with change_gallery(tiny.gallery) as writer:
            writer.remove(["000.png"])
        until(lambda: running.ask("/v1/state").json["gallery"]["number"] == first + 1)
        assert running.ask(f"/v1/tiles/3?gallery={first}").status == 404
        assert running.ask(f"/v1/tiles/3?gallery={first + 1}").status == 200
        assert running.ask("/healthz").json["status"] == "ok"
        until(partial(reported, running, "15 tiles"))
