"""What the how-to pages put around the program: nginx before the server, and systemd to start it."""

import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from textwrap import dedent

import pytest
from checkout import ROOT
from serving import Answered, form, png, serving
from tiny_world import TinyWorld, make_world

HOWTO = ROOT / "docs" / "howto"
TOKEN = "0123456789abcdef-0123"


def block(first: str, page: str = "serve.md") -> str:
    """The indented text of a page that begins with this line."""
    text = (HOWTO / page).read_text()
    lines = text[text.index(f"    {first}\n") :].splitlines()
    end = next(number for number, line in enumerate(lines) if line and not line.startswith("    "))
    return dedent("\n".join(lines[:end])) + "\n"


class Proxied:
    def __init__(self, port: int) -> None:
        self.port = port

    def connection(self) -> HTTPSConnection:
        return HTTPSConnection("localhost", self.port, timeout=20, context=ssl._create_unverified_context())

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answered:
        connection = self.connection()
        given = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, given)
        answer = connection.getresponse()
        answered = Answered(answer.status, answer.headers, answer.read())
        connection.close()
        return answered


@contextmanager
def nginx(folder: Path, port: int) -> Iterator[Proxied]:
    """The page's configuration, with paths and ports of this test."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    files = ["-keyout", str(folder / "drone.key"), "-out", str(folder / "drone.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listening = free.getsockname()[1]
    written = block("server {").replace("/etc/nginx/", f"{folder}/")
    for before, now in (("listen 443", f"listen 127.0.0.1:{listening}"), (":8765", f":{port}"), ("128m", "1m")):
        assert before in written
        written = written.replace(before, now)
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{name}_temp_path {folder}/{name};\n" for name in places)
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{written}}}\n"
    )
    process = subprocess.Popen([program, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"])
    try:
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < end
            try:
                socket.create_connection(("127.0.0.1", listening)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield Proxied(listening)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"), across=4)


def test_nginx_before_the_server(tiny: TinyWorld, tmp_path: Path) -> None:
    image = png(tiny.panorama(3))
    with serving(tiny.bundle, tiny.gallery, token=TOKEN) as running, nginx(tmp_path, running.port) as proxied:
        assert proxied.ask("/v1/locate?top=1", image).json["candidates"][0]["row"] == 3
        body, kind = form(("a.png", image), ("b.png", image))
        answers = proxied.ask("/v1/locate/batch", body, Content_Type=kind["Content-Type"]).json["answers"]
        assert [each["answer"]["candidates"][0]["row"] for each in answers] == [3, 3]
        assert proxied.ask("/v1/locate", image, Authorization="Bearer wrong").status == 401
        assert proxied.ask("/v1/locate", image, Origin=f"https://localhost:{proxied.port}").status == 200
        assert proxied.ask("/v1/locate", image, Origin="https://evil.example").status == 403
        assert proxied.ask("/v1/locate", bytes(2_000_000)).status == 413
        login = proxied.ask("/login", f"token={TOKEN}".encode(), Content_Type="application/x-www-form-urlencoded")
        assert (login.status, "Secure" in login.headers["Set-Cookie"]) == (303, True)
        stream = proxied.connection()
        stream.request("GET", "/v1/stream", headers={"Authorization": f"Bearer {TOKEN}"})
        lines = iter(stream.getresponse().readline, b"")
        assert next(lines) == b"event: source\n"
        running.server.live.tell("gallery", {"news": 1})
        assert b'data: {"news":1}\n' in lines, "while the stream goes on"
        stream.close()


@pytest.mark.parametrize("page", ["serve.md", "jetson.md"])
def test_systemd_accepts_the_service(page: str, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "geodtr.service"
    text = block("[Unit]", page)
    assert "/opt/geodtr/bin/geodtr-export" in text
    unit.write_text(text.replace("/opt/geodtr/bin/geodtr-export", sys.executable))
    done = subprocess.run([program, "verify", "--man=no", unit], check=False, capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
