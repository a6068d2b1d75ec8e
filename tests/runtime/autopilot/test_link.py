"""A link to an autopilot that answers with pymavlink's own parser: in good weather and bad, silent, gone and back."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from threading import Event

import pytest
from autopilot_link import ALLOWED, FIX, answered, driven_by_the_autopilot, linked, unopened
from hypothesis import given, settings
from hypothesis import strategies as st
from mavlink_peer import ORIGIN, SPEED, SYSTEM, Peer, Weather, free_port, wait_until
from pymavlink.dialects.v20 import common

from geodtr.runtime.autopilot import link as links
from geodtr.runtime.autopilot.link import Link
from geodtr.runtime.autopilot.options import Gates, LinkOptions
from geodtr.runtime.errors import ConfigError, MissingDependency
from geodtr.runtime.geodesy import displacement
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.names import MavlinkMessage
from geodtr.runtime.prefetch import BackgroundReader
from geodtr.runtime.tracking.odometry import STANDING, Motion, Odometry, Step


def test_positions_go_out_at_the_rate_and_follow_the_vehicle_between_answers() -> None:
    with Peer() as peer, linked(peer.address) as (link, _):
        rows = link.odometry()
        first = next(iter(rows.steps))
        link.send(answered(first.time, east=SPEED * first.time))  # one answer, and none after it
        heard = peer.wait_for("GLOBAL_POSITION_SENSOR", 30)
    stamps = [message.time_usec / 1e6 for message in heard]
    assert len(heard) / (stamps[-1] - stamps[0]) == pytest.approx(20, rel=0.25)
    for message in heard:
        east, north = displacement(*ORIGIN, message.lat / 1e7, message.lon / 1e7)
        assert float(east) == pytest.approx(SPEED * message.time_usec / 1e6, abs=0.15 * SPEED)
        assert abs(float(north)) < 0.1
        assert 8.0 <= message.eph < 12.0
    assert heard[-1].eph > heard[0].eph


def test_time_stamps_are_the_autopilots_own() -> None:
    with Peer() as peer, linked(peer.address) as (link, _), driven_by_the_autopilot(link):
        heard = peer.wait_for("GLOBAL_POSITION_SENSOR", 3)
        assert heard[-1].time_usec / 1e6 == pytest.approx(peer.boot_time, abs=0.5)


def test_timesync_is_answered_by_the_same_clock() -> None:
    with Peer() as peer, linked(peer.address):
        peer.wait_for("COMMAND_LONG")
        wait_until(lambda: bool(peer.heard("HEARTBEAT")))
        peer.say(common.MAVLink_timesync_message(0, 12345))
        (answer, *_) = peer.wait_for("TIMESYNC")
        assert answer.ts1 == 12345
        assert answer.tc1 / 1e9 == pytest.approx(peer.boot_time, abs=0.5)


def test_it_is_a_part_of_the_vehicle_and_asks_for_what_it_reads() -> None:
    with Peer() as peer, linked(peer.address):
        requests = peer.wait_for("COMMAND_LONG", 5)
        assert {(message.command, message.param1) for message in requests} == {
            (511, 2),
            (511, 30),
            (511, 32),
            (511, 49),
            (512, 49),
        }
        wait_until(lambda: peer.heard("HEARTBEAT")[-1].get_srcSystem() == SYSTEM)
        assert {message.autopilot for message in peer.heard("HEARTBEAT")} == {common.MAV_AUTOPILOT_INVALID}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("gps-input", "GPS_INPUT"), ("odometry", "ODOMETRY"), ("external-position", "COMMAND_INT")],
)
def test_every_kind_of_message_arrives(kind: MavlinkMessage, name: str) -> None:
    with Peer() as peer, linked(peer.address, kind) as (link, _), driven_by_the_autopilot(link):
        message = peer.wait_for(name, 3)[-1]
        if name == "ODOMETRY":
            assert message.y == pytest.approx(SPEED * peer.boot_time, abs=SPEED)
            assert (message.z, message.q[3]) == pytest.approx((-50.0, math.sqrt(0.5)), abs=1e-3)


def test_a_lost_track_is_silent_and_comes_back_with_another_reset_counter() -> None:
    with Peer() as peer, linked(peer.address, "odometry") as (link, _):
        rows = iter(link.odometry().steps)
        for number in range(80):
            link.send(answered(next(rows).time, "lost" if 30 <= number < 50 else "tracking"))
        heard = peer.wait_for("ODOMETRY", 20)
        assert {message.reset_counter for message in heard} == {0, 1}
        gaps = [b.time_usec - a.time_usec for a, b in pairwise(heard)]
        assert max(gaps) > 0.5e6
    assert link.held_back["lost"] > 5


def test_bad_weather_costs_messages_and_nothing_else() -> None:
    weather = Weather(lost=0.3, delay=(0.0, 0.3))
    with Peer(weather) as peer, linked(peer.address) as (link, reported), driven_by_the_autopilot(link):
        heard = peer.wait_for("GLOBAL_POSITION_SENSOR", 40)
        stamps = [message.time_usec for message in heard]
        assert stamps != sorted(stamps), "nothing was overtaken: the weather is too good"
        for message in heard:
            east, _ = displacement(*ORIGIN, message.lat / 1e7, message.lon / 1e7)
            # What is 0.3 s late is 6 m further on.
            assert float(east) == pytest.approx(SPEED * message.time_usec / 1e6, abs=SPEED)
    assert reported == []


def test_an_autopilot_that_vanishes_and_returns_is_reported_and_served_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PATIENCE", 1.0)
    port = free_port()
    with linked(f"udpout:127.0.0.1:{port}") as (link, reported), driven_by_the_autopilot(link):
        with Peer(port=port) as peer:
            peer.wait_for("GLOBAL_POSITION_SENSOR", 2)
        wait_until(lambda: len(reported) == 1)
        assert "No autopilot heard" in reported[0]
        back = Peer(port=port)
        back.booted = time.monotonic() - 1.0  # it was its power that failed
        with back as peer:
            wait_until(lambda: len(reported) == 2)
            assert "is heard now" in reported[1]
            peer.wait_for("COMMAND_LONG", 4)
            message = peer.wait_for("GLOBAL_POSITION_SENSOR", 3)[-1]
            assert message.time_usec / 1e6 == pytest.approx(peer.boot_time, abs=0.5)


def test_a_silent_autopilot_is_reported_once_and_sent_to_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PATIENCE", 0.5)
    with Peer(reports=False) as peer, linked(peer.address, track=False) as (link, reported):
        link.send(FIX)
        (message, *_) = peer.wait_for("GLOBAL_POSITION_SENSOR")
        wait_until(lambda: len(peer.heard("HEARTBEAT")) > 3)
        assert message.time_usec / 1e6 == pytest.approx(time.time(), abs=5)
        assert len(reported) == 1
        assert peer.address in reported[0]


def test_a_fix_is_sent_once_with_its_age() -> None:
    with Peer() as peer, linked(peer.address, track=False, live=True) as (link, _):
        link.send(Waypoint("fix", "camera:0#1", time.time() - 1.0, -30.0, -15.0, None, 15.1, 30.0))
        link.send(Waypoint("fix", "camera:0#2", time.time() - 9.0, -30.0, -15.0, None, 15.1, 30.0))
        link.send(Waypoint("fix", "camera:0#3", time.time() + 3600.0, -30.0, -15.0, None, 15.1, 30.0))
        heard = peer.wait_for("GLOBAL_POSITION_SENSOR", 2)
        wait_until(lambda: len(peer.heard("HEARTBEAT")) > 2)
        assert len(peer.heard("GLOBAL_POSITION_SENSOR")) == 2
    assert [message.processing_time / 1e6 for message in heard] == pytest.approx([1.0, 0.0], abs=0.3)
    assert heard[0].eph == pytest.approx(10.0, abs=0.01)
    assert link.sent == 2
    assert link.held_back == {"too old": 1}


def test_what_waits_when_the_link_closes_is_sent() -> None:
    with Peer() as peer:
        with linked(peer.address, track=False) as (link, _):
            for _ in range(5):
                link.send(FIX)
        peer.wait_for("GLOBAL_POSITION_SENSOR", 5)


def test_a_reboot_of_the_autopilot_moves_the_time_stamps() -> None:
    with Peer() as peer, linked(peer.address) as (link, _), driven_by_the_autopilot(link):
        peer.wait_for("GLOBAL_POSITION_SENSOR", 5)
        peer.booted = time.monotonic()
        wait_until(lambda: peer.heard("GLOBAL_POSITION_SENSOR")[-1].time_usec < 20e6)
        assert peer.heard("GLOBAL_POSITION_SENSOR")[-1].time_usec / 1e6 == pytest.approx(peer.boot_time, abs=0.5)


def test_a_jump_of_the_autopilots_date_leaves_its_own_time_alone() -> None:
    with Peer() as peer, linked(peer.address, "gps-input") as (link, _), driven_by_the_autopilot(link):
        peer.unix = 0
        wait_until(lambda: bool(peer.heard("GPS_INPUT")) and peer.heard("GPS_INPUT")[-1].time_week == 0)
        peer.unix = 1e12  # no date
        time.sleep(0.5)
        assert peer.heard("GPS_INPUT")[-1].time_week == 0
        peer.unix = 1.8e9
        wait_until(lambda: peer.heard("GPS_INPUT")[-1].time_week > 2400)
        stamps = [message.time_usec for message in peer.heard("GPS_INPUT")]
        assert stamps == sorted(stamps)
        assert stamps[-1] - stamps[0] < 60e6


def test_a_refused_command_is_reported_once() -> None:
    with Peer() as peer, linked(peer.address, "external-position", track=False) as (link, reported):
        link.send(FIX)
        peer.wait_for("COMMAND_INT")
        for _ in range(3):
            peer.say(common.MAVLink_command_ack_message(43003, common.MAV_RESULT_DENIED))
        wait_until(lambda: len(reported) == 1)
        time.sleep(0.2)
        assert len(reported) == 1
        assert "refuses" in reported[0]
        assert "MAV_RESULT_DENIED" in reported[0]
        peer.say(common.MAVLink_command_ack_message(43003, common.MAV_RESULT_ACCEPTED))
        wait_until(lambda: len(reported) == 2)
        assert "takes external positions now" in reported[1]


def test_an_ekf_without_a_position_gets_its_first_one_by_odometry() -> None:
    """ArduPilot sends no LOCAL_POSITION_NED before it has one."""
    with Peer(positioned=False) as peer, linked(peer.address, "odometry") as (link, _):
        wait_until(lambda: link._vehicle.origin is not None)
        rows = (Step(float(number), STANDING, None) for number in range(2))
        for row in link.follow(Odometry("rows", False, False, rows, None), paced=False).steps:
            link.send(answered(row.time))
        message = peer.wait_for("ODOMETRY")[0]
    assert (message.x, message.y, message.z) == pytest.approx((0.0, 0.0, 0.0), abs=0.01)


def test_a_motion_that_the_autopilot_does_not_have_is_reported_and_so_is_its_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "PATIENCE", 1.0)
    with Peer(positioned=False) as peer, linked(peer.address) as (link, reported), driven_by_the_autopilot(link):
        wait_until(lambda: len(reported) == 1)
        assert "LOCAL_POSITION_NED" in reported[0]
        assert "--track -" in reported[0]
        peer.positioned = True
        wait_until(lambda: len(reported) == 2)
        assert "motion is there now" in reported[1]
        peer.wait_for("GLOBAL_POSITION_SENSOR")


def test_another_vehicle_on_the_link_is_not_listened_to() -> None:
    with Peer() as peer, linked(peer.address) as (link, _):
        peer.wait_for("COMMAND_LONG")
        other = common.MAVLink(None, 99, 1)
        for message in (
            common.MAVLink_heartbeat_message(2, 3, 0, 0, 4, 3),
            common.MAVLink_system_time_message(0, 4_000_000_000),
        ):
            peer._put(True, message.pack(other))
        time.sleep(0.3)
        assert link._vehicle.system == SYSTEM
        assert link._vehicle.clock.stamp(time.monotonic(), 0).usec / 1e6 == pytest.approx(peer.boot_time, abs=0.5)


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_survived(data: bytes) -> None:
    link = unopened()
    link._tlog = None
    link._hear(data)


@pytest.mark.parametrize(("rate", "kind"), [(0.0, "odometry"), (101.0, "odometry"), (math.nan, "odometry")])
def test_a_rate_that_no_link_carries_is_refused(rate: float, kind: MavlinkMessage) -> None:
    with pytest.raises(ConfigError, match=r"0\.1 to 100"):
        LinkOptions("udpout:127.0.0.1:9", kind, rate)


@pytest.mark.parametrize("kind", ["gps-input", "odometry"])
def test_a_stream_needs_a_track(kind: MavlinkMessage) -> None:
    with pytest.raises(ConfigError, match="--track"):
        unopened(kind, track=False)


def test_a_track_needs_a_stated_sigma() -> None:
    with pytest.raises(ConfigError, match="--uncalibrated-sigma"):
        unopened(gates=Gates())


def test_without_pymavlink_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymavlink.dialects.v20", None)
    with pytest.raises(MissingDependency, match="mavlink"):
        unopened()


def test_a_recording_is_played_at_its_own_speed() -> None:
    rows = (Step(5.0, STANDING, None), Step(5.3, Motion(0.3, 3.0, 0.0), None))
    link = unopened()
    began = time.monotonic()
    assert list(link.follow(Odometry("drive.csv", False, False, rows, 2), paced=True).steps) == list(rows)
    assert time.monotonic() - began >= 0.3


@contextmanager
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Link, Event]]:
    """An open link whose thread ends with an error, and when it does."""
    monkeypatch.setattr(links, "PATIENCE", 0.1)
    broken = Event()

    def report(_: str) -> None:
        broken.set()
        raise RuntimeError("the thread broke")

    options = LinkOptions(f"udpout:127.0.0.1:{free_port()}", gates=ALLOWED)
    with Link(options, track=True, report=report) as link:
        yield link, broken


def test_an_error_of_the_links_thread_ends_its_odometry(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="the thread broke"), breaking(monkeypatch) as (link, _):
        BackgroundReader(link.odometry().steps, "odometry").next(10)


def test_an_error_of_the_links_thread_is_raised_when_the_link_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="the thread broke"), breaking(monkeypatch) as (_, broken):
        assert broken.wait(10)
    with pytest.raises(ZeroDivisionError), breaking(monkeypatch) as (_, broken):
        assert broken.wait(10)
        _ = 1 / 0
