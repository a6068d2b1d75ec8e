"""Bytes from an autopilot, and the .tlog that keeps them."""

from io import BytesIO
from math import inf, nan
from pathlib import Path
from typing import Any

from hostile import damaged
from hypothesis import strategies as st
from kinds import Kind
from pymavlink import mavutil
from pymavlink.dialects.v20 import common

from geodtr.runtime.autopilot.link import Link
from geodtr.runtime.autopilot.options import Gates, LinkOptions
from geodtr.runtime.autopilot.tlog import Tlog
from geodtr.runtime.autopilot.transport import Transport
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.names import MavlinkMessage
from geodtr.runtime.tracking.filter import Tracker

_ADDRESS = "udpout:127.0.0.1:9"  # the port that discards
_ANSWER = Waypoint("tracking", None, 1.0, -30.0, -15.0, 90.0, 12.0, 20.0)
_MESSAGES: tuple[MavlinkMessage, ...] = ("global-position-sensor", "gps-input", "external-position", "odometry")


def _packed(messages: list[Any]) -> bytes:
    speaker = common.MAVLink(BytesIO(), 1, 1)
    return b"".join(message.pack(speaker) for message in messages)


def _stated() -> list[Any]:
    heartbeat = common.MAVLink_heartbeat_message(
        common.MAV_TYPE_QUADROTOR, common.MAV_AUTOPILOT_ARDUPILOTMEGA, 0, 0, common.MAV_STATE_ACTIVE, 3
    )
    moved = [
        message
        for step in range(1, 4)
        for message in (
            common.MAVLink_local_position_ned_message(100 * step, 0.0, 0.0, -30.0, 8.0, 1.0, 0.0),
            common.MAVLink_attitude_message(100 * step, 0.0, 0.0, 0.1 * step, 0.0, 0.0, 0.0),
        )
    ]
    return [
        heartbeat,
        common.MAVLink_system_time_message(1_700_000_000_000_000, 1000),
        common.MAVLink_gps_global_origin_message(-300_000_000, -150_000_000, 0),
        common.MAVLink_timesync_message(0, 77),
        common.MAVLink_param_value_message(b"EK3_GPS_CHECK", 23.0, common.MAV_PARAM_TYPE_REAL32, 1, 0),
        common.MAVLink_command_ack_message(common.MAV_CMD_EXTERNAL_POSITION_ESTIMATE, 3),
        *moved,
    ]


def _extreme() -> st.SearchStrategy[bytes]:
    """Well-formed messages of numbers that no vehicle has."""
    whole = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
    signed = st.integers(-(2**31), 2**31 - 1)
    real = st.sampled_from([nan, inf, -inf, 0.0, 3.4e38, -3.4e38]) | st.floats(width=32)
    one = st.one_of(
        st.builds(common.MAVLink_system_time_message, st.integers(0, 2**64 - 1), whole),
        st.builds(common.MAVLink_attitude_message, whole, *(real,) * 6),
        st.builds(common.MAVLink_local_position_ned_message, whole, *(real,) * 6),
        st.builds(common.MAVLink_gps_global_origin_message, signed, signed, signed),
        st.builds(common.MAVLink_timesync_message, st.sampled_from([0, 1]), st.integers(-(2**63), 2**63 - 1)),
    )
    return st.lists(one, min_size=1, max_size=8).map(lambda messages: _packed([*_stated(), *messages]))


def link(root: Path) -> Kind:
    """All that came is heard, followed by a filter, answered, and kept; the record must be readable."""
    valid = _packed(_stated())

    def use(given: tuple[MavlinkMessage, bytes]) -> None:
        kind, data = given
        tlog = root / "a.tlog"
        tlog.unlink(missing_ok=True)
        opened = Link(
            LinkOptions(_ADDRESS, kind, gates=Gates(uncalibrated_sigma=8.0)), track=True, report=list[str]().append
        )
        opened._transport, opened._tlog = Transport(_ADDRESS), Tlog(tlog)
        try:
            rows = opened.odometry()
            for start in range(0, len(data), 100):
                opened._hear(data[start : start + 100])
            opened._vehicle.close()
            tracker = Tracker()
            for row in rows.steps:
                tracker.step(row.motion, None)
            opened.send(_ANSWER)
            opened._send_position(opened._predictor.position(2.0), 2.0)
        finally:
            opened._transport.close()
            opened._tlog.close()
        _replay(tlog)

    data = damaged(valid, len(valid)) | _extreme() | st.binary(max_size=400)
    return Kind(st.tuples(st.sampled_from(_MESSAGES), data), use, ("odometry", valid))


def _replay(tlog: Path) -> None:
    """Every message in the record has a time that pymavlink can tell; without messages there is no record."""
    if not tlog.exists():
        return
    log = mavutil.mavlink_connection(str(tlog), dialect="common")
    try:
        while (message := log.recv_match()) is not None:
            assert message.get_type() != "BAD_DATA" and message._timestamp > 1e9
    finally:
        log.close()
