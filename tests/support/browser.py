"""Debian's chromium in headless mode, controlled by its DevTools protocol over a pair of pipes.

Source: https://chromedevtools.github.io/devtools-protocol (same command names), --remote-debugging-pipe.
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
    """Path of the program, or None if none is installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass
class Tab:
    """One page. `requests` are the URLs requested since it was opened, `complaints` the messages of its console."""

    _write: int
    _read: int
    _session: str = ""
    _number: int = 0
    _rest: bytes = b""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, page: Path | str, width: int, *, dark: bool = False, paper: bool = False) -> None:
        """Show a file or an address in a window `width` pixels wide; `paper` selects the print layout."""
        self.requests.clear()
        self.complaints.clear()
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"media": "print" if paper else "", "features": [scheme]})
        self.call("Page.navigate", {"url": page if isinstance(page, str) else page.resolve().as_uri()})
        self._until("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """Run a script; return its result as JSON values."""
        answer = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write the whole page to a PNG file."""
        answer = self.call("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(answer["data"]))

    def printed(self, path: Path) -> None:
        """Write the page to a PDF file, with the paper size of the style sheet."""
        answer = self.call("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": False})
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Send one command of the protocol and return its answer. Raises AssertionError if the browser refuses it."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters or {}}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                answer: dict[str, Any] = message["result"]
                return answer

    def attach(self) -> None:
        """Open a page and receive its events."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _until(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            block = os.read(self._read, 1 << 20)
            assert block, "the browser exited"
            self._rest += block
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(parameters["args"]))
        return message


@contextmanager
def opened(program: str, profile: Path) -> Iterator[Tab]:
    """Start a browser with one empty page; it ends with the `with` block. `profile` is an empty folder."""
    commands, answers = os.pipe(), os.pipe()

    def connect_pipes() -> None:
        # Copies first: a pipe may already have the number that the other end needs.
        read, write = os.dup(commands[0]), os.dup(answers[1])
        os.dup2(read, _COMMANDS)
        os.dup2(write, _ANSWERS)

    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=connect_pipes,  # noqa: PLW1509 - the only way to give a child these two numbers; no thread is running
        close_fds=False,
        env={**os.environ, "TMPDIR": str(profile)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (commands[0], answers[1]):
        os.close(end)
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
        for end in (commands[1], answers[0]):
            os.close(end)
