"""ArduPilot's own simulator (SITL), where GEODTR_ARDUPILOT names its arducopter: built elsewhere, run on loopback.

The simulator flies a quadcopter with its real EKF. One MAVLink port is the ground station's, which is this file; the
other is the companion's, for the program under test.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

from mavlink_peer import free_port
from pymavlink.dialects.v20 import ardupilotmega as dialect
from simulator import Simulator

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


class ArduPilot(Simulator):
    """`with ArduPilot(folder, home, {"GPS1_TYPE": 14}) as vehicle`: a quadcopter on the ground at `home` (degrees)."""

    true_message = "SIMSTATE"
    streams: ClassVar[Mapping[str, float]] = {
        "SIMSTATE": 10,
        "GLOBAL_POSITION_INT": 10,
        "EKF_STATUS_REPORT": 4,
        "GPS_RAW_INT": 4,
        "LOCAL_POSITION_NED": 4,
        "GPS_GLOBAL_ORIGIN": 1,
    }

    def __init__(self, folder: Path, home: tuple[float, float], parameters: Mapping[str, float]) -> None:
        assert BINARY is not None, ABSENT
        control, companion, radio = (free_port() for _ in range(3))
        self.address = f"udpin:127.0.0.1:{companion}"
        defaults = folder / "simulator.parm"
        defaults.write_text("".join(f"{name} {value}\n" for name, value in {**FRAME, **parameters}.items()))
        line = [BINARY, "-w", "--model", "+", "--speedup", "1", "--home", f"{home[0]},{home[1]},50,0"]
        line += ["--defaults", str(defaults), "--sim-address", "127.0.0.1", "--rc-in-port", str(radio)]
        for number, port in enumerate((control, companion)):
            line += [f"--serial{number}", f"udpclient:127.0.0.1:{port}"]
        super().__init__(folder, line, f"udpin:127.0.0.1:{control}")

    def set(self, name: str, value: float) -> None:
        self._link.mav.param_set_send(1, 1, name.encode(), value, dialect.MAV_PARAM_TYPE_REAL32)

    def set_origin(self, lat: float, lon: float) -> None:
        """Tell its EKF where metres are counted from, as a ground station does. One that it hears before its EKF has an
        attitude leaves it without a latitude and longitude.
        """
        self.wait_until(lambda: self._ekf(dialect.EKF_ATTITUDE) and not self._ekf(dialect.EKF_UNINITIALIZED), 60, "EKF")
        tell = partial(self.send_origin, lat, lon)
        self._again(tell, lambda: self.latest("GPS_GLOBAL_ORIGIN") is not None, 60, "its origin")

    def arm(self) -> None:
        """When its EKF has a position: arm in GUIDED, which its checks let happen only with one."""
        self.wait_until(lambda: self._ekf(dialect.EKF_POS_HORIZ_ABS), 120, "a position")
        self._set_mode(dialect.COPTER_MODE_GUIDED, heard=dialect.COPTER_MODE_GUIDED, named="GUIDED")
        self._again(partial(self.command, dialect.MAV_CMD_COMPONENT_ARM_DISARM, 1), self._armed, 60, "armed")

    def take_off(self, metres: float) -> None:
        """Arm, climb and hover."""
        self.arm()
        rise = partial(self.command, dialect.MAV_CMD_NAV_TAKEOFF, 0, 0, 0, 0, 0, 0, metres)
        self._again(rise, lambda: self.height > metres - 2, 60, "up")

    @property
    def complaints(self) -> list[str]:
        """Its texts about positions that it does not trust."""
        bad = ("Failsafe", "Glitch", "variance", "stopped")
        return [text for text in self.texts if any(word in text for word in bad)]

    def _ekf(self, flag: int) -> bool:
        return bool(self.wait_for("EKF_STATUS_REPORT").flags & flag)
