"""What an autopilot's parameters say against the positions that are sent is reported, once, in words."""

import math
import struct

import pytest
from autopilot_link import linked
from hypothesis import example, given
from hypothesis import strategies as st
from mavlink_peer import Peer, Weather, wait_until
from pymavlink.dialects.v20 import common

from geodtr.runtime.autopilot import link as links
from geodtr.runtime.autopilot.settings import Settings
from geodtr.runtime.names import MavlinkMessage

ARDUPILOT, PX4 = common.MAV_AUTOPILOT_ARDUPILOTMEGA, common.MAV_AUTOPILOT_PX4
INT32, REAL32 = common.MAV_PARAM_TYPE_INT32, common.MAV_PARAM_TYPE_REAL32
RIGHT = {"GPS1_TYPE": 14, "EK3_SRC1_VELXY": 0, "EK3_SRC1_VELZ": 0, "EK3_GPS_CHECK": 23}


def bytewise(value: int) -> float:
    """An integer as PX4 sends it: its bytes in the place of a float's."""
    (number,) = struct.unpack("<f", struct.pack("<i", value))
    return float(number)


def of_ardupilot(**values: float) -> dict[str, tuple[float, int]]:
    return {name: (float(value), REAL32) for name, value in values.items()}


def test_parameters_that_fit_are_read_and_nothing_is_reported() -> None:
    with (
        Peer(autopilot=ARDUPILOT, parameters=of_ardupilot(**RIGHT)) as peer,
        linked(peer.address, "gps-input") as (
            _,
            reported,
        ),
    ):
        peer.wait_for("PARAM_REQUEST_READ", 4)
        peer.wait_for("HEARTBEAT", 2)
    assert {message.param_id for message in peer.heard("PARAM_REQUEST_READ")} == {*RIGHT}
    assert not reported


def test_each_parameter_that_does_not_fit_is_named_with_the_right_value_over_a_bad_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "PATIENCE", 0.3)
    wrong = RIGHT | {"GPS1_TYPE": 1, "EK3_SRC1_VELXY": 3}
    peer = Peer(Weather(lost=0.3), autopilot=ARDUPILOT, parameters=of_ardupilot(**wrong))
    with peer, linked(peer.address, "gps-input") as (_, reported):
        wait_until(lambda: sum("The autopilot's " in line and " is " in line for line in reported) >= 2, 20, "reports")
    named = sorted(line for line in reported if "Set it to" in line)
    assert named == [
        "The autopilot's EK3_SRC1_VELXY is 3: it would fuse a velocity of zero, for GPS_INPUT has none. Set it to 0.",
        "The autopilot's GPS1_TYPE is 1: it does not read GPS_INPUT. Set it to 14.",
    ]


def of_px4(**values: int) -> dict[str, tuple[float, int]]:
    slots = {f"EKF2_AGP{slot}_{name}": 0 for slot in range(4) for name in ("ID", "CTRL")}
    return {name: (bytewise(value), INT32) for name, value in {**slots, **values}.items()}


@pytest.mark.parametrize(("control", "fused"), [(1, True), (7, True), (0, False), (6, False)])
@pytest.mark.parametrize("slot", [0, 3])
def test_px4s_integers_are_read_by_their_bytes(slot: int, control: int, fused: bool) -> None:
    parameters = of_px4(**{f"EKF2_AGP{slot}_ID": 1, f"EKF2_AGP{slot}_CTRL": control})
    with Peer(autopilot=PX4, parameters=parameters) as peer, linked(peer.address) as (_, reported):
        peer.wait_for("PARAM_REQUEST_READ", 8)
        if not fused:
            wait_until(lambda: bool(reported), 10, "a report")
        peer.wait_for("HEARTBEAT", 2)
    assert reported == (
        []
        if fused
        else [f"The autopilot's EKF2_AGP{slot}_CTRL is {control}: it does not fuse horizontal positions. Set it to 1."]
    )


def test_a_sensor_that_px4_does_not_know_is_reported() -> None:
    parameters = of_px4(EKF2_AGP0_ID=7, EKF2_AGP0_CTRL=1)
    with Peer(autopilot=PX4, parameters=parameters) as peer, linked(peer.address) as (_, reported):
        wait_until(lambda: bool(reported), 10, "a report")
    assert reported == [
        "The autopilot's EKF2_AGP0_ID is 7, and it takes no positions of sensor 1 in another slot either. Set it to 1, "
        "and EKF2_AGP0_CTRL to 1, and reboot."
    ]


def test_a_px4_that_cannot_read_the_message_is_reported_when_it_has_not_answered() -> None:
    reported = list[str]()
    settings = Settings("global-position-sensor", reported.append)
    for _ in range(5):
        settings.unknown(PX4)
    assert reported == []
    settings.unknown(PX4)
    settings.unknown(PX4)
    assert ["from version 1.18 on" in line for line in reported] == [True]


def test_a_message_of_the_other_autopilot_is_reported() -> None:
    with Peer(autopilot=ARDUPILOT) as peer, linked(peer.address) as (_, reported):
        wait_until(lambda: bool(reported), 10, "a report")
    assert reported == [
        "The autopilot is ArduPilot, and GLOBAL_POSITION_SENSOR is PX4's. Send it --message odometry, gps-input or "
        "external-position."
    ]


def reported_of(kind: MavlinkMessage, autopilot: int, **values: float) -> list[str]:
    """What is reported of these parameters."""
    reported = list[str]()
    settings = Settings(kind, reported.append)
    for name, value in values.items():
        settings.hear(common.MAVLink_param_value_message(name.encode(), value, REAL32, 1, 0), autopilot)
    return reported


def test_a_set_of_sources_to_switch_to_is_as_good_as_the_first() -> None:
    gnss = {f"EK3_SRC{number}_{axis}": 3.0 for number in (1, 2, 3) for axis in ("POSXY", "VELXY", "VELZ")}
    (none,) = reported_of("odometry", ARDUPILOT, VISO_TYPE=1, **gnss)
    assert "EK3_SRC1_POSXY is 3, and no other set of sources" in none
    second = gnss | {"EK3_SRC2_POSXY": 6.0, "EK3_SRC2_VELZ": 0.0}
    (velocity,) = reported_of("odometry", ARDUPILOT, VISO_TYPE=1, **second)
    assert "EK3_SRC2_VELXY is 3" in velocity
    assert reported_of("odometry", ARDUPILOT, VISO_TYPE=1, **second | {"EK3_SRC2_VELXY": 0.0}) == []


def test_a_value_that_is_set_in_flight_is_judged_again() -> None:
    reported = list[str]()
    settings = Settings("gps-input", reported.append)
    for value in (14.0, 1.0, 14.0, 1.0):
        settings.hear(common.MAVLink_param_value_message(b"GPS1_TYPE", value, REAL32, 1, 0), ARDUPILOT)
    assert reported == ["The autopilot's GPS1_TYPE is 1: it does not read GPS_INPUT. Set it to 14."]


def test_a_parameter_that_the_autopilot_lacks_is_asked_for_a_few_times_only() -> None:
    settings = Settings("odometry", lambda _: None)
    rounds = [settings.unknown(ARDUPILOT) for _ in range(20)]
    assert {"VISO_TYPE", "EK3_SRC1_POSXY", "EK3_SRC3_VELZ"} < {*rounds[0]}
    assert not any(rounds[5:])
    assert not Settings("odometry", lambda _: None).unknown(common.MAV_AUTOPILOT_GENERIC)


@example(kind="gps-input", autopilot=ARDUPILOT, name="EK3_GPS_CHECK", value=math.nan, form=REAL32)
@given(
    kind=st.sampled_from(["gps-input", "odometry", "global-position-sensor", "external-position"]),
    autopilot=st.sampled_from([ARDUPILOT, PX4, 0]),
    name=st.sampled_from([*RIGHT, "EKF2_EV_CTRL", "EKF2_AGP0_CTRL", "EKF2_AGP3_ID", "VISO_TYPE", "OTHER"]),
    value=st.floats(width=32),
    form=st.integers(0, 12),
)
def test_any_value_is_survived(kind: MavlinkMessage, autopilot: int, name: str, value: float, form: int) -> None:
    reported = list[str]()
    settings = Settings(kind, reported.append)
    message = common.MAVLink_param_value_message(name.encode(), value, form, 1, 0)
    sent = message.pack(common.MAVLink(None))
    (heard,) = common.MAVLink(None).parse_buffer(sent)
    settings.hear(heard, autopilot)
    settings.hear(heard, autopilot)
    assert len(reported) <= 1
