"""A real browser without a screen: Debian's chromium, spoken to over a pair of pipes in its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol (commands are named as there), --remote-debugging-pipe.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_COMMANDS, _ANSWERS = 3, 4
"""The file descriptors that chromium reads commands from and writes answers to."""


def find_browser() -> str | None:
    """The program, or None on a machine that has none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@dataclass
class Tab:
    """One page. `requests` are the URLs asked for since it was opened, `complaints` what the console was told."""

    _write: int
    _read: int
    _session: str = ""
    _number: int = 0
    _rest: bytes = b""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: Path, width: int, *, dark: bool = False, paper: bool = False) -> None:
        """Show a file in a window so wide, in pixels; on paper, as a printer would get it."""
        self.requests.clear()
        self.complaints.clear()
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"media": "print" if paper else "", "features": [scheme]})
        self.call("Page.navigate", {"url": path.resolve().as_uri()})
        self._until("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """What a script returns, as JSON would hold it."""
        answer = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as a PNG file."""
        found = self.call("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(found["data"]))

    def printed(self, path: Path) -> None:
        """The page as a PDF file, its paper as the style sheet asks."""
        found = self.call("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": False})
        path.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
        """One command of the protocol and its answer. Raises AssertionError when the browser refuses it."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters or {}}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told["error"]
                answer: dict[str, Any] = told["result"]
                return answer

    def attach(self) -> None:
        """Take a page of the browser's for one's own, and listen to it."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for room in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{room}.enable")

    def _until(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            block = os.read(self._read, 1 << 20)
            assert block, "the browser is gone"
            self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        told_of = told.get("params", {})
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(told_of["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(told_of["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told_of["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(told_of["args"]))
        return told


@contextmanager
def opened(program: str, profile: Path) -> Iterator[Tab]:
    """A browser with nothing in it but one page; it is gone afterwards. `profile` is an empty folder of its own."""
    commands, answers = os.pipe(), os.pipe()

    def as_chromium_wants() -> None:
        # By way of copies: a pipe's own number may be one that the other end shall get.
        read, write = os.dup(commands[0]), os.dup(answers[1])
        os.dup2(read, _COMMANDS)
        os.dup2(write, _ANSWERS)

    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=as_chromium_wants,  # noqa: PLW1509 - nothing else gives a child these two numbers; no thread is about
        close_fds=False,
        env={**os.environ, "TMPDIR": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for theirs in (commands[0], answers[1]):
        os.close(theirs)
    try:
        tab = Tab(commands[1], answers[0])
        tab.attach()
        yield tab
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        for ours in (commands[1], answers[0]):
            os.close(ours)
