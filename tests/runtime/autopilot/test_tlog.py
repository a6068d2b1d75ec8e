"""The record of a link: read back by pymavlink, and a disk that is full costs it alone."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from autopilot_link import FIX, driven_by_the_autopilot, linked, unopened
from mavlink_peer import SYSTEM, Peer, wait_until
from pymavlink import mavutil
from pymavlink.dialects.v20 import ardupilotmega
from size_limit import file_size_limit

from geodtr import UserError
from geodtr.runtime.errors import ConfigError, OutputExists


def test_a_message_of_another_dialect_is_recorded_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "flight.tlog"
    foreign = ardupilotmega.MAVLink(None, SYSTEM, 1)
    with Peer() as peer, linked(peer.address, tlog=path) as (link, _), driven_by_the_autopilot(link):
        peer.wait_for("GLOBAL_POSITION_SENSOR")
        data = ardupilotmega.MAVLink_ekf_status_report_message(1, 0.1, 0.1, 0.1, 0.1, 0.1).pack(foreign)
        peer._put(True, data)
        peer.wait_for("GLOBAL_POSITION_SENSOR", len(peer.heard("GLOBAL_POSITION_SENSOR")) + 5)
    assert data in path.read_bytes()


def test_the_record_is_read_back_by_pymavlink(tmp_path: Path) -> None:
    path = tmp_path / "new" / "flight.tlog"
    began = time.time()
    with Peer() as peer, linked(peer.address, tlog=path) as (link, _), driven_by_the_autopilot(link):
        peer.wait_for("GLOBAL_POSITION_SENSOR", 5)
    reader: Any = mavutil.mavlogfile(str(path), robust_parsing=True)
    names, times = list[str](), list[float]()
    while (message := reader.recv_msg()) is not None:
        names.append(message.get_type())
        times.append(message._timestamp)
    assert {"HEARTBEAT", "ATTITUDE", "SYSTEM_TIME", "COMMAND_LONG", "GLOBAL_POSITION_SENSOR"} <= {*names}
    assert "BAD_DATA" not in names
    assert names.count("GLOBAL_POSITION_SENSOR") == link.sent
    assert times == sorted(times)
    assert began - 1 < times[0] <= times[-1] < time.time() + 1


def test_a_full_disk_ends_the_record_and_not_the_flight(tmp_path: Path) -> None:
    path = tmp_path / "flight.tlog"
    with (
        file_size_limit(1000),
        Peer() as peer,
        linked(peer.address, tlog=path) as (link, reported),
        driven_by_the_autopilot(link),
    ):
        wait_until(lambda: len(reported) == 1)
        count = len(peer.heard("GLOBAL_POSITION_SENSOR"))
        peer.wait_for("GLOBAL_POSITION_SENSOR", count + 5)
    assert str(path) in reported[0]
    assert "what was written before stays" in reported[0]
    reader: Any = mavutil.mavlogfile(str(path), robust_parsing=True)
    names = []
    while (message := reader.recv_msg()) is not None:
        names.append(message.get_type())
    assert len(names) > 5
    assert "BAD_DATA" not in names


def test_a_record_that_ends_with_the_last_messages_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "flight.tlog"
    with (
        ExitStack() as limit,
        Peer(reports=False) as peer,
        linked(peer.address, track=False, tlog=path) as (link, reported),
    ):
        wait_until(lambda: path.stat().st_size > 0)
        limit.enter_context(file_size_limit(path.stat().st_size))
        link.send(FIX)
    assert [str(path) in text for text in reported] == [True]


def test_a_record_that_cannot_be_made_stops_before_the_flight(tmp_path: Path) -> None:
    taken = tmp_path / "taken.tlog"
    taken.write_bytes(b"")
    for path, error, words in (
        (taken, OutputExists, "exists"),
        (tmp_path / "flight.log", ConfigError, "does not end in .tlog"),
        (taken / "below.tlog", UserError, "cannot be written"),
    ):
        with pytest.raises(error, match=words):
            unopened(tlog=path)
