"""ArduPilot's own simulator (SITL), where GEODTR_ARDUPILOT names its arducopter: built elsewhere, run on loopback.

The simulator flies a quadcopter with its real EKF. One MAVLink port is the ground station's, which is this file; the
other is the companion's, for the program under test.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from typing import Any

from pymavlink import mavutil
from pymavlink.dialects.v20 import ardupilotmega as dialect

BINARY = os.environ.get("GEODTR_ARDUPILOT")
ABSENT = "GEODTR_ARDUPILOT names no simulator: set it to the arducopter of ArduPilot's board sitl"
FRAME = {
    "FRAME_CLASS": 1,
    "FRAME_TYPE": 0,
    "FS_THR_ENABLE": 0,
    "SERIAL2_PROTOCOL": -1,  # it would listen on TCP
    # The simulated sensors count as calibrated.
    **{f"INS_ACC{which}OFFS_{axis}": 0.001 for which in ("", "2") for axis in "XYZ"},
    **{f"INS_ACC{which}SCAL_{axis}": 1.001 for which in ("", "2") for axis in "XYZ"},
    **{
        f"COMPASS_OFS{which}_{axis}": off for which in ("", "2", "3") for axis, off in (("X", 5), ("Y", 13), ("Z", -18))
    },
    "MOT_THST_HOVER": 0.39,
    "MOT_THST_EXPO": 0.65,
}
"""The parameters of the simulated quadcopter itself."""
STREAMS = {
    "SIMSTATE": 10,
    "GLOBAL_POSITION_INT": 10,
    "EKF_STATUS_REPORT": 4,
    "GPS_RAW_INT": 4,
    "LOCAL_POSITION_NED": 4,
    "GPS_GLOBAL_ORIGIN": 1,
}


class Simulator:
    """`with Simulator(folder, home, {"GPS1_TYPE": 14}) as vehicle`: a quadcopter on the ground at `home` (degrees)."""

    def __init__(self, folder: Path, home: tuple[float, float], parameters: Mapping[str, float]) -> None:
        assert BINARY is not None, ABSENT
        control, companion, radio = (free_port() for _ in range(3))
        self.address = f"udpin:127.0.0.1:{companion}"
        defaults = folder / "simulator.parm"
        defaults.write_text("".join(f"{name} {value}\n" for name, value in {**FRAME, **parameters}.items()))
        self._line = [BINARY, "-w", "--model", "+", "--speedup", "1", "--home", f"{home[0]},{home[1]},50,0"]
        self._line += ["--defaults", str(defaults), "--sim-address", "127.0.0.1", "--rc-in-port", str(radio)]
        for number, port in enumerate((control, companion)):
            self._line += [f"--serial{number}", f"udpclient:127.0.0.1:{port}"]
        self._folder = folder
        self._link: Any = mavutil.mavlink_connection(
            f"udpin:127.0.0.1:{control}", source_system=255, dialect="ardupilotmega"
        )
        self._lock = Lock()
        self._latest = dict[str, Any]()
        self.texts = list[str]()
        """Its STATUSTEXT, the latest last."""
        self.acks = list[tuple[int, int]]()
        self._over = False
        self._thread = Thread(target=self._listen)

    def __enter__(self) -> "Simulator":
        self._log = (self._folder / "simulator.log").open("w")
        self._process = subprocess.Popen(self._line, cwd=self._folder, stdout=self._log, stderr=self._log)
        self._thread.start()
        self.wait_for("HEARTBEAT", 60)
        for number, (name, rate) in enumerate(STREAMS.items()):
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
        self._link.mav.command_long_send(1, 1, number, 0, *values, *(0.0,) * (7 - len(values)))

    def set(self, name: str, value: float) -> None:
        self._link.mav.param_set_send(1, 1, name.encode(), value, dialect.MAV_PARAM_TYPE_REAL32)

    def set_origin(self, lat: float, lon: float) -> None:
        """Tell its EKF where metres are counted from, as a ground station does. One that it hears before its EKF has an
        attitude leaves it without a latitude and longitude.
        """
        self.wait_until(lambda: self._ekf(dialect.EKF_ATTITUDE) and not self._ekf(dialect.EKF_UNINITIALIZED), 60, "EKF")
        message = dialect.MAVLink_set_gps_global_origin_message(1, round(lat * 1e7), round(lon * 1e7), 50_000, 0)
        self._again(lambda: self.send(message), lambda: self.latest("GPS_GLOBAL_ORIGIN") is not None, 60, "its origin")

    def arm(self) -> None:
        """When its EKF has a position: arm in GUIDED, which its checks let happen only with one."""
        self.wait_until(lambda: self._ekf(dialect.EKF_POS_HORIZ_ABS), 120, "a position")
        guided = (dialect.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED, dialect.COPTER_MODE_GUIDED)
        mode = partial(self.command, dialect.MAV_CMD_DO_SET_MODE, *guided)
        self._again(mode, lambda: self.wait_for("HEARTBEAT").custom_mode == dialect.COPTER_MODE_GUIDED, 60, "GUIDED")
        self._again(partial(self.command, dialect.MAV_CMD_COMPONENT_ARM_DISARM, 1), self._armed, 60, "armed")

    def take_off(self, metres: float) -> None:
        """Arm, climb and hover."""
        self.arm()
        rise = partial(self.command, dialect.MAV_CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, metres)
        self._again(rise, lambda: self.height > metres - 2, 60, "up")

    def fly(self, north: float, east: float) -> None:
        """Go on at these m/s, for the 3 seconds that ArduPilot lets a velocity hold."""
        velocity = 0b0000_1101_1100_0111  # all but the velocity is to be ignored
        self.send(
            dialect.MAVLink_set_position_target_local_ned_message(
                0, 1, 1, dialect.MAV_FRAME_LOCAL_NED, velocity, 0, 0, 0, north, east, 0, 0, 0, 0, 0, 0
            )
        )

    @property
    def complaints(self) -> list[str]:
        """Its texts about positions that it does not trust."""
        bad = ("Failsafe", "Glitch", "variance", "stopped")
        return [text for text in self.texts if any(word in text for word in bad)]

    @property
    def height(self) -> float:
        return float(self.wait_for("GLOBAL_POSITION_INT").relative_alt) / 1e3

    def _answered(self, commands: int) -> bool:
        return len(self.acks) > commands

    def _ekf(self, flag: int) -> bool:
        return bool(self.wait_for("EKF_STATUS_REPORT").flags & flag)

    def _armed(self) -> bool:
        return bool(self.wait_for("HEARTBEAT").base_mode & dialect.MAV_MODE_FLAG_SAFETY_ARMED)

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

    def send(self, message: Any) -> None:
        self._link.mav.send(message)

    @property
    def truth(self) -> tuple[float, float]:
        """Where it is, degrees."""
        state = self.wait_for("SIMSTATE")
        return state.lat / 1e7, state.lng / 1e7

    @property
    def believed(self) -> tuple[float, float]:
        """Where its EKF has it, degrees."""
        position = self.wait_for("GLOBAL_POSITION_INT")
        return position.lat / 1e7, position.lon / 1e7

    def _listen(self) -> None:
        while not self._over:
            message = self._link.recv_match(blocking=True, timeout=0.2)
            if message is None:
                continue
            name = message.get_type()
            with self._lock:
                self._latest[name] = message
                if name == "STATUSTEXT":
                    self.texts.append(message.text)
                elif name == "COMMAND_ACK":
                    self.acks.append((message.command, message.result))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
