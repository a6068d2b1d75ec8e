"""Odometry out of a flight record: how the drone moved from entry to entry.

By its velocities; where they are unknown, by the difference of its positions; where these are unknown too, by its speed
and heading. Knows records; knows nothing of the files they were read from.
"""

from dataclasses import dataclass

import numpy as np

from geodtr.runtime.errors import DataError
from geodtr.runtime.flights.record import Flight, Floats
from geodtr.runtime.geodesy import displacement, wrapped
from geodtr.runtime.tracking.odometry import STANDING, Motion, Odometry, Step

_APART = 0.2
"""Least seconds between two steps; records have up to 60 entries a second."""
_LONGEST = 2.0
"""Seconds for which an unknown motion is taken to go on."""
_UPDATE = 1.0
"""Seconds between two positions of a slow receiver; a record with more entries repeats each."""
_CHANGING = 0.5
"""Share of entries with a new position; a record with a smaller one gets a note."""
_COURSE = 5.0
"""Metres over which positions give a direction: a receiver's noise gives none over less."""
_AGREE, _WINDOW = 0.5, 5.0
"""Velocities are not used where, over so many seconds, they differ from positions by more than such a share."""


@dataclass(frozen=True, slots=True)
class RecordedMotion:
    """The motion that a record states; in words its `sources` with their shares, and `notes` on what was not taken as
    the record has it.
    """

    odometry: Odometry
    sources: tuple[str, ...]
    notes: tuple[str, ...]


def odometry_of(flight: Flight) -> RecordedMotion:
    """The motion that a record states.

    Times are the record's. Forward is where the upper edge of a nadir frame points; without any heading in the record,
    where the drone flies. Entries before the first and after the last known motion are left out. Raises DataError where
    no motion is known, or none for longer than two seconds in between.
    """
    times = flight.times
    speed, velocity_north, velocity_east, heading = (
        _values(flight, field) for field in ("speed", "velocity_north", "velocity_east", "heading")
    )
    seconds = np.diff(times)
    sources, notes = list[str](), list[str]()
    by_velocity = np.stack([_mean(velocity_east), _mean(velocity_north)]) * seconds
    by_position, changing = _by_position(flight)
    if _contradict(by_velocity, by_position, seconds):
        notes.append("Its velocities contradict its positions, and are not used.")
        by_velocity[:] = np.nan
    forward = np.radians(heading[:-1] + wrapped(np.diff(heading)) / 2)
    by_speed = _mean(speed) * seconds * np.stack([np.sin(forward), np.cos(forward)])
    steps = np.full((2, len(seconds)), np.nan)
    for name, source in (("velocities", by_velocity), ("positions", by_position), ("speed and heading", by_speed)):
        taken = np.isnan(steps).any(axis=0) & np.isfinite(source).all(axis=0)
        steps[:, taken] = source[:, taken]
        if taken.any():
            sources.append(f"{name} ({taken.mean():.0%})")
        if taken.any() and source is by_position and changing < _CHANGING:
            notes.append(
                f"Positions change in {changing:.0%} of the entries; between changes the motion is taken as even."
            )
    known = np.flatnonzero(np.isfinite(steps).all(axis=0))
    if not len(known):
        raise DataError(
            f"{flight.name} states no motion: it has neither velocities nor positions, nor a speed with a heading. "
            "Give odometry of its own: --track ODOMETRY.csv"
        )
    part = slice(int(known[0]), int(known[-1]) + 1)
    times, heading = times[part.start : part.stop + 1], heading[part.start : part.stop + 1]
    steps = _filled(steps[:, part], times, flight.name)
    if np.isnan(heading).all():
        heading = _courses(steps, flight.name)
        notes.append("No heading is recorded, so its course is taken for the direction of a frame's upper edge.")
    else:
        rows = np.flatnonzero(np.isfinite(heading))
        heading = np.interp(times, times[rows], np.unwrap(heading[rows], period=360))
    moved = _steps(times, steps, heading)
    odometry = Odometry(flight.name, unix=False, images=False, steps=moved, count=len(moved))
    return RecordedMotion(odometry, tuple(sources), tuple(notes))


def _values(flight: Flight, field: str) -> Floats:
    column = {str(name): column for name, column in flight.columns.items()}.get(field)
    return np.full(len(flight.times), np.nan) if column is None else column.values


def _mean(values: Floats) -> Floats:
    return (values[1:] + values[:-1]) / 2


def _by_position(flight: Flight) -> tuple[Floats, float]:
    """Metres east and north of each interval, [2, N - 1], and the share of the positions that differ from the one
    before. Between two that differ the motion is even, unless they are far apart: then the drone stood.
    """
    lat, lon = _values(flight, "lat"), _values(flight, "lon")
    steps = np.full((2, len(lat) - 1), np.nan)
    rows = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
    if len(rows) < 2:
        return steps, 1.0
    times, lat, lon = flight.times[rows], lat[rows], lon[rows]
    changes = 1 + np.flatnonzero((np.diff(lat) != 0) | (np.diff(lon) != 0))
    kept = np.unique([0, *changes, len(rows) - 1])
    again = times[kept[1:]][np.diff(times[kept]) > _LONGEST] - _UPDATE
    kept = np.union1d(kept, np.searchsorted(times, again, side="right") - 1)
    metres = np.stack(displacement(lat[kept[:-1]], lon[kept[:-1]], lat[kept[1:]], lon[kept[1:]]))
    seconds, entries = np.diff(times[kept]), np.diff(kept)
    rate = metres / seconds
    for end, beside in ((0, 1), (-1, -2)):
        # The record begins, and ends, between two updates: its first change is of a whole interval, its last of none.
        if len(seconds) > 1 and seconds[end] < seconds[beside] and entries[beside] > 1:
            rate[:, end] = rate[:, beside]
    between = np.repeat(rate, np.diff(rows[kept]), axis=1)
    steps[:, rows[0] : rows[-1]] = between * np.diff(flight.times[rows[0] : rows[-1] + 1])
    return steps, len(changes) / (len(rows) - 1)


def _contradict(by_velocity: Floats, by_position: Floats, seconds: Floats) -> bool:
    """Whether velocities and positions disagree: programs differ in axes and units."""
    both = np.isfinite(by_velocity).all(axis=0) & np.isfinite(by_position).all(axis=0)
    if not both.any():
        return False
    window = (np.cumsum(seconds[both]) // _WINDOW).astype(np.intp)
    gone, off = (
        np.hypot(*(np.bincount(window, part) for part in each[:, both]))
        for each in (by_position, by_velocity - by_position)
    )
    return bool(off.sum() > _AGREE * max(float(gone.sum()), _COURSE))


def _filled(steps: Floats, times: Floats, name: str) -> Floats:
    """A short unknown motion goes on as the one before. Raises DataError for a long one."""
    rows = np.arange(steps.shape[1])
    last = np.maximum.accumulate(np.where(np.isfinite(steps).all(axis=0), rows, 0))
    unknown = times[1:] - times[last + 1]
    if (unknown > _LONGEST).any():
        end = int((unknown > _LONGEST).argmax())
        raise DataError(
            f"{name} states no motion from {times[last[end] + 1]:g} s on for more than {_LONGEST:g} s. Cut the record "
            "and the video there, or give odometry of its own: --track ODOMETRY.csv"
        )
    seconds = np.diff(times)
    return np.asarray(steps[:, last] * (seconds / seconds[last]), np.float64)


def _courses(steps: Floats, name: str) -> Floats:
    """Of each entry the direction in which it moves, degrees, not wrapped. Raises DataError where it hardly moves."""
    path = np.concatenate([np.zeros((2, 1)), np.cumsum(steps, axis=1)], axis=1)
    corners = [0]
    for row, (east, north) in enumerate(path.T.tolist()):
        if np.hypot(east - path[0, corners[-1]], north - path[1, corners[-1]]) >= _COURSE:
            corners.append(row)
    if len(corners) < 2:
        raise DataError(
            f"{name} states no heading, and does not move by {_COURSE:g} m, which would give its course. Give odometry "
            "of its own: --track ODOMETRY.csv"
        )
    along = np.diff(path[:, corners])
    middle = (np.array(corners[1:]) + np.array(corners[:-1])) / 2
    course = np.unwrap(np.degrees(np.arctan2(along[0], along[1])), period=360)
    return np.asarray(np.interp(np.arange(path.shape[1]), middle, course), np.float64)


def _steps(times: Floats, steps: Floats, heading: Floats) -> tuple[Step, ...]:
    kept = [0]
    for row, time in enumerate(times.tolist()):
        if time - times[kept[-1]] >= _APART or (row == len(times) - 1 and row > kept[-1]):
            kept.append(row)
    rows = np.array(kept)
    path = np.concatenate([np.zeros((2, 1)), np.cumsum(steps, axis=1)], axis=1)[:, rows]
    gone, turn = np.diff(path), np.diff(heading[rows])
    course = np.radians(heading[rows[:-1]] + turn / 2)
    sine, cosine = np.sin(course), np.cos(course)
    motions = np.stack(
        [np.diff(times[rows]), gone[0] * sine + gone[1] * cosine, turn, gone[0] * cosine - gone[1] * sine], axis=1
    )
    moved = (Motion(*motion) for motion in motions.tolist())
    return tuple(
        Step(time, motion, None) for time, motion in zip(times[rows].tolist(), (STANDING, *moved), strict=True)
    )
