"""A flight record: what a drone wrote of itself at rising times, and what of it belongs to the frames of a video.

Knows times and values; knows nothing of the files they were read from, or of images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import DataError
from geodtr.runtime.geodesy import distance, wrapped
from geodtr.runtime.images.recorded import Recorded, Stated, ground_seen

Floats = NDArray[np.float64]
OfFrames = Literal["lat", "lon", "heading", "tilt", "height", "field_of_view"]
Field = OfFrames | Literal["speed", "velocity_north", "velocity_east"]
OF_FRAMES: tuple[OfFrames, ...] = get_args(OfFrames)
OnBadEntry = Callable[[str], None]
"""Called with what is left out of a record and why; raises where nothing may be."""

MAX_ENTRIES = 1_000_000
"""Four hours at 60 entries a second."""

_GAP = 2.0
"""Seconds between two entries over which values are interpolated, and for which the first and the last one hold."""
_LEAP = 3.0
"""Seconds by which two clocks of a record may run apart between two entries: some count whole seconds."""
_FASTEST, _COARSE = 100.0, 50.0
"""Metres a second that no drone flies, and metres by which two positions may differ at any time: old records round to
11 m."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values of a record's entries, float64 [N], NaN where unknown, and where they were read."""

    values: Floats
    origin: str


@dataclass(frozen=True, slots=True)
class Flight:
    """A record of N entries.

    Attributes
    ----------
    name
        The file.
    times
        Seconds, float64 [N], rising: of the video where `start` is 0.
    columns
        By field, what is recorded of each entry: degrees, metres above the place of take-off, and metres a second over
        ground.
    videos
        The times between which videos were recorded, where the record states them.
    start
        The time at which the video begins, None where the record does not say.
    notes
        How the file was understood.
    """

    name: str
    times: Floats
    columns: Mapping[Field, Column]
    videos: tuple[tuple[float, float], ...] = ()
    start: float | None = None
    notes: tuple[str, ...] = ()

    def at(self, time: float, name: str) -> Recorded:
        """What is recorded at a time, interpolated; `name` is what the result is called."""
        after = int(np.searchsorted(self.times, time, side="right"))
        before = max(0, after - 1)
        after = min(after, len(self.times) - 1)
        apart = self.times[after] - self.times[before]
        share = float(np.clip((time - self.times[before]) / apart, 0, 1)) if apart > 0 else 0.0
        if apart > _GAP or not self.times[0] - _GAP <= time <= self.times[-1] + _GAP:
            return Recorded(name)
        lat, lon, heading, tilt, height, view = (self._stated(field, before, after, share) for field in OF_FRAMES)
        if lat is None or lon is None:
            lat = lon = None
        return Recorded(name, lat, lon, heading, tilt, height, view, ground_seen(height, view, tilt))

    def _stated(self, field: Field, before: int, after: int, share: float) -> Stated | None:
        column = self.columns.get(field)
        if column is None:
            return None
        first, last = float(column.values[before]), float(column.values[after])
        if np.isnan(first) or np.isnan(last):
            value = last if share > 0.5 else first
        elif field in ("heading", "lon"):  # the short way round
            value = first + share * wrapped(last - first)
            value = value % 360 if field == "heading" else wrapped(value)
        else:
            value = first + share * (last - first)
        return None if np.isnan(value) else Stated(value, column.origin)


def flight_of(
    name: str,
    times: Floats,
    columns: Mapping[Field, Column],
    on_bad: OnBadEntry,
    *,
    clock: Floats | None = None,
    videos: tuple[tuple[float, float], ...] = (),
    start: float | None = None,
    notes: tuple[str, ...] = (),
) -> Flight:
    """A record of entries as they were read, without those that cannot be right.

    Entries without a time, or whose time falls back, and positions off the globe or too far from the others to be
    flown to, are named to `on_bad`, and left out; positions of 0, 0 are unknown, as cameras write that know none.
    `clock` is a second clock, in seconds of any zero, float64 [N]: where it leaps against `times`, recordings were
    joined. Raises DataError where nothing is left.
    """
    unknown = np.isnan(times)
    if unknown.any():
        on_bad(f"{name}: {np.count_nonzero(unknown)} entries have no time that can be read.")
        columns = {field: Column(column.values[~unknown], column.origin) for field, column in columns.items()}
        clock = None if clock is None else clock[~unknown]
        times = times[~unknown]
    rising = times > np.maximum.accumulate(np.concatenate([[-np.inf], times[:-1]]))
    back = times < np.maximum.accumulate(times)
    if back.any():
        first = int(back.argmax())
        on_bad(
            f"{name}: {np.count_nonzero(back)} entries are earlier than one before them, the first at {times[first]:g} "
            f"after {times[first - 1]:g} s: two clocks, or two records joined."
        )
    kept = {field: Column(column.values[rising], column.origin) for field, column in columns.items()}
    clock = (times if clock is None else np.where(np.isnan(clock), times, clock))[rising]
    times, noted = times[rising], list(notes)
    leaps = np.abs(np.diff(clock) - np.diff(times)) > _LEAP
    if leaps.any():
        row = int(leaps.argmax()) + 1
        noted.append(
            f"Its dates leap against its time codes at {np.count_nonzero(leaps)} entries, first by "
            f"{clock[row] - clock[row - 1]:.1f} s at {times[row]:g} s: recordings were joined, or a clock was set."
        )
    if "lat" in kept and "lon" in kept:
        lat, lon = kept["lat"].values.copy(), kept["lon"].values.copy()
        nowhere = (lat == 0) & (lon == 0)
        if nowhere.any():
            noted.append(f"{np.count_nonzero(nowhere)} of {len(lat)} entries have the position 0, 0: unknown.")
        off = (np.abs(lat) > 90) | (np.abs(lon) > 180)
        if off.any():
            row = int(off.argmax())
            on_bad(
                f"{name}: {np.count_nonzero(off)} positions are not on Earth, the first {lat[row]:g}, {lon[row]:g} at "
                f"{times[row]:g} s."
            )
        lat[nowhere | off] = lon[nowhere | off] = np.nan
        for begin, end in _far(times, clock, lat, lon):
            on_bad(
                f"{name}: the positions from {times[begin]:g} to {times[end]:g} s ({end - begin + 1} entries, first "
                f"{lat[begin]:.6f}, {lon[begin]:.6f}) are farther from the others than a drone flies."
            )
            lat[begin : end + 1] = lon[begin : end + 1] = np.nan
        kept["lat"], kept["lon"] = Column(lat, kept["lat"].origin), Column(lon, kept["lon"].origin)
    kept = {field: column for field, column in kept.items() if np.isfinite(column.values).any()}
    if not kept:
        raise DataError(
            f"{name} has {len(times)} entries, and none knows a position, a height or an angle. It is of no use here."
        )
    return Flight(name, times, kept, videos, start, tuple(noted))


def _far(times: Floats, clock: Floats, lat: Floats, lon: Floats) -> list[tuple[int, int]]:
    """The first and last entry of each run of positions that cannot be flown to from the longest run, by either
    clock.
    """
    rows = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
    if len(rows) < 2:
        return []

    def reach(before: NDArray[np.intp] | int, after: NDArray[np.intp] | int) -> Floats:
        seconds = np.maximum(np.abs(times[after] - times[before]), np.abs(clock[after] - clock[before]))
        return np.asarray(_COARSE + _FASTEST * seconds, np.float64)

    def reachable(before: int, after: int) -> bool:
        return bool(distance(lat[before], lon[before], lat[after], lon[after]) <= reach(before, after))

    steps = distance(lat[rows[:-1]], lon[rows[:-1]], lat[rows[1:]], lon[rows[1:]])
    together = np.split(rows, np.flatnonzero(steps > reach(rows[:-1], rows[1:])) + 1)
    runs = [(int(run[0]), int(run[-1])) for run in together]
    longest = int(np.argmax([len(run) for run in together]))
    far = list[tuple[int, int]]()
    begin, end = runs[longest]
    for run in runs[longest + 1 :]:
        if reachable(end, run[0]):
            end = run[1]
        else:
            far.append(run)
    for run in reversed(runs[:longest]):
        if reachable(run[1], begin):
            begin = run[0]
        else:
            far.append(run)
    return sorted(far)
