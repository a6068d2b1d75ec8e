"""A drone's flight record as the text of its video: the .SRT that DJI's drones write beside each .MP4.

Reads the dialects in use since 2015: fields in brackets (`[latitude: 47.4] [rel_alt: 30.1 abs_alt: 470.2]`), and
`GPS(...)` with `BAROMETER:`, `Hb:` or `H ...m`, in either order of latitude and longitude. Of other subtitles, which
have none of these, nothing is read.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from math import nan
from pathlib import Path

import numpy as np

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.reading import open_to_read
from geodtr.runtime.flights.record import MAX_ENTRIES, Column, Field, Flight, Floats, OnBadEntry, flight_of
from geodtr.runtime.images.recorded import gimbal, width_seen

SUFFIX = ".srt"
MAX_BYTES = 1 << 28

_NUMBER = r"([-+]?\d{1,9}(?:\.\d{0,12})?)"
_TIME_CODE = re.compile(r"^[^\S\n]*(\d{1,3}):(\d\d):(\d\d)[,.](\d{1,3})[^\S\n]*-->", re.MULTILINE)
_DATE = re.compile(r"^[^\S\n]*(\d{4})[.-](\d{1,2})[.-](\d{1,2}) (\d\d):(\d\d):(\d\d)(?:[.,](\d{1,3}))?", re.MULTILINE)
_NAMED = re.compile(rf"\b(latitude|longt?itude|altitude|rel_alt|gb_yaw|gb_pitch|gb_roll|focal_len)\s*:\s*{_NUMBER}")
_GPS = re.compile(rf"\bGPS\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*(?:,\s*([-+.\d]+\s*[Mm]?)\s*)?\)")
_HEIGHT = re.compile(rf"\b(BAROMETER:|Hb:|H )\s*{_NUMBER}")
_SPEED = re.compile(rf"\bH\.S:?\s*{_NUMBER}\s*m/s")
_GIMBAL = re.compile(rf"\bG\.PRY\s*\(\s*{_NUMBER}[^,)]*,\s*{_NUMBER}[^,)]*,\s*{_NUMBER}")
_OPENED = (("[", "]"), ("(", ")"))
_SENSOR = (4, 3)
"""Sides of the sensors in use, whose full width a video shows."""

_Entry = Mapping[str, float | str]


def read_srt(path: Path, on_bad: OnBadEntry) -> Flight:
    """Read `path`; what cannot be right is named to `on_bad`, and left out.

    Raises DataError where the file cannot be read, or is no record of a flight.
    """
    text = _text(path)
    marks = list(_TIME_CODE.finditer(text)) or list(_DATE.finditer(text))  # a dialect has dates alone
    if not marks:
        raise DataError(
            f"{path} has no time codes such as 00:00:01,000 --> 00:00:02,000: it is empty, or no .SRT of a drone. Give "
            "the file that the drone wrote beside the video."
        )
    if len(marks) > MAX_ENTRIES:
        raise DataError(f"{path} has more than {MAX_ENTRIES:,} entries. Split it.")
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    bodies = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    entries = [_entry(body) for body in bodies]
    clock = np.array([_clock(_DATE.search(text, mark.start(), end)) for mark, end in zip(marks, ends, strict=True)])
    known = clock[np.isfinite(clock)]
    times = (
        clock - (known[0] if len(known) else 0.0)
        if marks[0].re is _DATE
        else np.array([_seconds(mark) for mark in marks])
    )
    if _is_cut(bodies, entries):
        on_bad(f"{path} breaks off in its last entry, at {times[-1]:g} s: truncated.")
        times, clock, entries = times[:-1], clock[:-1], entries[:-1]
    latitude_first, notes = _order(entries, path)
    columns = _columns(entries, latitude_first)
    if any("altitude" in entry for entry in entries) and not any("rel_alt" in entry for entry in entries):
        notes = (*notes, "Its altitude is above an unknown level, so heights above the ground are unknown.")
    return flight_of(str(path), times, columns, on_bad, clock=clock, start=0.0, notes=notes)


def _text(path: Path) -> str:
    try:
        with open_to_read(path, MAX_BYTES) as file:
            content = file.read(MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Name the .SRT beside the video.") from None
    # What is read of it is ASCII; a degree sign may be of any encoding.
    return content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _seconds(mark: re.Match[str]) -> float:
    hours, minutes, seconds, thousandths = mark.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths.ljust(3, "0")) / 1000


def _clock(mark: re.Match[str] | None) -> float:
    """Seconds by an entry's date, of an unknown zone; NaN where it has none."""
    if mark is None:
        return nan
    year, month, day, hour, minute, second = (int(part) for part in mark.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError:  # there is no such date
        return nan
    return moment.timestamp() + int((mark[7] or "0").ljust(3, "0")) / 1000


def _entry(body: str) -> _Entry:
    """The values of one entry by their names; `first`, `second`, `third` are from GPS(...)."""
    named = {name.replace("longt", "long"): text for name, text in _NAMED.findall(body)}
    values: dict[str, float | str] = {name: float(text) for name, text in named.items()}
    if "." not in named.get("focal_len", "."):
        values["focal_len"] = float(named["focal_len"]) / 10  # older drones write tenths
    if (gps := _GPS.search(body)) is not None:
        values |= {"first": float(gps[1]), "second": float(gps[2]), "third": gps[3] or ""}
    if (height := _HEIGHT.search(body)) is not None:
        values |= {"rel_alt": float(height[2]), "height_by": height[1].strip(" :")}
    if (speed := _SPEED.search(body)) is not None:
        values["speed"] = float(speed[1])
    if (gimbal := _GIMBAL.search(body)) is not None:
        values |= {"gb_pitch": float(gimbal[1]), "gb_roll": float(gimbal[2]), "gb_yaw": float(gimbal[3]), "by": "G.PRY"}
    return values


def _is_cut(bodies: list[str], entries: list[_Entry]) -> bool:
    """Whether the last entry lacks what the one before it has, or ends within a bracket."""
    if len(entries) < 2:
        return False
    open_now, open_before = (
        any(body.count(opening) > body.count(closing) for opening, closing in _OPENED) for body in bodies[:-3:-1]
    )
    return set(entries[-1]) < set(entries[-2]) or (open_now and not open_before)


def _order(entries: list[_Entry], path: Path) -> tuple[bool, tuple[str, ...]]:
    """Whether latitude comes first in GPS(...). Raises DataError where entries contradict each other.

    A value beyond 90 is a longitude. Otherwise the third decides: drones that write longitude first count satellites
    there, a whole number, and those that write latitude first give an altitude, with a point or a unit.
    """
    places = [(entry["first"], entry["second"], str(entry["third"])) for entry in entries if "first" in entry]
    if not places:
        return True, ()
    first, second = (max(abs(float(place[axis])) for place in places) for axis in (0, 1))
    if first > 90 and second > 90:
        raise DataError(f"{path} has GPS values beyond 90 in both places: no latitude. Remove the wrong entries.")
    if first > 90 or second > 90:
        latitude_first = second > 90
        why = "the other is beyond 90"
    else:
        counts = sum(third.isdigit() for _, _, third in places)
        latitude_first = counts < len(places) / 2
        why = "the third is an altitude" if latitude_first else "the third counts satellites"
    order = "latitude, longitude" if latitude_first else "longitude, latitude"
    return latitude_first, (f"GPS(...) is taken as {order}: {why}.",)


def _columns(entries: list[_Entry], latitude_first: bool) -> dict[Field, Column]:
    def values(name: str) -> Floats:
        return np.array([entry.get(name, np.nan) for entry in entries], np.float64)

    def origin(bracketed: str, other: str) -> str:
        return f"SRT {bracketed if any(bracketed in entry for entry in entries) else other}"

    north, east = ("first", "second") if latitude_first else ("second", "first")
    lat, lon = values("latitude"), values("longitude")
    lat, lon = (np.where(np.isnan(own), values(other), own) for own, other in ((lat, north), (lon, east)))
    by = next((str(entry["height_by"]) for entry in entries if "height_by" in entry), "rel_alt")
    tilt, heading = gimbal(values("gb_pitch"), values("gb_yaw"), values("gb_roll"))
    angles = next((str(entry["by"]) for entry in entries if "by" in entry), None)
    focal = values("focal_len")
    view = np.array([width_seen(each, _SENSOR) if each > 0 else np.nan for each in focal], np.float64)
    return {
        "lat": Column(lat, origin("latitude", "GPS")),
        "lon": Column(lon, origin("longitude", "GPS")),
        "height": Column(values("rel_alt"), f"SRT {by}"),
        "tilt": Column(tilt, f"SRT {angles or 'gb_pitch'}"),
        "heading": Column(heading, f"SRT {angles or 'gb_yaw'}"),
        "field_of_view": Column(view, "SRT focal_len"),
        "speed": Column(values("speed"), "SRT H.S"),
    }
