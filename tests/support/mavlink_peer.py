"""An autopilot at the other end of a loopback link: its own socket, pymavlink's own parser, and a link that may be bad.

It moves east at a steady speed and reports what PX4 and ArduPilot do. It keeps every message that it receives.
"""

import heapq
import math
import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from types import TracebackType
from typing import Any

from pymavlink.dialects.v20 import common

SPEED = 20.0
ORIGIN = (-30.0, -15.0)
SYSTEM = 7


@dataclass(slots=True)
class Weather:
    """What the link does to a datagram, either way: the share lost, and seconds of delay, drawn for each, so that they
    overtake one another.
    """

    lost: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)


class Peer:
    """`with Peer() as peer`: an address to send to, and what came there."""

    def __init__(
        self,
        weather: Weather | None = None,
        *,
        reports: bool = True,
        positioned: bool = True,
        port: int = 0,
        speed: float = SPEED,
        autopilot: int = common.MAV_AUTOPILOT_PX4,
        parameters: Mapping[str, tuple[float, int]] | None = None,
    ) -> None:
        """`reports`: it speaks; else it only hears. `positioned`: its EKF has a position to report. `port`: of one that
        comes back. `speed`: m/s eastwards. `parameters`: values as they stand in PARAM_VALUE, and their types.
        """
        self._speed = speed
        self._autopilot, self._parameters = autopilot, dict(parameters or {})
        self.weather = weather or Weather()
        self.reports = reports
        self.positioned = positioned
        self.booted = time.monotonic() - 100.0
        self.unix = 1.7e9  # when it booted, by its GNSS; 0: it does not know
        self._random = random.Random(0)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._socket.settimeout(0.005)
        self.port = int(self._socket.getsockname()[1])
        self.address = f"udpout:127.0.0.1:{self.port}"
        self._mav = common.MAVLink(None, SYSTEM, 1)
        self._hears = common.MAVLink(None, 255, 0)
        self._companion: tuple[str, int] | None = None
        self._on_the_way: list[tuple[float, int, bool, bytes]] = []
        self._lock = Lock()
        self._heard: list[Any] = []
        self._over = False
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Peer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()

    @property
    def boot_time(self) -> float:
        return time.monotonic() - self.booted

    def heard(self, name: str) -> list[Any]:
        """The messages of that name that have come."""
        with self._lock:
            return [message for message in self._heard if message.get_type() == name]

    def wait_for(self, name: str, count: int = 1, seconds: float = 10.0) -> list[Any]:
        """The same, when there are so many."""
        wait_until(lambda: len(self.heard(name)) >= count, seconds, f"{count} {name}")
        return self.heard(name)

    def say(self, message: Any) -> None:
        """Send a message to the last that spoke."""
        data = message.pack(self._mav)
        self._mav.seq = (self._mav.seq + 1) % 256
        self._put(True, data)

    def _put(self, out: bool, data: bytes) -> None:
        if self._random.random() < self.weather.lost:
            return
        due = time.monotonic() + self._random.uniform(*self.weather.delay)
        heapq.heappush(self._on_the_way, (due, len(data) + self._random.getrandbits(30), out, data))

    def _run(self) -> None:
        due = {self._slowly: 0.0, self._often: 0.0}
        every: dict[Callable[[], None], float] = {self._slowly: 0.2, self._often: 0.05}
        while not self._over:
            with suppress(TimeoutError):
                data, self._companion = self._socket.recvfrom(4096)
                self._put(False, data)
            now = time.monotonic()
            for report, at in due.items():
                if self.reports and now >= at:
                    due[report] = now + every[report]
                    report()
            while self._on_the_way and self._on_the_way[0][0] <= now:
                _, _, out, data = heapq.heappop(self._on_the_way)
                if not out:
                    messages = self._hears.parse_buffer(data) or []
                    with self._lock:
                        self._heard += messages
                    for message in messages:
                        self._answer(message)
                elif self._companion is not None:
                    self._socket.sendto(data, self._companion)

    def _answer(self, message: Any) -> None:
        if message.get_type() == "PARAM_REQUEST_READ" and message.param_id in self._parameters:
            value, kind = self._parameters[message.param_id]
            self.say(common.MAVLink_param_value_message(message.param_id.encode(), value, kind, 1, 0))

        elif message.get_type() == "COMMAND_LONG" and (message.command, message.param1) == (
            common.MAV_CMD_REQUEST_MESSAGE,
            common.MAVLINK_MSG_ID_GPS_GLOBAL_ORIGIN,
        ):
            self._say_origin()

    def _say_origin(self) -> None:
        """PX4 does so when it gets one, long ago here, and when it is asked; not at an interval."""
        self.say(common.MAVLink_gps_global_origin_message(*(round(part * 1e7) for part in ORIGIN), 0, 0))

    def _slowly(self) -> None:
        boot = self.boot_time
        self.say(common.MAVLink_heartbeat_message(2, self._autopilot, 0, 0, 4, 3))
        unix = 0 if self.unix == 0 else round((self.unix + boot) * 1e6)
        self.say(common.MAVLink_system_time_message(unix, round(boot * 1e3)))
        if self._autopilot != common.MAV_AUTOPILOT_PX4:
            self._say_origin()

    def _often(self) -> None:
        milliseconds = round(self.boot_time * 1e3)
        east = self._speed * self.boot_time
        if self.positioned:
            self.say(common.MAVLink_local_position_ned_message(milliseconds, 0.0, east, -50.0, 0.0, self._speed, 0.0))
        self.say(common.MAVLink_attitude_message(milliseconds, 0.0, 0.0, math.pi / 2, 0.0, 0.0, 0.0))


def wait_until(what: Callable[[], bool], seconds: float = 10.0, named: str = "it") -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"waited {seconds:g} s for {named}"
        time.sleep(0.01)


def free_port() -> int:
    """A UDP port that nobody listens at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
