"""Answers as geographic documents: GeoJSON, GPX and KML.

Knows flat records; knows nothing of files.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from geodtr.runtime.files.foreign_text import escape_controls
from geodtr.runtime.geodesy import moved, wrapped
from geodtr.runtime.localization.waypoint import Waypoint, record, runs, scalars

_GPX = "http://www.topografix.com/GPX/1/1"
_KML = "http://www.opengis.net/kml/2.2"
_SCHEMA = "http://www.topografix.com/GPX/1/1/gpx.xsd"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"


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
        ET.SubElement(point, _tag("time")).text = _moment(waypoint.time_s)
    if waypoint.image is not None:
        ET.SubElement(point, _tag("name")).text = escape_controls(waypoint.image)
    if waypoint.within_95_m is not None:
        ET.SubElement(point, _tag("desc")).text = f"95 % within {waypoint.within_95_m:.1f} m"


def _moment(unix: float) -> str:
    moment = datetime.fromtimestamp(unix, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _at(waypoint: Waypoint) -> tuple[float, float]:
    assert waypoint.lon is not None  # it is asked of those that have a position
    assert waypoint.lat is not None
    return waypoint.lon, waypoint.lat


def _tag(name: str) -> str:
    return f"{{{_GPX}}}{name}"


_COLOURS = {"fix": "ffb86f0b", "tracking": "ffb86f0b", "searching": "ff148cde", "lost": "ff1e26b3"}
"""KML's order: opacity, blue, green, red."""
_CORNERS = 48
"""Of a polygon that stands for a circle."""


def kml(waypoints: Sequence[Waypoint], *, track: bool, unix: bool = False) -> bytes:
    """KML 2.2: a placemark for each waypoint with a position, in its state's colour, described with its candidates,
    its values as ExtendedData; of a track its line; else circles of 68 and 95 %.
    """
    root = ET.Element("kml", {"xmlns": _KML})
    document = ET.SubElement(root, "Document")
    for state, colour in _COLOURS.items():
        style = ET.SubElement(document, "Style", {"id": state})
        icon = ET.SubElement(style, "IconStyle")
        ET.SubElement(icon, "color").text = colour
        ET.SubElement(icon, "scale").text = "0.6"
        line = ET.SubElement(style, "LineStyle")
        ET.SubElement(line, "color").text = colour
        ET.SubElement(line, "width").text = "3"
        ET.SubElement(ET.SubElement(style, "PolyStyle"), "fill").text = "0"
    if track:
        lines = [[_at(waypoint) for waypoint in run] for run in runs(waypoints) if len(run) > 1]
        for line_of in (part for whole in lines for part in cut_at_180(whole)):
            mark = _placemark(document, "track", "tracking")
            _coordinates(ET.SubElement(mark, "LineString"), line_of)
    for waypoint in waypoints:
        if waypoint.lat is None or waypoint.lon is None:
            continue
        time = waypoint.time_s if unix else None
        mark = _placemark(document, waypoint.image or "", waypoint.state, _described(waypoint), time)
        _add_values(mark, waypoint)
        _coordinates(ET.SubElement(mark, "Point"), [_at(waypoint)])
        circles = ((68, waypoint.within_68_m), (95, waypoint.within_95_m))
        for share, radius in circles if waypoint.reliable and not track else ():
            if radius is not None:
                mark = _placemark(document, f"{share} % within {radius:.1f} m", waypoint.state)
                ring = ET.SubElement(ET.SubElement(ET.SubElement(mark, "Polygon"), "outerBoundaryIs"), "LinearRing")
                _coordinates(ring, _circle(waypoint.lat, waypoint.lon, radius))
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return written + b"\n"


def _placemark(
    document: ET.Element, name: str, state: str, description: str | None = None, time: float | None = None
) -> ET.Element:
    """A Feature; the schema wants its children in this order, and its geometry behind them."""
    mark = ET.SubElement(document, "Placemark")
    ET.SubElement(mark, "name").text = escape_controls(name)
    if description is not None:
        ET.SubElement(mark, "description").text = description
    if time is not None:
        ET.SubElement(ET.SubElement(mark, "TimeStamp"), "when").text = _moment(time)
    if state in _COLOURS:
        ET.SubElement(mark, "styleUrl").text = f"#{state}"
    return mark


def _add_values(mark: ET.Element, waypoint: Waypoint) -> None:
    """What is known of a waypoint, by the names of the record."""
    values = ET.SubElement(mark, "ExtendedData")
    for name, value in scalars(waypoint).items():
        if value is not None:
            one = ET.SubElement(values, "Data", {"name": name})
            ET.SubElement(one, "value").text = escape_controls(str(value))


def _described(waypoint: Waypoint) -> str:
    lines: list[str] = [waypoint.state]
    if waypoint.within_68_m is not None and waypoint.within_95_m is not None:
        lines.append(f"68 % within {waypoint.within_68_m:.1f} m, 95 % within {waypoint.within_95_m:.1f} m")
    lines += [f"{each.score:.4f} {escape_controls(each.place.id)}" for each in waypoint.candidates]
    # A reader takes it for HTML, and a name for what it is then.
    return "<br>".join(escape(line) for line in lines)


def _circle(lat: float, lon: float, radius: float) -> list[tuple[float, float]]:
    """A ring of [lon, lat] that goes against the clock; near the 180th meridian its longitudes go on beyond."""
    turn = np.linspace(0, 2 * np.pi, _CORNERS + 1)
    lats, lons = moved(lat, lon, radius * np.cos(turn), radius * np.sin(turn))
    lons = lon + wrapped(lons - lon)
    return list(zip(lons.tolist(), lats.tolist(), strict=True))


def _coordinates(parent: ET.Element, places: Sequence[Sequence[float]]) -> None:
    ET.SubElement(parent, "coordinates").text = " ".join(f"{lon:.7f},{lat:.7f}" for lon, lat in places)
