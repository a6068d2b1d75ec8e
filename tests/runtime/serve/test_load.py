"""Many clients, slow ones, ones that vanish or send without an end: others are served, and nothing accepted is lost."""

import asyncio
import gc
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import Any

import numpy as np
import onnxruntime
import pytest
from serving import Running, form, png, serving, until
from tiny_world import TinyWorld

from geodtr import Localizer, open_bundle
from geodtr.runtime.images.decode import decode_bytes
from geodtr.runtime.serve import batching, server
from geodtr.runtime.serve.http import messages
from geodtr.runtime.serve.http.forms import FormReader

SPINNING = "session.intra_op.allow_spinning"


@pytest.fixture(scope="module")
def running(tiny: TinyWorld) -> Iterator[Running]:
    with serving(tiny.bundle, tiny.gallery, max_megabytes=2, max_megapixels=1) as running:
        yield running


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
