"""A flight record's own motion: by velocities, positions, or speed and heading; what states none is refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flight_files import (
    HEADING,
    PLACE,
    SPEED,
    TABLES,
    airdata,
    bracketed,
    longitude_first,
    one_line,
    places,
    srt,
)

from geodtr.runtime.errors import DataError
from geodtr.runtime.flights.frames import read_flight
from geodtr.runtime.flights.odometry import odometry_of
from geodtr.runtime.flights.record import Column, Field, Flight, Floats
from geodtr.runtime.geodesy import moved
from geodtr.runtime.tracking.particles import chord

STEPS, SECONDS = 61, 0.5


def refuse(reason: str) -> None:
    raise DataError(reason)


def flown(**columns: Floats | float) -> Flight:
    """A record of STEPS entries that states these of each."""
    return flight_at(SECONDS * np.arange(STEPS, dtype=np.float64), **columns)


def flight_at(times: Floats, **columns: Floats | float) -> Flight:
    fields: dict[Field, Column] = {
        name: Column(np.broadcast_to(np.asarray(values, np.float64), len(times)).copy(), name)  # type: ignore[misc]
        for name, values in columns.items()
    }
    return Flight("a.csv", times, fields, start=0.0)


def gone(flight: Flight, heading: float) -> tuple[float, float]:
    """Metres east and north in all, added up from the steps of a drone that begins at `heading`."""
    east = north = 0.0
    for step in odometry_of(flight).odometry.steps:
        motion = step.motion
        by = chord(heading, motion.turn, motion.distance, motion.right)
        east, north, heading = east + float(by[0]), north + float(by[1]), heading + motion.turn
    return east, north


@pytest.mark.parametrize("table", TABLES)
def test_every_table_gives_the_flown_way(tmp_path: Path, table: Callable[[], str]) -> None:
    """North at 8 m/s while the frames' upper edge points elsewhere."""
    path = tmp_path / "a.csv"
    path.write_text(table(), encoding="utf-8")
    flight = read_flight(path, refuse)
    motion = odometry_of(flight)
    assert gone(flight, HEADING) == pytest.approx((0, SPEED * 2.9), abs=0.3)
    assert motion.odometry.count is not None
    assert "positions" in motion.sources[-1]
    assert all(step.motion.turn == 0 for step in motion.odometry.steps)


def test_a_record_without_a_heading_points_where_it_flies(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text(srt(longitude_first), encoding="utf-8")
    motion = odometry_of(read_flight(path, refuse))
    assert "No heading is recorded" in motion.notes[-1]
    assert sum(step.motion.distance for step in motion.odometry.steps) == pytest.approx(SPEED * 2.9, abs=0.4)
    assert sum(abs(step.motion.right) for step in motion.odometry.steps) < 0.2


def test_velocities_come_first_and_bridge_what_satellites_do_not_know() -> None:
    """East at 6 m/s, 30 s; the receiver is lost after 10 s, and its last positions have drifted."""
    east = 6.0 * SECONDS * np.arange(STEPS)
    lat, lon = moved(*PLACE, east, np.zeros(STEPS))
    lat[20:] = lon[20:] = np.nan
    flight = flown(lat=lat, lon=lon, heading=0.0, velocity_north=0.0, velocity_east=6.0)
    assert gone(flight, 0.0) == pytest.approx((180, 0), abs=1e-6)
    assert odometry_of(flight).sources == ("velocities (100%)",)


def test_positions_bridge_a_gap_between_them() -> None:
    lat, lon = moved(*PLACE, np.zeros(STEPS), 4.0 * SECONDS * np.arange(STEPS))
    lat[20:40] = np.nan
    assert gone(flown(lat=lat, lon=lon, heading=90.0), 90.0) == pytest.approx((0, 120), abs=0.01)


@pytest.mark.parametrize("first", [0.0, 0.7])
def test_positions_that_repeat_until_the_next_update_are_no_standing(first: float) -> None:
    """30 entries and one position a second, 10 m/s: a step of 10 m between two entries would be 50 m/s for 0.2 s."""
    times = np.arange(0, 20, 1 / 30)
    lat, lon = moved(*PLACE, 10.0 * np.floor(times + first), np.zeros(len(times)))
    motion = odometry_of(flight_at(times, lat=lat, lon=lon, heading=0.0))
    speeds = [step.motion.right / step.motion.seconds for step in list(motion.odometry.steps)[1:]]
    assert (min(speeds), max(speeds)) == pytest.approx((10, 10), rel=0.05)
    assert motion.notes == ("Positions change in 3% of the entries; between changes the motion is taken as even.",)


def test_a_drone_that_stands_does_so_until_it_flies_on() -> None:
    times = np.arange(0, 30, 1 / 30)
    east = 10.0 * np.floor(np.clip(times, None, 8) + np.clip(times - 19.5, 0, None))
    lat, lon = moved(*PLACE, east, np.zeros(len(times)))
    steps = list(odometry_of(flight_at(times, lat=lat, lon=lon, heading=0.0)).odometry.steps)[1:]
    speeds = np.array([step.motion.right / step.motion.seconds for step in steps])
    at = np.array([step.time for step in steps])
    assert not speeds[(at > 8.5) & (at < 19)].any()
    assert speeds.max() < 11


def test_speed_and_heading_are_the_last_resort() -> None:
    """A quarter turn clockwise on an arc of 10 m/s."""
    heading = np.linspace(0, 90, STEPS)
    radius = 10 * SECONDS * (STEPS - 1) / (np.pi / 2)
    assert gone(flown(speed=10.0, heading=heading), 0.0) == pytest.approx((radius, radius), rel=1e-3)


def test_velocities_of_other_axes_are_not_believed() -> None:
    lat, lon = moved(*PLACE, 6.0 * SECONDS * np.arange(STEPS), np.zeros(STEPS))
    flight = flown(lat=lat, lon=lon, heading=0.0, velocity_north=6.0, velocity_east=0.0)
    assert gone(flight, 0.0) == pytest.approx((180, 0), abs=0.1)
    motion = odometry_of(flight)
    assert motion.sources == ("positions (100%)",)
    assert motion.notes == ("Its velocities contradict its positions, and are not used.",)


def test_a_heading_is_turned_the_short_way() -> None:
    heading = np.linspace(340, 380, STEPS) % 360
    steps = odometry_of(flown(speed=1.0, heading=heading)).odometry.steps
    assert sum(step.motion.turn for step in steps) == pytest.approx(40)


def test_hovering_without_a_heading_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text(srt(longitude_first, at=[PLACE] * 30), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.srt states no heading, and does not move by 5 m"):
        odometry_of(read_flight(path, refuse))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"height": 50.0}, r"a\.csv states no motion: it has neither velocities nor positions"),
        ({"heading": 50.0, "lat": np.nan, "lon": np.nan}, r"a\.csv states no motion"),
        ({"speed": 5.0}, r"a\.csv states no motion"),
        (
            {"speed": np.where(np.arange(STEPS) // 10 == 3, np.nan, 5.0), "heading": 0.0},
            r"a\.csv states no motion from 14\.5 s on for more than 2 s",
        ),
    ],
)
def test_a_record_without_usable_motion_is_refused_by_name(columns: dict[str, Floats | float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        odometry_of(flown(**columns))


def test_speeds_are_read_with_their_units(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(airdata(), encoding="utf-8")
    assert read_flight(path, refuse).columns["speed"].values[0] == pytest.approx(SPEED, abs=0.01)
    path = tmp_path / "a.srt"
    path.write_text(srt(one_line), encoding="utf-8")
    assert read_flight(path, refuse).columns["speed"].values[0] == 1.84
    path.write_text(srt(bracketed, at=places(30)), encoding="utf-8")
    assert "speed" not in read_flight(path, refuse).columns
