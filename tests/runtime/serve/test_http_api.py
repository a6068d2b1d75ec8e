"""The HTTP API: what a client gets for its images, and what it is refused."""

import asyncio
import gc
import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Event
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import ExifTags, Image
from serving import Running, form, png, serving, until
from tiny_world import CENTRE, SPACING, TinyWorld, make_world

from geodtr import Localizer, UserError, open_bundle
from geodtr.runtime.geodesy import distance
from geodtr.runtime.images.decode import decode_bytes
from geodtr.runtime.serve import batching, messages, server
from geodtr.runtime.serve.forms import FormReader
from geodtr.runtime.serve.options import ServeOptions, read_token

SPINNING = "session.intra_op.allow_spinning"
TOKEN = "0123456789abcdef-0123"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"))


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


def test_a_body_beyond_the_limit_is_refused_before_it_is_received(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000001\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    assert running.locate(bytes(2_000_001)).status == 413


def test_a_body_without_a_length_has_the_same_limit(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(21):
            client.sendall(b"186a0\r\n" + bytes(100_000) + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + bytes(300_000).replace(b"\0", b"x"),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + 30_000 * b"X: yyyyyy\r\n",
        b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + 30_000 * b"X: yyyyyy\r\n",
    ],
    ids=["header", "headers", "trailers"],
)
def test_what_a_parser_would_keep_without_an_end_is_refused(running: Running, endless: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.settimeout(5)  # before HEAD_SECONDS
        answer = b""
        with suppress(OSError):  # closed while it sends
            client.sendall(endless)
            while block := client.recv(1 << 16):
                answer += block
        assert b"HTTP/1.1 200" not in answer


def test_requests_that_do_not_wait_for_answers_are_answered_in_order(tiny: TinyWorld, running: Running) -> None:
    image = png(tiny.panorama(5))
    head = f"POST /v1/locate?top=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n".encode()
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(head + image + head + image + last)
        answers = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.rindex(b'"row":5') < answers.index(b'"status":"ok"')


def test_of_too_many_requests_at_once_the_first_are_answered_and_the_rest_refused(
    tiny: TinyWorld, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    image = png(tiny.panorama(5))
    head = f"POST /v1/locate?top=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.settimeout(20)
        client.sendall(100 * (head + image))
        answers = b""
        with suppress(OSError):  # closed with bytes that nobody read
            while block := client.recv(1 << 16):
                answers += block
    assert 1 <= answers.count(b"HTTP/1.1 200") == answers.count(b'"row":5') <= 9
    assert answers.index(b"HTTP/1.1 400") > answers.rindex(b"HTTP/1.1 200")
    assert not [record for record in caplog.records if record.exc_info]


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


def test_a_form_that_is_slow_to_parse_lets_others_have_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def parse() -> None:
        form = FormReader("multipart/form-data; boundary=x", 1)
        await form.write(b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n')
        waiting = asyncio.ensure_future(others())
        await form.write(b"\r\n--y" * 200_000)
        waiting.cancel()

    asyncio.run(parse())
    assert turns >= 1_000_000 // 20_000


def test_images_are_received_only_while_there_is_room_for_their_bytes(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held until they are decoded, and given back where they are not."""
    image, entered, opened = png(tiny.panorama(3)), Event(), Event()

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert opened.wait(20)
        return decode_bytes(*arguments)

    monkeypatch.setattr(batching, "decode_bytes", slow)
    monkeypatch.setattr(messages, "ROOM", 4 * len(image) - 1)
    body, headers = form(("a.png", image))

    def held(running: Running, number: int) -> bool:
        return f"geodtr_held_bytes {float(number)}" in running.ask("/metrics").body.decode()

    with serving(tiny.bundle, tiny.gallery) as running, ThreadPoolExecutor() as clients:
        accepted = [clients.submit(running.locate, image) for _ in range(2)]
        accepted.append(clients.submit(running.ask, "/v1/locate", body, headers))
        until(lambda: held(running, 3 * len(image)))
        for answer in (running.locate(image), running.ask("/v1/locate/batch", body, headers)):
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert held(running, 3 * len(image)), "no body of those that were refused"
        opened.set()
        assert [each.result().status for each in accepted] == [200] * 3
        assert held(running, 0)
        assert running.locate(b"no image").status == 422
        assert running.ask("/v1/locate", *form(("a.png", b"no image"))).status == 422
        assert running.ask("/v1/locate", body[:-6], headers).status == 400
        assert running.locate(b"").status == 422
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            until(lambda: held(running, 3))
        until(lambda: held(running, 0))
        assert running.locate(image).status == 200


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


class Gate:
    """Keeps the engine waiting until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = Event(), Event()
        embed = Localizer.embed

        def gated(localizer: Localizer, prepared: Any) -> Any:
            self.entered.set()
            assert self.opened.wait(20)
            return embed(localizer, prepared)

        monkeypatch.setattr(Localizer, "embed", gated)


def test_the_engines_threads_leave_their_cores_to_others_while_they_wait(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's keep them busy otherwise, which a call that has the machine to itself profits from."""
    waits = list[bool]()
    make = onnxruntime.InferenceSession

    def made(source: Any, session: onnxruntime.SessionOptions, **more: Any) -> onnxruntime.InferenceSession:
        opened = make(source, session, **more)
        try:
            waits.append(opened.get_session_options().get_session_config_entry(SPINNING) == "0")
        except RuntimeError:  # not set
            waits.append(False)
        return opened

    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    open_bundle(tiny.bundle).embedder("ground")
    assert waits == [False]
    with serving(tiny.bundle, tiny.gallery):
        assert waits == [False, True]


def test_overload_is_refused_with_a_time_and_loses_nothing_accepted(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with (
        serving(tiny.bundle, tiny.gallery, queue=3, batch_size=1) as running,
        ThreadPoolExecutor() as clients,
    ):
        accepted = [clients.submit(running.locate, png(tiny.panorama(row))) for row in (5, 6, 7)]
        until(lambda: b"geodtr_accepted_images 3.0" in running.ask("/metrics").body)
        refused = running.locate(png(tiny.panorama(8)))
        assert refused.status == 503
        assert b"geodtr_held_bytes 0.0" in running.ask("/metrics").body
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        body, headers = form(*[("a.png", png(tiny.panorama(9)))] * 4)
        assert running.ask("/v1/locate/batch", body, headers).status == 413, "it would never be accepted"
        gate.opened.set()
        rows = [each.result().json["candidates"][0]["row"] for each in accepted]
        assert rows == [5, 6, 7]
        assert running.locate(png(tiny.panorama(8))).status == 200


def test_many_clients_share_batches(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with serving(tiny.bundle, tiny.gallery) as running, ThreadPoolExecutor(9) as clients:
        first = clients.submit(running.locate, png(tiny.panorama(1)))
        assert gate.entered.wait(10)
        others = [clients.submit(running.locate, png(tiny.panorama(row))) for row in range(2, 10)]
        until(lambda: b"geodtr_accepted_images 9.0" in running.ask("/metrics").body)
        gate.opened.set()
        answers = [each.result().json["candidates"][0]["row"] for each in (first, *others)]
        assert answers == list(range(1, 10))
        metrics = running.ask("/metrics").body
        assert b"geodtr_batch_images_count 2.0" in metrics
        assert b"geodtr_batch_images_sum 9.0" in metrics


def test_a_client_that_vanishes_costs_nobody_else(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with serving(tiny.bundle, tiny.gallery, batch_size=1) as running, ThreadPoolExecutor() as clients:
        first = clients.submit(running.locate, png(tiny.panorama(1)))
        assert gate.entered.wait(10)
        image = png(tiny.panorama(2))
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            head = f"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n"
            client.sendall(head.encode() + image)
            until(lambda: b"geodtr_accepted_images 2.0" in running.ask("/metrics").body)
        until(lambda: b'geodtr_requests_total{path="/v1/locate",status="400"} 1.0' in running.ask("/metrics").body)
        gate.opened.set()
        assert first.result().status == 200
        assert running.locate(png(tiny.panorama(3))).status == 200
        until(lambda: b'geodtr_images_total{outcome="given up"} 1.0' in running.ask("/metrics").body)


def test_slow_clients_are_let_go(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(messages, "BODY_SECONDS", 0.3)
    with serving(tiny.bundle, tiny.gallery) as running:
        heads = [b"", b"POST /v1/locate HT"]
        silent = [socket.create_connection(("127.0.0.1", running.port)) for _ in heads]
        for client, head in zip(silent, heads, strict=True):
            client.sendall(head)
        assert running.locate(png(tiny.panorama(1))).status == 200
        for client in silent:
            client.settimeout(10)
            assert client.recv(10) == b""
            client.close()
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_stopping_answers_what_was_accepted(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor() as clients:
        with serving(tiny.bundle, tiny.gallery) as running:
            waiting = clients.submit(running.locate, png(tiny.panorama(7)))
            assert gate.entered.wait(10)
            running.server.stop()
            time.sleep(0.3)
            gate.opened.set()
        assert waiting.result().json["candidates"][0]["row"] == 7


def test_what_is_not_answered_in_time_when_the_server_ends_is_refused_in_words(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_FINISHING", 0.3)
    gate = Gate(monkeypatch)
    # The first is answered at once: it is no image.
    body, headers = form(("c.png", b"c"), ("a.png", png(tiny.panorama(8))), ("b.png", png(tiny.panorama(9))))
    with ThreadPoolExecutor() as clients:
        with serving(tiny.bundle, tiny.gallery, batch_size=1) as running:
            waiting = [clients.submit(running.locate, png(tiny.panorama(7)))]
            assert gate.entered.wait(10)
            waiting.append(clients.submit(running.ask, "/v1/locate/batch", body, headers))
            until(lambda: b"geodtr_accepted_images 3.0" in running.ask("/metrics").body)
            half = socket.create_connection(("127.0.0.1", running.port))
            half.sendall(b"POST /v1/locate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            time.sleep(0.2)
            running.server.stop()
            for each in waiting:
                answer = each.result()  # the engine is still at work
                assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
                assert "The server ends" in answer.json["error"]
            assert half.recv(100).startswith(b"HTTP/1.1 503")
            half.close()
            gate.opened.set()
        assert running.server.unanswered == 3
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []
    assert running.reports == []


def test_a_client_that_takes_no_answer_does_not_keep_the_server_from_ending(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_FINISHING", 0.2)
    monkeypatch.setattr(server, "_LEAVING", 0.2)
    with serving(tiny.bundle, tiny.gallery) as running:
        viewer = socket.create_connection(("127.0.0.1", running.port))
        viewer.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert viewer.recv(10)
        for _ in range(200):  # 20 MB: far more than the sockets hold
            running.server.live.tell("gallery", {"text": "x" * 100_000})
            time.sleep(0.002)
        running.server.stop()
    viewer.close()
    assert [record.getMessage() for record in caplog.records] == []


def test_one_image_that_fails_does_not_fail_the_others(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = Localizer.embed

    def broken(localizer: Localizer, prepared: Any) -> Any:
        descriptors = np.array(embed(localizer, prepared))
        for row, each in enumerate(prepared):
            if each.frame.name == "bad.png":
                descriptors[row] = np.nan
        return descriptors

    monkeypatch.setattr(Localizer, "embed", broken)
    with serving(tiny.bundle, tiny.gallery) as running:
        good, bad = ("good.png", png(tiny.panorama(3))), ("bad.png", png(tiny.panorama(4)))
        assert running.ask("/v1/locate/batch", *form(good, good)).status == 200
        failed = running.ask("/v1/locate/batch", *form(good, bad))
        assert failed.status == 500
        assert "its own output has the reason" in failed.json["error"]
        assert any("not finite" in line for line in running.reports)
        assert b'geodtr_images_total{outcome="answered"} 3.0' in running.ask("/metrics").body


def test_a_token_is_needed_where_one_is_set(tiny: TinyWorld) -> None:
    image = png(tiny.panorama(3))
    with serving(tiny.bundle, tiny.gallery, token=TOKEN) as running:
        for path in ("/v1/state", "/metrics", "/openapi.json", "/v1/stream", "/v1/tiles/1"):
            refused = running.ask(path)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert running.locate(image).status == 401
        assert running.locate(image, Authorization="Bearer wrong").status == 401
        assert running.locate(image, Authorization=f"Bearer {TOKEN}").status == 200
        assert running.ask("/healthz").json == {"status": "ok", "problem": None}
        assert running.ask("/").headers["Location"] == "/login"
        assert running.ask("/?token=wrong").headers["Location"] == "/login"
        by_link = running.ask(f"/?token={TOKEN}")
        assert (by_link.status, by_link.headers["Location"]) == (303, "/")
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        by_field = running.ask("/login", f"token={TOKEN}".encode(), kind)
        assert running.ask("/login", b"token=wrong", kind).status == 401
        for answer in (by_link, by_field):
            cookie = answer.headers["Set-Cookie"]
            assert TOKEN not in cookie
            assert "HttpOnly" in cookie
            session = cookie.partition(";")[0]
            assert running.ask("/v1/state", headers={"Cookie": session}).status == 200
            assert running.ask("/", headers={"Cookie": session}).status == 200
        assert running.ask("/v1/state", headers={"Cookie": f"geodtr_session={TOKEN}"}).status == 401


def test_pages_of_others_cannot_ask(tiny: TinyWorld, running: Running) -> None:
    image = png(tiny.panorama(3))
    assert running.locate(image, Origin="https://evil.example").status == 403
    assert running.locate(image, Origin="null").status == 403
    assert running.locate(image, Origin=f"http://127.0.0.1:{running.port}").status == 200
    assert running.ask("/v1/state", headers={"Host": "evil.example"}).status == 421
    assert running.ask("/v1/state", headers={"Host": f"localhost:{running.port}"}).status == 200
    assert running.ask("/v1/state", headers={"Sec-Fetch-Site": "cross-site"}).status == 403


def test_every_answer_keeps_the_browser_on_this_server(running: Running) -> None:
    for path in ("/", "/nowhere", "/v1/state", "/page/leaflet/leaflet.js"):
        policy = running.ask(path).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "http" not in policy
        assert "unsafe" not in policy


def test_a_server_for_other_machines_needs_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(UserError, match="--token-file"):
            ServeOptions(host=host)
    file = tmp_path / "token"
    for wrong in ("", "short", "two words of many letters", "ü" * 20, "x" * 513, "x" * 600):
        file.write_text(wrong)
        with pytest.raises(UserError, match=r"16 to 512 ASCII characters, without spaces. To make one: openssl rand"):
            read_token(file)
    file.write_text("x" * 512 + "\r\n")
    assert len(read_token(file)) == 512
    file.write_text(TOKEN + "\n")
    assert ServeOptions(host="0.0.0.0", token=read_token(file)).token == TOKEN
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "gone")


def test_the_command_refuses_what_cannot_be_served(
    tiny: TinyWorld, refused: Callable[..., str], tmp_path: Path
) -> None:
    served = ("serve", "--bundle", tiny.bundle, "--gallery", tiny.gallery)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "is taken by another program" in refused(*served, "--port", taken.getsockname()[1])
    assert "--token-file" in refused(*served, "--host", "0.0.0.0")
    assert "is not a bundle" in refused("serve", "--bundle", tmp_path / "gone", "--gallery", tiny.gallery, "--port", 0)
    assert "gone" in refused("serve", "--bundle", tiny.bundle, "--gallery", tmp_path / "gone", "--port", 0)
    assert "is no camera" in refused(*served, "--camera", "front", "--port", 0)
    assert "is no video" in refused(*served, "--video", tmp_path / "gone.mp4", "--port", 0)
    assert "is not a folder" in refused(*served, "--watch", tmp_path / "gone", "--port", 0)
    assert "one source" in refused(*served, "--watch", tmp_path, "--camera", "camera:0", "--port", 0)
    assert "live view" in refused(*served, "--near", "1,2,3", "--port", 0)
    assert "have no times" in refused(*served, "--watch", tmp_path, "--track", "drive.csv", "--port", 0)
