"""The HTTP API: what a client gets for its images, and what it is refused."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import pytest
from PIL import ExifTags, Image
from serving import Running, form, png, serving
from tiny_world import CENTRE, SPACING, TinyWorld, make_world

from geodtr import Localizer
from geodtr.runtime.geodesy import distance
from geodtr.runtime.serve.http import messages


@pytest.fixture(scope="module")
def running(tiny: TinyWorld) -> Iterator[Running]:
    with serving(tiny.bundle, tiny.gallery, max_megabytes=2, max_megapixels=1) as running:
        yield running


def test_an_image_is_answered_as_the_library_answers_it(tiny: TinyWorld, running: Running) -> None:
    image = tiny.panorama(35)
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        wanted = localizer.locate(image, top=3)
    as_body = running.locate(png(image), "?top=3").json
    body, headers = form(("street.png", png(image)))
    as_form = running.ask("/v1/locate?top=3", body, headers).json
    for answer in (as_body, as_form):
        assert [each["row"] for each in answer["candidates"]] == [each.row for each in wanted.candidates]
        scores = [each["score"] for each in answer["candidates"]]
        assert scores == pytest.approx([each.score for each in wanted.candidates], abs=1e-5)
        assert wanted.fix is not None
        assert distance(answer["fix"]["lat"], answer["fix"]["lon"], wanted.fix.lat, wanted.fix.lon) < 0.1
        assert answer["uncalibrated"] == wanted.uncalibrated
        assert set(answer["milliseconds"]) == {"decode", "wait", "embed", "search", "total"}
    assert (as_body["image"], as_form["image"]) == ("image", "street.png")


def test_a_batch_is_answered_in_order_and_a_bad_image_has_its_own_error(tiny: TinyWorld, running: Running) -> None:
    files = [("a.png", png(tiny.panorama(10))), ("b.png", b"no image"), ("c.png", png(tiny.panorama(20)))]
    body, headers = form(*files)
    answers = running.ask("/v1/locate/batch?top=1", body, headers).json["answers"]
    assert [each["image"] for each in answers] == ["a.png", "b.png", "c.png"]
    assert [each["answer"] and each["answer"]["candidates"][0]["row"] for each in answers] == [10, None, 20]
    assert "is not an image" in answers[1]["error"]


def test_a_prior_restricts_the_search_and_heat_gives_scores_of_many_tiles(tiny: TinyWorld, running: Running) -> None:
    near = f"?near={tiny.lat[20]},{tiny.lon[20]},{SPACING / 2}&heat=40"
    answer = running.locate(png(tiny.panorama(10)), near).json
    assert [each["row"] for each in answer["candidates"]] == [20]
    answer = running.locate(png(tiny.panorama(10)), "?heat=40").json
    assert len(answer["heat"]) == 40
    assert len(answer["candidates"]) == 5
    assert answer["heat"][0][2] == pytest.approx(answer["candidates"][0]["score"], abs=1e-3)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?top=0", "top is '0'"),
        ("?top=many", "from 1 to 100"),
        ("?heat=1e3", "heat is '1e3'"),
        ("?near=1,2", "near is '1,2'"),
        ("?near=91,0,5", "near is '91,0,5'"),
        ("?near=nan,0,5", "near is 'nan,0,5'"),
        ("?tpo=3", "'tpo' is no parameter"),
        ("?top=3&top=4", "top is given twice"),
    ],
)
def test_a_wrong_parameter_is_named(tiny: TinyWorld, running: Running, query: str, named: str) -> None:
    answer = running.locate(png(tiny.panorama(1)), query)
    assert answer.status == 400
    assert named in answer.json["error"]


def test_what_is_no_image_is_refused(running: Running) -> None:
    assert running.locate(b"no image").status == 422
    assert running.locate(b"").status == 422
    bomb = png(np.zeros((1001, 1000, 3), np.uint8))
    assert "more than 1,000,000 pixels" in running.locate(bomb).json["error"]
    assert running.ask("/v1/locate", b"{}", {"Content-Type": "application/json"}).status == 415
    assert running.ask("/v1/locate/batch", b"x", {"Content-Type": "image/png"}).status == 415
    broken = running.ask("/v1/locate/batch", b"x", {"Content-Type": "multipart/form-data"})
    assert (broken.status, "cannot be read" in broken.json["error"]) == (400, True)
    whole, kind = form(("a.png", b"x"))
    for damaged in (whole[:-6], whole.replace(b'"image"', b'"picture"'), whole.replace(b"--edge", b"--other")):
        assert running.ask("/v1/locate", damaged, kind).status == 400
    many = form(*[("a.png", b"x")] * (messages.MOST_IN_BATCH + 1))
    assert running.ask("/v1/locate/batch", *many).status == 400


def test_an_encoded_body_is_refused_in_words(tiny: TinyWorld, running: Running) -> None:
    packed = gzip.compress(png(tiny.panorama(1)))
    refused = running.locate(packed, **{"Content-Encoding": "gzip"})
    assert (refused.status, "'gzip' is not read" in refused.json["error"]) == (415, True)
    body, headers = form(("a.png", png(tiny.panorama(1))))
    assert running.ask("/v1/locate/batch", body, headers | {"Content-Encoding": "br"}).status == 415
    assert running.locate(png(tiny.panorama(1)), **{"Content-Encoding": "identity"}).status == 200


def test_a_damaged_form_leaves_no_line_in_the_output(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    body, headers = form(("a.png", b"x"))
    assert running.ask("/v1/locate", body.replace(b"--edge\r\n", b"--edge\rx"), headers).status == 400
    assert [record.getMessage() for record in caplog.records] == []


def test_another_method_is_refused_with_those_that_are_allowed(running: Running) -> None:
    refused = running.ask("/v1/locate")
    assert (refused.status, refused.headers["Allow"], "GET /v1/locate" in refused.json["error"]) == (405, "POST", True)
    assert running.ask("/nowhere").json == {"error": "Not Found: GET /nowhere"}
    head = running.ask("/healthz", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_no_upload_touches_the_disk(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def rolled_over(*_: object, **__: object) -> None:
        raise AssertionError("an upload was written to a file")

    monkeypatch.setattr(SpooledTemporaryFile, "__init__", rolled_over)
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3), np.uint8)
    body, headers = form(("large.png", png(noise)))
    assert len(body) > 1 << 20
    assert running.ask("/v1/locate", body, headers).status == 200


@pytest.mark.parametrize(
    "path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/leaflet/../../app.py", "/etc/passwd"]
)
def test_no_path_of_a_request_reaches_the_file_system(running: Running, path: str) -> None:
    assert running.ask(path).status == 404


def test_the_position_in_an_image_is_compared_with_its_answer(tiny: TinyWorld, running: Running) -> None:
    exif = Image.Exif()
    lat, lon = float(tiny.lat[35]) + 0.001, float(tiny.lon[35])
    tags = ExifTags.GPS
    exif[ExifTags.IFD.GPSInfo] = {
        tags.GPSLatitudeRef: "S",
        tags.GPSLatitude: (abs(lat), 0.0, 0.0),
        tags.GPSLongitudeRef: "W",
        tags.GPSLongitude: (abs(lon), 0.0, 0.0),
    }
    known = running.locate(png(tiny.panorama(35), exif=exif)).json["known"]
    assert known["error_m"] == pytest.approx(111, abs=2)
    assert running.locate(png(tiny.panorama(35))).json["known"] is None


def test_an_image_that_the_model_was_not_made_for_is_answered_with_a_warning(tmp_path: Path) -> None:
    tiny = make_world(tmp_path, across=3)
    manifest = json.loads((tiny.bundle / "manifest.json").read_text())
    manifest["ground"]["spec"]["preprocessing"]["imagery"] = {"projection": "panorama", "aspect": 4.0}
    (tiny.bundle / "manifest.json").write_text(json.dumps(manifest))
    with serving(tiny.bundle, tiny.gallery) as running:
        square = running.locate(png(tiny.tiles[0])).json
        assert "aspect" in square["warning"]
        assert running.locate(png(tiny.panorama(4))).json["warning"] is None


def test_tiles_and_squares_of_the_map_are_pictures_of_the_gallery_in_use(running: Running) -> None:
    number = running.server.current().number
    tile = running.ask(f"/v1/tiles/35?gallery={number}")
    assert (tile.status, tile.headers["Content-Type"]) == (200, "image/webp")
    assert running.ask(f"/v1/tiles/35?gallery={number + 1}").status == 404
    assert running.ask("/v1/tiles/64").status == 404
    assert running.ask("/v1/tiles/x").status == 404
    assert running.ask("/v1/tiles/35?file=/etc/passwd").status == 400
    zoom = running.ask("/v1/state").json["gallery"]["zoom"]
    x, y = web_mercator(CENTRE[0] + 1e-4, CENTRE[1] + 1e-4, zoom)
    assert running.ask(f"/v1/map/{zoom}/{x}/{y}").headers["Content-Type"] == "image/webp"
    assert running.ask(f"/v1/map/{zoom}/{x + 9}/{y}").status == 204
    assert running.ask("/v1/map/3/1/1").status == 204


def web_mercator(lat: float, lon: float, zoom: int) -> tuple[int, int]:
    up = float(np.arctanh(np.sin(np.radians(lat))) / np.pi)
    return int((lon + 180) / 360 * 2**zoom), int((1 - up) / 2 * 2**zoom)
