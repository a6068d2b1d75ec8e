"""PX4's own simulator (SITL with SIH), where GEODTR_PX4 names the folder it was built in: run on loopback.

The simulator is a part of PX4 and flies a quadcopter with PX4's real EKF. One MAVLink port is the ground station's; the
other, the "onboard" one, is the companion's, for the program under test.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from functools import partial
from math import nan
from pathlib import Path
from typing import ClassVar

from pymavlink.dialects.v20 import ardupilotmega as dialect
from simulator import Simulator

BUILD = os.environ.get("GEODTR_PX4")
ABSENT = "GEODTR_PX4 names no simulator: set it to the folder in which PX4 was built for the board px4_sitl"
QUADCOPTER = {
    "SDLOG_MODE": -1,
    "COM_RCL_EXCEPT": 4,  # nobody holds a remote control
}
"""The parameters of the simulated quadcopter itself."""
AUTO, OFFBOARD, HOLD = 4, 6, 3


class Px4(Simulator):
    """`with Px4(folder, home, {"EKF2_AGP0_ID": 1}) as vehicle`: a quadcopter on the ground at `home` (degrees)."""

    true_message = "HIL_STATE_QUATERNION"
    streams: ClassVar[Mapping[str, float]] = {
        "HIL_STATE_QUATERNION": 10,
        "GLOBAL_POSITION_INT": 10,
        "ESTIMATOR_STATUS": 4,
        "LOCAL_POSITION_NED": 10,
    }

    def __init__(self, folder: Path, home: tuple[float, float], parameters: Mapping[str, float]) -> None:
        assert BUILD is not None, ABSENT
        instance = free_instance()
        self.address = f"udpin:127.0.0.1:{14540 + instance}"
        place = {"PX4_HOME_LAT": home[0], "PX4_HOME_LON": home[1], "PX4_HOME_ALT": 50.0}
        start = {"PX4_SIM_MODEL": "sihsim_quadx", "PX4_SIMULATOR": "sihsim", "PX4_SYS_AUTOSTART": 10040}
        settings = {f"PX4_PARAM_{name}": value for name, value in {**QUADCOPTER, **parameters}.items()}
        environment = os.environ | {name: str(value) for name, value in {**place, **start, **settings}.items()}
        line = [f"{BUILD}/bin/px4", "-i", str(instance), "-d", f"{BUILD}/etc"]
        super().__init__(folder, line, f"udpout:127.0.0.1:{18570 + instance}", environment)
        self.system = instance + 1
        self._velocity: tuple[float, float] | None = None
        self._kept_up = 0.0

    def set(self, name: str, value: float) -> None:
        """An integer goes by its bytes, in the place of a float's."""
        kind = dialect.MAV_PARAM_TYPE_INT32 if isinstance(value, int) else dialect.MAV_PARAM_TYPE_REAL32
        if isinstance(value, int):
            (value,) = struct.unpack("<f", struct.pack("<i", value))
        self._link.mav.param_set_send(self.system, 1, name.encode(), value, kind)

    def set_origin(self, lat: float, lon: float) -> None:
        """Tell its EKF where metres are counted from, as a ground station does."""
        tell = partial(self.send_origin, lat, lon)
        self._again(tell, lambda: self.latest("GPS_GLOBAL_ORIGIN") is not None, 60, "its origin")

    def arm(self) -> None:
        """In Hold, which its checks let happen only with a global position."""
        self._set_mode(AUTO, HOLD, heard=AUTO << 16 | HOLD << 24, named="Hold")
        self._again(partial(self.command, dialect.MAV_CMD_COMPONENT_ARM_DISARM, 1), self._armed, 120, "armed")

    def take_off(self, metres: float) -> None:
        """Arm, climb and hover."""
        self.arm()
        ground = self.wait_for("GLOBAL_POSITION_INT").alt / 1e3
        rise = partial(self.command, dialect.MAV_CMD_NAV_TAKEOFF, 0, 0, 0, nan, nan, nan, ground + metres)
        self._again(rise, lambda: self.height > metres - 2, 90, "up")

    def fly(self, north: float, east: float) -> None:
        """Go on at these m/s, until the next call: PX4 wants to hear it twice a second at least."""
        first = self._velocity is None
        self._velocity = north, east
        if first:
            self._set_mode(OFFBOARD, heard=OFFBOARD << 16, named="Offboard")

    @property
    def complaints(self) -> list[str]:
        """Its texts about positions that it does not trust."""
        bad = ("ailsafe", "invalid", "lost", "stopped")
        return [text for text in self.texts if any(word in text for word in bad)]

    def _keep_up(self) -> None:
        if time.monotonic() - self._kept_up < 0.1:
            return
        self._kept_up = time.monotonic()
        self._link.mav.heartbeat_send(dialect.MAV_TYPE_GCS, dialect.MAV_AUTOPILOT_INVALID, 0, 0, 0)
        if self._velocity is not None:
            super().fly(*self._velocity)


def free_instance() -> int:
    """PX4 counts its ports from its instance's number, and so must this."""
    for instance in range(1, 10):
        try:
            for port in (14540, 14580, 18570):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("127.0.0.1", port + instance))
        except OSError:
            continue
        return instance
    raise AssertionError("no nine instances of PX4 at a time")
