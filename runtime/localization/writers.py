"""Answers as files that other programs read: JSON lines, GeoJSON, GPX and CSV, chosen by the file's name.

Knows one flat record for each frame; knows nothing of how it was found.
"""

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import datetime, timezone
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from geodtr.runtime.errors import ConfigError, UserError
from geodtr.runtime.files import check_new_file, make_folder, write_bytes
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.files.foreign_text import escape_controls
from geodtr.runtime.files.text_rows import RowWriter
from geodtr.runtime.localization.result import Candidate, Waypoint

SUFFIXES = (".jsonl", ".geojson", ".gpx", ".csv")
_OF_A_CANDIDATE = ("tile", "score", "lat", "lon")
"""Columns of a CSV, each with the candidate's rank behind its name: tile_1, score_1."""
_GPX = "http://www.topografix.com/GPX/1/1"
_SCHEMA = "http://www.topografix.com/GPX/1/1/gpx.xsd"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"


def check_out(path: Path) -> None:
    """Raise ConfigError when `path`'s ending names no format, OutputExists when it is taken."""
    check_new_file(path, SUFFIXES)


@contextmanager
def waypoint_file(
    path: Path, *, track: bool, unix: bool = False, live: bool = False
) -> Iterator[Callable[[Waypoint], object]]:
    """A new file, and the function that takes each answer for it. A .jsonl grows by one flushed line each, so that
    other programs can read it meanwhile, and it stays after an error; the other formats are written at the end, whole
    or not at all.

    A `track` is a line, with a break wherever the filter was not tracking; otherwise waypoints are separate. GPX has
    times if they are `unix` times. For a `live` source an interruption counts as the end: the file is written with the
    waypoints so far. Raises ConfigError, OutputExists as `check_out` does, UserError when the disk refuses.
    """
    check_out(path)
    if path.suffix.lower() == ".jsonl":
        with _grown(path) as write:
            yield write
        return
    bytes_of = {".geojson": _geojson_bytes, ".gpx": gpx, ".csv": _csv_bytes}[path.suffix.lower()]
    with collected(lambda waypoints: write_bytes(path, bytes_of(waypoints, track=track, unix=unix)), live=live) as take:
        yield take


@contextmanager
def collected(
    write: Callable[[list[Waypoint]], object], *, live: bool = False
) -> Iterator[Callable[[Waypoint], object]]:
    """A function that collects each answer and passes all to `write` at the end; if `live`, also after an error.

    After an error, a ConfigError of `write`, which means that it cannot use the answers, does not replace the error.
    """
    waypoints = list[Waypoint]()
    try:
        yield waypoints.append
    except BaseException:
        if live and waypoints:
            with suppress(ConfigError):
                write(waypoints)
        raise
    write(waypoints)


@contextmanager
def _grown(path: Path) -> Iterator[Callable[[Waypoint], object]]:
    make_folder(path.parent)
    try:
        with path.open("xb", buffering=0) as stream:
            yield lambda waypoint: stream.write(encode_json(record(waypoint)) + b"\n")
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise
        raise UserError(f"{path} cannot be written ({error.strerror}). What was written before stays.") from None


def runs(waypoints: Iterable[Waypoint]) -> list[list[Waypoint]]:
    """Successive waypoints that are reliable, in runs: what a map joins by a line."""
    return [list(run) for reliable, run in groupby(waypoints, lambda waypoint: waypoint.reliable) if reliable]


def record(waypoint: Waypoint) -> dict[str, Any]:
    """A waypoint as values that JSON has, its candidates as a flat list."""
    values = {field.name: getattr(waypoint, field.name) for field in fields(waypoint)}
    return values | {"candidates": [_flat(candidate) for candidate in waypoint.candidates]}


def _flat(candidate: Candidate) -> dict[str, Any]:
    place = candidate.place
    return {
        "tile": place.id,
        "file": place.file,
        "score": candidate.score,
        "lat": place.lat,
        "lon": place.lon,
        "heading": candidate.heading,
    }


def geojson(waypoints: Sequence[Waypoint], *, track: bool) -> dict[str, Any]:
    """A FeatureCollection (RFC 7946): a Point for each waypoint with a position, and of a track one line of them all,
    broken where it was lost.
    """
    features = list[dict[str, Any]]()
    for waypoint in waypoints:
        properties = {name: value for name, value in record(waypoint).items() if name not in ("lat", "lon")}
        place = None if waypoint.lat is None else {"type": "Point", "coordinates": _at(waypoint)}
        features.append({"type": "Feature", "geometry": place, "properties": properties})
    if track:
        # A line has two positions at least.
        whole = [[_at(waypoint) for waypoint in run] for run in runs(waypoints) if len(run) > 1]
        lines = [part for line in whole for part in cut_at_180(line)]
        line = {"type": "MultiLineString", "coordinates": lines}
        features.append({"type": "Feature", "geometry": line, "properties": {"name": "track"}})
    return {"type": "FeatureCollection", "features": features}


def cut_at_180(line: Sequence[Sequence[float]]) -> list[list[Sequence[float]]]:
    """A line of [lon, lat] in parts that do not cross the 180th meridian, each step taken the short way round.

    Source: RFC 7946, 3.1.9.
    """
    parts: list[list[Sequence[float]]] = [[line[0]]]
    for (lon, lat), end in pairwise(line):
        if abs(end[0] - lon) > 180:
            edge = 180.0 if lon > 0 else -180.0
            beyond = end[0] + 2 * edge - lon
            share = (edge - lon) / beyond if beyond else 0.5
            crossing = lat + share * (end[1] - lat)
            parts[-1].append([edge, crossing])
            parts.append([[-edge, crossing]])
        parts[-1].append(end)
    return parts


def gpx(waypoints: Sequence[Waypoint], *, track: bool, unix: bool = False) -> bytes:
    """GPX 1.1: waypoints, or a track whose segments end where the filter was not tracking. What is not reliable is left
    out: GPX has no word for it.
    """
    ET.register_namespace("", _GPX)
    ET.register_namespace("xsi", _XSI)
    root = ET.Element(_tag("gpx"), {"version": "1.1", "creator": "geodtr-export"})
    root.set(f"{{{_XSI}}}schemaLocation", f"{_GPX} {_SCHEMA}")
    if track:
        line = ET.SubElement(root, _tag("trk"))
        for run in runs(waypoints):
            segment = ET.SubElement(line, _tag("trkseg"))
            for waypoint in run:
                _add_point(segment, "trkpt", waypoint, unix)
    else:
        for waypoint in waypoints:
            if waypoint.reliable:
                _add_point(root, "wpt", waypoint, unix)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return written + b"\n"


def _add_point(parent: ET.Element, kind: str, waypoint: Waypoint, unix: bool) -> None:
    """A wptType; the schema wants its children in this order."""
    lat, lon = f"{waypoint.lat:.7f}", f"{waypoint.lon:.7f}"
    # The schema's longitudes end below 180, which rounding may reach.
    at = {"lat": lat, "lon": "-180.0000000" if lon == "180.0000000" else lon}
    point = ET.SubElement(parent, _tag(kind), at)
    if unix and waypoint.time_s is not None:
        moment = datetime.fromtimestamp(waypoint.time_s, timezone.utc)
        ET.SubElement(point, _tag("time")).text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if waypoint.image is not None:
        ET.SubElement(point, _tag("name")).text = escape_controls(waypoint.image)
    if waypoint.within_95_m is not None:
        ET.SubElement(point, _tag("desc")).text = f"95 % within {waypoint.within_95_m:.1f} m"


def _geojson_bytes(waypoints: Sequence[Waypoint], *, track: bool, unix: bool) -> bytes:
    del unix
    return encode_json(geojson(waypoints, track=track)) + b"\n"


def _csv_bytes(waypoints: Sequence[Waypoint], *, track: bool, unix: bool) -> bytes:
    del track, unix
    text = io.StringIO()
    writer = RowWriter(text)
    most = max((len(waypoint.candidates) for waypoint in waypoints), default=0)
    candidates = [f"{name}_{number}" for number in range(1, most + 1) for name in _OF_A_CANDIDATE]
    writer.write([*(field.name for field in fields(Waypoint) if field.name != "candidates"), *candidates])
    for waypoint in waypoints:
        *values, found = record(waypoint).values()
        cells = [each[name] for each in found for name in _OF_A_CANDIDATE]
        writer.write([*values, *cells, *[None] * (len(candidates) - len(cells))])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _at(waypoint: Waypoint) -> tuple[float, float]:
    assert waypoint.lon is not None  # it is asked of those that have a position
    assert waypoint.lat is not None
    return waypoint.lon, waypoint.lat


def _tag(name: str) -> str:
    return f"{{{_GPX}}}{name}"
