"""Answers are written as other programs expect them: GPX 1.1, GeoJSON, CSV, JSON lines, and a picture."""

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from gpx_schema import NAMESPACE, check_gpx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor
from plotted import pixels_of
from size_limit import file_size_limit

from geodtr import UserError
from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.files import check_pictures, save_picture
from geodtr.export.plots.track import COLOURS, SURE, TILE, track_plot
from geodtr.runtime.errors import ConfigError, OutputExists
from geodtr.runtime.geodesy import distance, moved
from geodtr.runtime.localization.output.gis import geojson, gpx, kml
from geodtr.runtime.localization.output.writers import SUFFIXES, waypoint_file
from geodtr.runtime.localization.waypoint import Candidate, Waypoint
from geodtr.runtime.sources.tile import Tile

KML = "{http://www.opengis.net/kml/2.2}"
TRACK = (
    Waypoint("searching", time_s=1.7e9),
    Waypoint("searching", "a.png", 1.7e9 + 1, -30.0, -15.0, 10.0, 500.0, 900.0),
    Waypoint("tracking", "b.png", 1.7e9 + 2, -30.0, -14.999, 10.0, 5.0, 9.0),
    Waypoint("tracking", None, 1.7e9 + 3.5, -30.0, -14.998, 12.0, 6.0, 10.0),
    Waypoint("lost", "c.png", 1.7e9 + 4, -30.0, -14.997, 12.0, 60.0, 100.0),
    Waypoint("tracking", "d.png", 1.7e9 + 5, -30.001, -14.99, 12.0, 6.0, 10.0),
)


CANDIDATES = tuple(
    Candidate(row, Tile(f"map.tif#{row},0,8,8", "map.tif", -30.0, -15.0 + row / 1000), 0.9 - row / 10, 90.0)
    for row in range(3)
)


def test_a_gpx_track_breaks_where_it_was_lost() -> None:
    root = check_gpx(gpx(TRACK, track=True, unix=True))
    segments = root.findall(f"{NAMESPACE}trk/{NAMESPACE}trkseg")
    assert [len(segment) for segment in segments] == [2, 1]
    times = [time.text for time in root.iter(f"{NAMESPACE}time")]
    assert times == ["2023-11-14T22:13:22.000Z", "2023-11-14T22:13:23.500Z", "2023-11-14T22:13:25.000Z"]
    assert not list(check_gpx(gpx(TRACK, track=True)).iter(f"{NAMESPACE}time"))


def test_single_fixes_are_gpx_waypoints() -> None:
    fixes = (Waypoint("fix", "a.png", lat=1.0, lon=2.0, within_95_m=12.34), Waypoint("no fix", "b.png"))
    (point,) = check_gpx(gpx(fixes, track=False)).findall(f"{NAMESPACE}wpt")
    assert (point.attrib, point[0].text, point[1].text) == (
        {"lat": "1.0000000", "lon": "2.0000000"},
        "a.png",
        "95 % within 12.3 m",
    )


def test_a_geojson_line_is_cut_at_the_180th_meridian() -> None:
    """RFC 7946, 3.1.9: or a map draws it around the Earth."""
    places = [(-17.0, 179.9), (-17.2, -179.9), (-17.2, -179.8), (-17.4, 179.9)]
    track = [Waypoint("tracking", None, float(time), lat, lon) for time, (lat, lon) in enumerate(places)]
    *_, line = geojson(track, track=True)["features"]
    first, second, third = (np.array(part) for part in line["geometry"]["coordinates"])
    np.testing.assert_allclose(first, [(179.9, -17.0), (180, -17.1)])
    np.testing.assert_allclose(second[:3], [(-180, -17.1), (-179.9, -17.2), (-179.8, -17.2)])
    np.testing.assert_allclose(second[3], (-180, -17.2 - 0.2 * 2 / 3))
    np.testing.assert_allclose(third, [(180, -17.2 - 0.2 * 2 / 3), (179.9, -17.4)])


def test_kml_has_the_track_its_states_and_its_times() -> None:
    root = ET.fromstring(kml(TRACK, track=True, unix=True))
    marks = root.findall(f"{KML}Document/{KML}Placemark")
    assert [[child.tag.removeprefix(KML) for child in mark] for mark in marks[:2]] == [
        ["name", "styleUrl", "LineString"],
        ["name", "description", "TimeStamp", "styleUrl", "ExtendedData", "Point"],
    ]
    assert marks[0].findtext(f"{KML}LineString/{KML}coordinates") == "-14.9990000,-30.0000000 -14.9980000,-30.0000000"
    assert [mark.findtext(f"{KML}styleUrl") for mark in marks[1:]] == [f"#{point.state}" for point in TRACK[1:]]
    assert marks[1].findtext(f"{KML}TimeStamp/{KML}when") == "2023-11-14T22:13:21.000Z"


def test_kml_has_circles_and_candidates_of_fixes() -> None:
    fix = Waypoint("fix", "a<b>.png", None, -30.0, 179.9999, None, 20.0, 40.0, candidates=CANDIDATES)
    point, *circles = ET.fromstring(kml([fix, Waypoint("no fix")], track=False)).iter(f"{KML}Placemark")
    assert point.findtext(f"{KML}name") == "a<b>.png"
    assert "0.9000 map.tif#0,0,8,8<br>" in (point.findtext(f"{KML}description") or "")
    for circle, radius in zip(circles, (20, 40), strict=True):
        text = next(circle.iter(f"{KML}coordinates")).text or ""
        lon, lat = np.array([place.split(",") for place in text.split()], np.float64).T
        np.testing.assert_allclose(distance(-30.0, 179.9999, lat, lon), radius, rtol=0.001)
        assert (lon[0], lat[0]) == (lon[-1], lat[-1])


@settings(max_examples=100, deadline=None)
@example(name="", lat=90.0, lon=180.0, time=0.0)
@given(name=st.text(), lat=st.floats(-90, 90), lon=st.floats(-180, 180), time=st.floats(0, 4e9))
def test_any_name_and_position_makes_valid_gpx_and_geojson(name: str, lat: float, lon: float, time: float) -> None:
    points = (Waypoint("tracking", name, time, lat, lon),)
    check_gpx(gpx(points, track=True, unix=True))
    check_gpx(gpx(points, track=False))
    for track in (True, False):
        assert ET.fromstring(kml(points, track=track, unix=True)).find(f"{KML}Document") is not None
    assert json.loads(json.dumps(geojson(points, track=True)))["features"][0]["properties"]["image"] == name


def test_geojson_holds_points_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "track.geojson"
    with waypoint_file(path, track=True) as write:
        for waypoint in TRACK:
            write(waypoint)
        assert not path.exists()
    features = json.loads(path.read_bytes())["features"]
    assert [feature["type"] for feature in features] == ["Feature"] * 7
    assert features[0]["geometry"] is None
    assert features[1]["geometry"] == {"type": "Point", "coordinates": [-15.0, -30.0]}
    assert features[1]["properties"]["within_68_m"] == 500
    assert features[-1]["geometry"] == {
        "type": "MultiLineString",
        "coordinates": [[[-14.999, -30.0], [-14.998, -30.0]]],
    }


def test_csv_has_a_column_for_everything(tmp_path: Path) -> None:
    path = tmp_path / "track.csv"
    with waypoint_file(path, track=True) as write:
        for waypoint in TRACK:
            write(waypoint)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == [waypoint.state for waypoint in TRACK]
    assert (rows[0]["lat"], rows[2]["lon"]) == ("", "-14.999")


@pytest.mark.parametrize("suffix", [".jsonl", ".geojson", ".csv"])
def test_candidates_and_their_scores_are_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fixes{suffix}"
    fix = Waypoint("fix", "a.png", None, -30.0, -15.0, spread_m=12.5, margin=0.25, candidates=CANDIDATES)
    with waypoint_file(path, track=False) as write:
        write(fix)
        write(Waypoint("no fix", "b.png", candidates=CANDIDATES[:1]))
    if suffix == ".csv":
        with path.open(newline="") as file:
            first, second = csv.DictReader(file)
        assert (first["spread_m"], first["margin"]) == ("12.5", "0.25")
        assert [first[f"{name}_2"] for name in ("tile", "score", "lat", "lon")] == [
            "map.tif#1,0,8,8",
            "0.8",
            "-30.0",
            "-14.999",
        ]
        assert (second["tile_1"], second["tile_2"], second["score_3"]) == ("map.tif#0,0,8,8", "", "")
        return
    text = path.read_text()
    first = json.loads(text)["features"][0]["properties"] if suffix == ".geojson" else json.loads(text.splitlines()[0])
    assert (first["spread_m"], first["margin"]) == (12.5, 0.25)
    assert first["candidates"][1] == {
        "row": 1,
        "tile": "map.tif#1,0,8,8",
        "file": "map.tif",
        "score": 0.8,
        "lat": -30.0,
        "lon": -14.999,
        "heading": 90.0,
        "ground_metres": None,
        "tile_metres": None,
    }


def test_json_lines_can_be_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "track.jsonl"
    with pytest.raises(KeyboardInterrupt), waypoint_file(path, track=True) as write:
        for count, waypoint in enumerate(TRACK, 1):
            write(waypoint)
            lines = path.read_text().splitlines()
            assert len(lines) == count
            assert json.loads(lines[-1])["state"] == waypoint.state
        raise KeyboardInterrupt
    assert len(path.read_text().splitlines()) == len(TRACK)


def test_json_lines_on_a_full_disk_end_with_a_whole_line_and_an_error(tmp_path: Path) -> None:
    path = tmp_path / "track.jsonl"
    with pytest.raises(UserError, match=r"track\.jsonl ends here"), waypoint_file(path, track=True) as write:
        write(TRACK[0])
        with file_size_limit(path.stat().st_size + 40):
            write(TRACK[1])
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["state"] == TRACK[0].state


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_that_exists_is_overwritten_and_nothing_half_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("mine")
    with pytest.raises(OutputExists), waypoint_file(path, track=False):
        pass
    assert path.read_text() == "mine"
    other = tmp_path / f"other{suffix}"
    with pytest.raises(KeyboardInterrupt), waypoint_file(other, track=False):
        raise KeyboardInterrupt
    assert not other.exists()
    with pytest.raises(KeyboardInterrupt), waypoint_file(other, track=False) as write:
        write(TRACK[0])
        raise KeyboardInterrupt
    assert other.exists() == (suffix == ".jsonl")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.shp.*\.gpx"), waypoint_file(tmp_path / "out.shp", track=False):
        pass
    with pytest.raises(ConfigError, match=r"\.png"):
        check_pictures(tmp_path / "out.gif")


def test_a_picture_shows_tiles_states_and_doubt(tmp_path: Path) -> None:
    lat, lon = moved(-30.0, -15.0, np.linspace(-200, 1200, 40), np.full(40, 50.0))
    figure = track_plot(TRACK, np.append(lat, np.nan), np.append(lon, np.nan), track=True)
    save_picture(figure, tmp_path / "track.png")
    with Image.open(tmp_path / "track.png") as picture:
        assert min(picture.size) > 1000
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {ImageColor.getrgb(colour) for colour in (TILE, *SURE.values(), *COLOURS.values())} <= colours
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == {
        *("centre of a tile", "68 % within", "95 % within", "start", "end"),
        *("tracking", "searching", "lost"),
    }


def test_a_picture_has_east_on_the_right_and_north_up() -> None:
    here = (Waypoint("lost", lat=0.0, lon=0.0), Waypoint("fix", lat=0.01, lon=0.01))
    pixels = pixels_of(track_plot(here, np.empty(0), np.empty(0), track=False))[:1070]  # above the legend
    red, blue = (
        np.argwhere((pixels == ImageColor.getrgb(LIGHT[name])).all(axis=2)).mean(axis=0) for name in ("bad", "s1")
    )
    assert red[0] > blue[0] + 100
    assert red[1] < blue[1] - 100


@pytest.mark.parametrize("count", [0, 1])
def test_a_picture_of_one_position_is_drawn_and_of_none_refused(count: int) -> None:
    here = (Waypoint("no fix"), *[Waypoint("fix", lat=89.9, lon=180.0)] * count)
    if count:
        assert pixels_of(track_plot(here, np.empty(0), np.empty(0), track=False)).size
        return
    with pytest.raises(ConfigError, match="nothing to draw"):
        track_plot(here, np.empty(0), np.empty(0), track=False)
