"""An autopilot's own simulator beside a test, which is its ground station: its process, its reports, commands to it.

What ArduPilot's and PX4's have in common; each is built elsewhere and speaks MAVLink on loopback.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from pymavlink import mavutil
from pymavlink.dialects.v20 import ardupilotmega as dialect

Self = TypeVar("Self", bound="Simulator")


class Simulator:
    """`with` a subclass: a quadcopter on the ground at its home. `address` is where the program under test links to."""

    address: str
    true_message = ""
    """Which of its messages states where it is."""
    streams: ClassVar[Mapping[str, float]] = {}
    """Messages that it is asked for, and how many a second."""

    def __init__(
        self, folder: Path, line: Sequence[str], ground_station: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.system = 1
        self._line, self._environment = line, environment
        self._folder = folder
        self._link: Any = mavutil.mavlink_connection(ground_station, source_system=255, dialect="ardupilotmega")
        self._lock = Lock()
        self._latest = dict[str, Any]()
        self.texts = list[str]()
        """Its STATUSTEXT, the latest last."""
        self.acks = list[tuple[int, int]]()
        self._over = False
        self._thread = Thread(target=self._listen)

    def __enter__(self: Self) -> Self:
        self._log = (self._folder / "simulator.log").open("w")
        self._process = subprocess.Popen(
            self._line,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._thread.start()
        self.wait_for("HEARTBEAT", 60)
        for number, (name, rate) in enumerate(self.streams.items()):
            message = getattr(dialect, f"MAVLINK_MSG_ID_{name}")
            ask = partial(self.command, dialect.MAV_CMD_SET_MESSAGE_INTERVAL, message, 1e6 / rate)
            self._again(ask, partial(self._answered, number), 20, name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._over = True
        self._thread.join()
        self._link.close()
        self._log.close()

    def latest(self, name: str) -> Any:
        with self._lock:
            return self._latest.get(name)

    def wait_for(self, name: str, seconds: float = 10.0) -> Any:
        self.wait_until(lambda: self.latest(name) is not None, seconds, name)
        return self.latest(name)

    def wait_until(self, what: Callable[[], bool], seconds: float, named: str) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert self._process.poll() is None, (self._folder / "simulator.log").read_text()[-2000:]
            assert time.monotonic() < end, f"waited {seconds:g} s for {named}; its texts: {self.texts[-10:]}"
            time.sleep(0.05)

    def command(self, number: int, *values: float) -> None:
        self._link.mav.command_long_send(self.system, 1, number, 0, *values, *(0.0,) * (7 - len(values)))

    def send(self, message: Any) -> None:
        self._link.mav.send(message)

    def send_origin(self, lat: float, lon: float) -> None:
        place = round(lat * 1e7), round(lon * 1e7), 50_000
        self.send(dialect.MAVLink_set_gps_global_origin_message(self.system, *place, 0))

    def fly(self, north: float, east: float) -> None:
        """Go on at these m/s, for the moment that the autopilot lets a velocity hold."""
        velocity = 0b0000_1101_1100_0111  # all but the velocity is to be ignored
        self.send(
            dialect.MAVLink_set_position_target_local_ned_message(
                0, self.system, 1, dialect.MAV_FRAME_LOCAL_NED, velocity, 0, 0, 0, north, east, 0, 0, 0, 0, 0, 0
            )
        )

    @property
    def height(self) -> float:
        return float(self.wait_for("GLOBAL_POSITION_INT").relative_alt) / 1e3

    @property
    def truth(self) -> tuple[float, float]:
        """Where it is, degrees."""
        state = self.wait_for(self.true_message)
        return state.lat / 1e7, (state.lng if hasattr(state, "lng") else state.lon) / 1e7

    @property
    def believed(self) -> tuple[float, float]:
        """Where its EKF has it, degrees."""
        position = self.wait_for("GLOBAL_POSITION_INT")
        return position.lat / 1e7, position.lon / 1e7

    def _answered(self, commands: int) -> bool:
        return len(self.acks) > commands

    def _armed(self) -> bool:
        return bool(self.wait_for("HEARTBEAT").base_mode & dialect.MAV_MODE_FLAG_SAFETY_ARMED)

    def _set_mode(self, main: int, sub: int = 0, *, heard: int, named: str) -> None:
        """Until its heartbeat has this custom mode."""
        ask = partial(self.command, dialect.MAV_CMD_DO_SET_MODE, dialect.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED, main, sub)
        self._again(ask, lambda: self.wait_for("HEARTBEAT").custom_mode == heard, 60, named)

    def _again(self, ask: Callable[[], None], done: Callable[[], bool], seconds: float, named: str) -> None:
        """Ask each second until it is done: a command is refused while the EKF gets ready."""
        last = 0.0

        def tried() -> bool:
            nonlocal last
            if done():
                return True
            if time.monotonic() - last > 1.0:
                last = time.monotonic()
                ask()
            return False

        self.wait_until(tried, seconds, named)

    def _keep_up(self) -> None:
        """What the ground station has to send again and again."""

    def _listen(self) -> None:
        while not self._over:
            self._keep_up()
            message = self._link.recv_match(blocking=True, timeout=0.1)
            if message is None or message.get_srcComponent() != 1:
                continue  # the program under test is a part of the vehicle too
            name = message.get_type()
            with self._lock:
                self._latest[name] = message
                if name == "STATUSTEXT":
                    self.texts.append(message.text)
                elif name == "COMMAND_ACK":
                    self.acks.append((message.command, message.result))
