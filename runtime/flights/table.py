"""A drone's flight record as a table: CSV files of Airdata, of DJI's logs as converters write them, and of Litchi.

Header names are known regardless of case, spaces and marks; units stand in them, and a height without one is unknown.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite, nan
from pathlib import Path

import numpy as np

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.reading import open_to_read
from geodtr.runtime.files.text_rows import rows_of
from geodtr.runtime.flights.record import MAX_ENTRIES, Column, Field, Flight, Floats, OnBadEntry, flight_of
from geodtr.runtime.images.recorded import gimbal

SUFFIX = ".csv"
MAX_BYTES = 1 << 30

_METRES: Mapping[str, float] = {"m": 1.0, "meter": 1.0, "meters": 1.0, "metres": 1.0, "ft": 0.3048, "feet": 0.3048}
_SECONDS: Mapping[str, float] = {"s": 1.0, "seconds": 1.0, "ms": 0.001, "millisecond": 0.001, "milliseconds": 0.001}
_METRES_A_SECOND: Mapping[str, float] = {
    "m/s": 1.0,
    "mps": 1.0,
    "mph": 0.44704,
    "km/h": 1 / 3.6,
    "kmh": 1 / 3.6,
    "kph": 1 / 3.6,
    "ft/s": 0.3048,
}
_DEGREES: Mapping[str, float] = {"": 1.0, "deg": 1.0, "degrees": 1.0, "360": 1.0, "raw": 0.1}
"""By unit. Converters write DJI's raw angles in tenths of degrees, and call one that counts to 360 so."""

_TIMES = ("time", "times", "customupdatetime", "osdflytime")
"""The last stands still while the drone does."""
_LATS, _LONS = ("latitude", "lat", "osdlatitude"), ("longitude", "lon", "osdlongitude")
_HEIGHTS = ("heightabovetakeoff", "osdheight", "height")
_LITCHI = "altitude"
"""Above take-off in Litchi's files, which have raw angles; other programs mean heights above the sea by it."""
_PITCHES = ("gimbalpitch",)
_ROLLS = ("gimbalroll",)
_YAWS = ("gimbalheading", "gimbalyaw")
_HEADINGS = ("compassheading", "osdyaw", "yaw", "heading")
"""The aircraft's, which the gimbal follows: for a record without the gimbal's own."""
_SPEEDS: Mapping[Field, tuple[str, ...]] = {
    "speed": ("speed", "osdhspeed"),
    "velocity_north": ("xspeed", "velocityx", "osdxspeed"),
    "velocity_east": ("yspeed", "velocityy", "osdyspeed"),
}
"""DJI's x is north, its y east."""
_VIDEOS = ("isvideo", "customisvideo", "cameraisvideo", "camerainforecordstate")
_ON = {"1", "true", "yes", "recording", "starting"}
_UNKNOWN = {"", "n/a", "na", "nan", "null", "none"}
_CLOCKS = ("%I:%M:%S.%f %p", "%I:%M:%S %p", "%H:%M:%S.%f", "%H:%M:%S")
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y")
_FLOWN = re.compile(r"(?:(\d+)h)?\s*(?:(\d+)m)?\s*(\d+(?:\.\d+)?)s")


@dataclass(frozen=True, slots=True)
class _Name:
    """A column: where it is, its name without marks, and its unit."""

    place: int
    written: str
    name: str
    unit: str


def read_table(path: Path, on_bad: OnBadEntry) -> Flight:
    """Read `path`; rows and values that cannot be right are named to `on_bad`, and left out.

    Raises DataError where the file cannot be read, or is no record of a flight.
    """
    rows = _rows(path)
    _, header = next(rows, (0, []))
    names = _names(header)
    time, lat, lon = (_find(names, known) for known in (_TIMES, _LATS, _LONS))
    if time is None or lat is None or lon is None:
        raise DataError(
            f"{path} has the columns {', '.join(header[:12]) or '(none)'}; needed are a time (time(millisecond), "
            "OSD.flyTime [s], CUSTOM.updateTime, time_s), a latitude and a longitude, as Airdata, DJI's converters and "
            "Litchi write them."
        )
    notes = list[str]()
    columns = _wanted(names, notes)
    date = _find(names, ("customdate",))
    wanted = {each.place: 1.0 for each in (lat, lon)} | {each.place: scale for each, scale in columns.values()}
    times, cells = list[float](), list[list[float]]()
    videos = _find(names, _VIDEOS)
    filming = list[bool]()
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            on_bad(f"{where}: {len(row)} values where the header names {len(header)}: cut off, or damaged.")
            continue
        try:
            now = _time_of(row[time.place], time, None if date is None else row[date.place])
            values = [scale * _number(row[place], header[place]) for place, scale in wanted.items()]
        except ValueError as error:
            on_bad(f"{where}: {error}.")
            continue
        times.append(now)
        cells.append(values)
        filming.append(videos is not None and row[videos.place].lower() in _ON)
        if len(times) > MAX_ENTRIES:
            raise DataError(f"{path} has more than {MAX_ENTRIES:,} rows. Split it.")
    if not times:
        raise DataError(f"{path} has a header and no rows that can be read.")
    since = np.array(times) - (0.0 if time.unit in _SECONDS else times[0])  # a time of day counts from the first row
    runs = _runs(since, filming)
    by_place = dict(zip(wanted, np.array(cells, np.float64).T, strict=True))
    recorded = {field: Column(by_place[each.place], each.written) for field, (each, _) in columns.items()}
    places: dict[Field, Column] = {
        "lat": Column(by_place[lat.place], lat.written),
        "lon": Column(by_place[lon.place], lon.written),
    }
    return flight_of(
        str(path),
        since,
        places | _angles(recorded),
        on_bad,
        videos=runs,
        start=runs[0][0] if len(runs) == 1 else None,
        notes=tuple(notes),
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Of bytes that converters leave in other encodings, only names of places could differ; a line `sep=,` is left
    out.
    """
    try:
        with open_to_read(path, MAX_BYTES) as file:
            text = file.read(MAX_BYTES).decode("utf-8-sig", "replace").replace("\0", "")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Name the flight's .csv.") from None
    for line, row in rows_of(text.splitlines(keepends=True), str(path)):
        if not (line == 1 and row[0].lower().startswith("sep=")):
            yield line, row


def _names(header: Sequence[str]) -> list[_Name]:
    names = list[_Name]()
    for place, written in enumerate(header):
        match = re.fullmatch(
            r"(.*?)\s*(?:[\[(]([^\])]*)[\])]|(raw|_s|_ms|_m|_ft|_deg))?\s*", written.strip(), re.IGNORECASE
        )
        name, unit = (match[1], match[2] or match[3] or "") if match is not None else (written, "")
        names.append(_Name(place, written.strip(), re.sub(r"[^a-z0-9]", "", name.lower()), unit.strip("_ ").lower()))
    return names


def _find(names: Sequence[_Name], known: Sequence[str]) -> _Name | None:
    """The column of the first known name; where two units of it are there, the first."""
    return next((each for name in known for each in names if each.name == name), None)


def _wanted(names: Sequence[_Name], notes: list[str]) -> "dict[Field | str, tuple[_Name, float]]":
    """By what they give, the columns beside time and position, with the factor of their unit."""
    columns = dict[str, tuple[_Name, float]]()
    raw = any(each.name == "gimbalyaw" and each.unit == "raw" for each in names)
    height = _find(names, (*_HEIGHTS, _LITCHI) if raw else _HEIGHTS)
    if height is not None and height.unit in _METRES:
        columns["height"] = height, _METRES[height.unit]
    elif height is not None:
        notes.append(
            f"Its column {height.written!r} does not say whether it is in feet or metres: heights are unknown."
        )
    for what, known in (("pitch", _PITCHES), ("roll", _ROLLS), ("yaw", _YAWS), ("heading", _HEADINGS)):
        angle = _find(names, known)
        if angle is not None and angle.unit in _DEGREES:
            columns[what] = angle, _DEGREES[angle.unit]
    for field, called in _SPEEDS.items():
        speed = _find(names, called)
        if speed is not None and speed.unit in _METRES_A_SECOND:
            columns[field] = speed, _METRES_A_SECOND[speed.unit]
    return columns


def _angles(found: Mapping[str, Column]) -> dict[Field, Column]:
    """Height, speeds, tilt and heading; a heading that is not the gimbal's own is as it stands."""
    as_read: tuple[Field, ...] = ("height", *_SPEEDS)
    columns = {field: found[field] for field in as_read if field in found}
    own = "yaw" if "yaw" in found else "heading"
    unknown = np.full(1, nan)
    pitch, yaw, roll = (found[name].values if name in found else unknown for name in ("pitch", "yaw", "roll"))
    tilt, heading = gimbal(pitch, yaw, roll)
    if "pitch" in found:
        columns["tilt"] = Column(tilt, found["pitch"].origin)
    if own in found:
        columns["heading"] = Column(heading if own == "yaw" else found[own].values % 360, found[own].origin)
    return columns


def _number(text: str, name: str) -> float:
    """NaN where the cell is empty. Raises ValueError for other text."""
    if text.lower() in _UNKNOWN:
        return nan
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise ValueError(f"{name} is {text[:40]!r}, no number")
    return value


def _time_of(text: str, column: _Name, date: str | None) -> float:
    """Seconds, by the unit, or as text: `1m 2.3s`, or a time of day with its date. Raises ValueError."""
    if column.unit in _SECONDS:
        return _SECONDS[column.unit] * _number(text or "none given", column.written)
    if (flown := _FLOWN.fullmatch(text.strip().lower())) is not None:
        hours, minutes, seconds = flown.groups()
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)
    day, _, clock = text.strip().rpartition(" ")
    if clock.upper() in ("AM", "PM"):
        day, _, clock = text.strip().rpartition(" ")[0].rpartition(" ")
        clock = f"{clock} {text.strip()[-2:]}"
    return _days(day or date or "") * 86400 + _seconds_of_day(clock, text)


def _days(text: str) -> int:
    """Of a date, from any zero; 0 for none."""
    for form in _DATES:
        try:
            return datetime.strptime(text.strip(), form).toordinal()
        except ValueError:
            continue
    return 0


def _seconds_of_day(clock: str, text: str) -> float:
    for form in _CLOCKS:
        try:
            moment = datetime.strptime(clock, form)
        except ValueError:
            continue
        return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
    raise ValueError(f"the time is {text[:40]!r}, which is no number with a unit, and no time of day")


def _runs(times: Floats, filming: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """The first and last time of each run of rows in which a video was recorded."""
    on = np.concatenate([[False], filming, [False]])
    begins, ends = (np.flatnonzero(np.diff(on.astype(np.int8)) == step) for step in (1, -1))
    return tuple((float(times[begin]), float(times[end - 1])) for begin, end in zip(begins, ends, strict=True))
