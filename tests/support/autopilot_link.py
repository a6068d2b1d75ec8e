"""Links to an autopilot at the other end of a loopback link, for the tests of links, records and settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from mavlink_peer import ORIGIN, SPEED

from geodtr.runtime.autopilot.link import Link
from geodtr.runtime.autopilot.options import Gates, LinkOptions
from geodtr.runtime.localization.waypoint import TrackState, Waypoint
from geodtr.runtime.names import MavlinkMessage

ALLOWED = Gates(uncalibrated_sigma=8.0)


FIX = Waypoint("fix", "a.png", None, -30.0, -15.0, None, 15.1, 30.0)


@contextmanager
def linked(
    address: str,
    kind: MavlinkMessage = "global-position-sensor",
    *,
    track: bool = True,
    tlog: Path | None = None,
    gates: Gates = ALLOWED,
    rate: float | None = 20.0,
    live: bool = False,
) -> Iterator[tuple[Link, list[str]]]:
    """An open link, and what it reports."""
    reported = list[str]()
    options = LinkOptions(address, kind, rate, gates, tlog)
    with Link(options, track=track, live=live, report=reported.append) as link:
        yield link, reported


def unopened(
    kind: MavlinkMessage = "global-position-sensor",
    *,
    track: bool = True,
    gates: Gates = ALLOWED,
    tlog: Path | None = None,
) -> Link:
    return Link(LinkOptions("udpout:127.0.0.1:9", kind, None, gates, tlog), track=track, report=list[str]().append)


def answered(time_s: float, state: TrackState = "tracking", east: float = 0.0) -> Waypoint:
    degrees = east / 96_486.0  # metres of a degree of longitude at 30 degrees
    return Waypoint(state, None, time_s, ORIGIN[0], ORIGIN[1] + degrees, 90.0, 12.0, 20.0)


@contextmanager
def driven_by_the_autopilot(link: Link) -> Iterator[None]:
    """A tracker that is right: each row of the autopilot's odometry is answered with where it is."""
    stopped = Event()

    def track() -> None:
        for row in link.odometry().steps:
            if stopped.is_set():
                return
            link.send(answered(row.time, east=SPEED * row.time))

    thread = Thread(target=track, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
