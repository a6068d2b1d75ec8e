"""An autopilot's own parameters, without which it reads a position's message and does not use it.

What is right was met in ArduPilot's and PX4's own simulators (docs/howto/autopilot.md). Knows parameters and their
values; knows nothing of links.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geodtr.runtime.autopilot.messages import SENSOR
from geodtr.runtime.names import MavlinkMessage

_ARDUPILOT, _PX4 = 3, 12
"""MAV_AUTOPILOT_ARDUPILOTMEGA and MAV_AUTOPILOT_PX4."""
_TRIES = 5
"""Requests for a parameter until it counts as one that the autopilot does not have: those are not answered."""
_INTEGERS = {1: "<B", 2: "<b", 3: "<H", 4: "<h", 5: "<I", 6: "<i"}
"""MAV_PARAM_TYPE_UINT8 to _INT32. PX4 sends their bytes in the place of the float (MAVLink: bytewise encoding)."""
_SETS = (1, 2, 3)
"""ArduPilot's sets of EKF sources, one of which is in use."""
_SLOTS = (0, 1, 2, 3)
"""PX4's EKF takes so many sensors of global positions, each by its id."""

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Needs:
    """The parameters to read, what is wrong with those that were read so far, and what it means that it has none of
    them, in sentences.
    """

    names: Sequence[str]
    wrong: Callable[[Values], Iterator[str]]
    without: str | None = None


def _unless(values: Values, name: str, right: int, otherwise: str) -> Iterator[str]:
    value = values.get(name)
    if value is not None and value != right:
        yield f"The autopilot's {name} is {value:g}: {otherwise} Set it to {right}."


def _unless_bit(values: Values, name: str, bit: int, expected: bool, otherwise: str) -> Iterator[str]:
    value = values.get(name)
    if value is not None and math.isfinite(value) and bool(int(value) & bit) is not expected:
        yield f"The autopilot's {name} is {value:g}: {otherwise}"


def _no_velocity(values: Values, number: int, message: str) -> Iterator[str]:
    for axis in ("VELXY", "VELZ"):
        zero = f"it would fuse a velocity of zero, for {message} has none."
        yield from _unless(values, f"EK3_SRC{number}_{axis}", 0, zero)


def _for_gps_input(values: Values) -> Iterator[str]:
    yield from _unless(values, "GPS1_TYPE", 14, "it does not read GPS_INPUT.")
    yield from _no_velocity(values, 1, "GPS_INPUT")
    unused = "it does not use positions whose sigma is above 5 m. Set it to 23: all checks but that one."
    yield from _unless_bit(values, "EK3_GPS_CHECK", 8, False, unused)


def _for_odometry(values: Values) -> Iterator[str]:
    yield from _unless(values, "VISO_TYPE", 1, "it does not read ODOMETRY as absolute positions.")
    sources = {number: values.get(f"EK3_SRC{number}_POSXY") for number in _SETS}
    for number, source in sources.items():
        if source == 6:
            yield from _no_velocity(values, number, "ODOMETRY")
    if None not in sources.values() and 6 not in sources.values():
        yield (
            f"The autopilot's EK3_SRC1_POSXY is {sources[1]:g}, and no other set of sources takes ODOMETRY's position "
            "either. Set it to 6, or EK3_SRC2_POSXY, and switch to that set when GNSS fails."
        )


def _for_px4s_sensor(values: Values) -> Iterator[str]:
    ids = {slot: values.get(f"EKF2_AGP{slot}_ID") for slot in _SLOTS}
    for slot, sensor in ids.items():
        if sensor == SENSOR:
            unused = "it does not fuse horizontal positions. Set it to 1."
            yield from _unless_bit(values, f"EKF2_AGP{slot}_CTRL", 1, True, unused)
    if None not in ids.values() and SENSOR not in ids.values():
        yield (
            f"The autopilot's EKF2_AGP0_ID is {ids[0]:g}, and it takes no positions of sensor {SENSOR} in another slot "
            f"either. Set it to {SENSOR}, and EKF2_AGP0_CTRL to 1, and reboot."
        )


def _for_px4s_vision(values: Values) -> Iterator[str]:
    own = "of ODOMETRY, the horizontal position alone is to be fused; the rest is the autopilot's own."
    yield from _unless(values, "EKF2_EV_CTRL", 1, own)


_NEEDS: Mapping[tuple[int, MavlinkMessage], _Needs] = {
    (_ARDUPILOT, "gps-input"): _Needs(
        ("GPS1_TYPE", "EK3_SRC1_VELXY", "EK3_SRC1_VELZ", "EK3_GPS_CHECK"), _for_gps_input
    ),
    (_ARDUPILOT, "odometry"): _Needs(
        ("VISO_TYPE", *(f"EK3_SRC{number}_{axis}" for number in _SETS for axis in ("POSXY", "VELXY", "VELZ"))),
        _for_odometry,
    ),
    (_PX4, "global-position-sensor"): _Needs(
        [f"EKF2_AGP{slot}_{name}" for slot in _SLOTS for name in ("ID", "CTRL")],
        _for_px4s_sensor,
        "The autopilot has no parameter EKF2_AGP0_ID: PX4 reads GLOBAL_POSITION_SENSOR from version 1.18 on. Send it "
        "--message odometry.",
    ),
    (_PX4, "odometry"): _Needs(("EKF2_EV_CTRL",), _for_px4s_vision),
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
        self._tries = dict[str, int]()
        self._values = dict[str, float]()
        self._reported = set[str]()

    def unknown(self, autopilot: int) -> list[str]:
        """The parameters to ask for now, given the autopilot's MAV_AUTOPILOT."""
        if other := _OTHERS.get((autopilot, self._kind)):
            self._report_once(other)
        needs = _NEEDS.get((autopilot, self._kind))
        names = [] if needs is None else [name for name in needs.names if name not in self._values]
        names = [name for name in names if self._tries.get(name, 0) < _TRIES]
        if needs is not None and needs.without is not None and not names and not self._values:
            self._report_once(needs.without)
        for name in names:
            self._tries[name] = self._tries.get(name, 0) + 1
        return names

    def hear(self, message: Any, autopilot: int) -> None:
        """Take a PARAM_VALUE: the answer to a request, or a value that somebody has set since."""
        needs = _NEEDS.get((autopilot, self._kind))
        if needs is None or message.param_id not in needs.names:
            return
        form = _INTEGERS.get(message.param_type) if autopilot == _PX4 else None
        value = message.param_value
        if form is not None:
            (value,) = struct.unpack_from(form, struct.pack("<f", value))
        self._values[message.param_id] = value
        for sentence in needs.wrong(self._values):
            self._report_once(sentence)

    def _report_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._report(sentence)
