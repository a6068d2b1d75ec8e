"""An autopilot's own parameters, without which it reads a position's message and does not use it.

Which values are wanted was met in ArduPilot's simulator or read in PX4's and ArduPilot's documentation
(docs/howto/autopilot.md). Knows parameters and their values; knows nothing of links.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from geodtr.runtime.names import MavlinkMessage

_ARDUPILOT, _PX4 = 3, 12
"""MAV_AUTOPILOT_ARDUPILOTMEGA and MAV_AUTOPILOT_PX4."""
_TRIES = 5
"""Requests for a parameter until it counts as one that the autopilot does not have: those are not answered."""
_INTEGERS = {1: "<B", 2: "<b", 3: "<H", 4: "<h", 5: "<I", 6: "<i"}
"""MAV_PARAM_TYPE_UINT8 to _INT32. PX4 sends their bytes in the place of the float (MAVLink: bytewise encoding)."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which values are right, and what happens with another, in words."""

    right: Callable[[float], bool]
    otherwise: str


def _is(value: int, otherwise: str) -> _Wanted:
    return _Wanted(lambda found: found == value, f"{otherwise} Set it to {value}.")


def _no_velocity(message: str) -> dict[str, _Wanted]:
    fused = f"it would fuse a velocity of zero, for {message} has none."
    return {name: _is(0, fused) for name in ("EK3_SRC1_VELXY", "EK3_SRC1_VELZ")}


_WANTED: Mapping[tuple[int, MavlinkMessage], Mapping[str, _Wanted]] = {
    (_ARDUPILOT, "gps-input"): {
        "GPS1_TYPE": _is(14, "it does not read GPS_INPUT."),
        **_no_velocity("GPS_INPUT"),
        "EK3_GPS_CHECK": _Wanted(
            lambda found: math.isfinite(found) and not int(found) & 8,
            "it does not use positions whose sigma is above 5 m. Set it to 23: all checks but that one.",
        ),
    },
    (_ARDUPILOT, "odometry"): {
        "VISO_TYPE": _is(1, "it does not read ODOMETRY as absolute positions."),
        "EK3_SRC1_POSXY": _is(6, "it does not take its position from ODOMETRY."),
        **_no_velocity("ODOMETRY"),
    },
    (_PX4, "global-position-sensor"): {
        "EKF2_AGP0_CTRL": _Wanted(
            lambda found: math.isfinite(found) and bool(int(found) & 1),
            "it does not fuse horizontal positions. Set it to 1.",
        )
    },
    (_PX4, "odometry"): {
        "EKF2_EV_CTRL": _is(1, "ODOMETRY's horizontal position alone is to be fused; the rest is the autopilot's own.")
    },
}
_OTHERS: Mapping[tuple[int, MavlinkMessage], str] = {
    (_ARDUPILOT, "global-position-sensor"): (
        "The autopilot is ArduPilot, and GLOBAL_POSITION_SENSOR is PX4's. Send it --message odometry, gps-input or "
        "external-position."
    )
}


class Settings:
    """What one kind of message needs of the autopilot. `report` takes each contradiction, once. For one thread."""

    def __init__(self, kind: MavlinkMessage, report: Callable[[str], None]) -> None:
        self._kind, self._report = kind, report
        self._asked = dict[str, int]()
        self._found = set[str]()
        self._named = False

    def unknown(self, autopilot: int) -> list[str]:
        """The parameters to ask for now, given the autopilot's MAV_AUTOPILOT."""
        other = _OTHERS.get((autopilot, self._kind))
        if other is not None and not self._named:
            self._report(other)
            self._named = True
        names = [
            name
            for name in _WANTED.get((autopilot, self._kind), {})
            if name not in self._found and self._asked.get(name, 0) < _TRIES
        ]
        for name in names:
            self._asked[name] = self._asked.get(name, 0) + 1
        return names

    def hear(self, message: Any, autopilot: int) -> None:
        """Take a PARAM_VALUE."""
        name = message.param_id
        wanted = _WANTED.get((autopilot, self._kind), {}).get(name)
        if wanted is None or name in self._found:
            return
        self._found.add(name)
        form = _INTEGERS.get(message.param_type) if autopilot == _PX4 else None
        value = message.param_value
        if form is not None:
            (value,) = struct.unpack_from(form, struct.pack("<f", value))
        if not wanted.right(value):
            self._report(f"The autopilot's {name} is {value:g}: {wanted.otherwise}")
