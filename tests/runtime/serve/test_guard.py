"""Who may ask: tokens, pages of others, and servers for other machines."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Running, png, serving
from tiny_world import TinyWorld

from geodtr import UserError
from geodtr.runtime.serve.options import ServeOptions, read_token

TOKEN = "0123456789abcdef-0123"


@pytest.fixture(scope="module")
def running(tiny: TinyWorld) -> Iterator[Running]:
    with serving(tiny.bundle, tiny.gallery, max_megabytes=2, max_megapixels=1) as running:
        yield running


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


def test_requests_that_are_turned_away_are_counted(tiny: TinyWorld) -> None:
    known = {"Authorization": f"Bearer {TOKEN}"}
    with serving(tiny.bundle, tiny.gallery, token=TOKEN) as running:
        for path in ("/v1/state", "/v1/tiles/1", "/made/up"):
            assert running.ask(path).status == 401
        assert running.ask("/").status == 303
        assert running.ask("/v1/state", headers={"Origin": "https://evil.example", **known}).status == 403
        assert running.ask("/made/up", headers=known).status == 404
        assert running.ask("/v1/state", headers=known).status == 200
        counted = running.ask("/metrics", headers=known).body.decode()
    # A client without a token must not make a label of every path that it thinks of.
    for path, status, count in (
        *(("other", 401, 3), ("other", 303, 1), ("other", 403, 1), ("other", 404, 1)),
        ("/v1/state", 200, 1),
    ):
        assert f'geodtr_requests_total{{path="{path}",status="{status}"}} {count:.1f}' in counted


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
    assert "gone.mp4 does not exist" in refused(*served, "--video", tmp_path / "gone.mp4", "--port", 0)
    assert "is no video" in refused(*served, "--video", tmp_path, "--port", 0)
    assert "gone does not exist" in refused(*served, "--watch", tmp_path / "gone", "--port", 0)
    assert "is not a folder" in refused(*served, "--watch", tiny.bundle / "manifest.json", "--port", 0)
    assert "one source" in refused(*served, "--watch", tmp_path, "--camera", "camera:0", "--port", 0)
    assert "live view" in refused(*served, "--near", "1,2,3", "--port", 0)
    assert "have no times" in refused(*served, "--watch", tmp_path, "--track", "drive.csv", "--port", 0)
